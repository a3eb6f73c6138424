"""Turning what a library raises into a TrainingError that a person can act on."""

from __future__ import annotations

import errno

import torch

from adapters.contract import ErrorKind, TrainingError, TrainingJob
from adapters.data.description import DatasetError

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
# What torch's allocators say; the one of the CPU raises a plain RuntimeError.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def as_training_error(error: Exception, job: TrainingJob) -> TrainingError:
    """Return the TrainingError that says what an exception means for a job."""
    if isinstance(error, TrainingError):
        return error
    if isinstance(error, DatasetError):
        return TrainingError(
            ErrorKind.DATASET_INVALID,
            _last_line(error),
            hint="Mend or remove the file, then look at the data set again and start the job anew.",
        )
    if is_out_of_memory(error):
        return out_of_memory(error, job)
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return TrainingError(
            ErrorKind.DISK_FULL,
            f"no space left on the disk of '{job.output_dir}'",
            hint="Remove artifacts of old jobs there, then resume this one: nothing is lost.",
        )
    text = f"{type(error).__name__}: {_last_line(error)}"
    if isinstance(error, torch.AcceleratorError) or "CUDA error" in text:
        hint = "The GPU or its driver failed. Look at `nvidia-smi` on the worker, then resume."
        return TrainingError(ErrorKind.DEVICE, text, hint=hint)
    if "DataLoader worker" in text and ("killed" in text or "exited unexpectedly" in text):
        hint = "The machine may be short of memory: lower the hyperparameter 'workers'."
        return TrainingError(ErrorKind.CHILD_DIED, text, hint=hint)
    hint = "The job's log holds the whole traceback."
    return TrainingError(ErrorKind.FRAMEWORK, text, hint=hint)


def out_of_memory(error: Exception, job: TrainingJob) -> TrainingError:
    """Return the error of a batch that did not fit."""
    if job.batch_size > 1:
        hint = f"Start it again with batch size {job.batch_size // 2}, half of this one."
    else:
        hint = "Take a smaller image size or a smaller model."
    batch = f"batch size {job.batch_size}" if job.batch_size else "the smallest batch"
    return TrainingError(
        ErrorKind.OUT_OF_MEMORY,
        f"{batch} of {job.model_name} does not fit into the memory of "
        f"{job.compute_device}: {_first_line(error)}",
        hint=hint,
    )


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether memory, of the GPU or of the machine, ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, TrainingError):  # of another process of the same attempt
        return error.kind == ErrorKind.OUT_OF_MEMORY
    text = str(error)
    return isinstance(error, RuntimeError) and any(part in text for part in _OUT_OF_MEMORY)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _last_line(error: Exception) -> str:
    """Return what an error says, also where a loader process wrapped it in its traceback."""
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    if len(lines) > 1 and "Traceback" in str(error):
        return lines[-1].partition(": ")[2] or lines[-1]
    return lines[0]
