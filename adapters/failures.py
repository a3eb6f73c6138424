"""Turning what a library raises into a TrainingError that a person can act on."""

from __future__ import annotations

import torch

from adapters.contract import ErrorKind, TrainingError, TrainingJob
from adapters.data.description import DatasetError
from adapters.files import is_disk_full

# What torch's allocators say; the one of the CPU raises a plain RuntimeError.
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
# What torch's own writer of files says when fewer bytes were taken than it gave.
_NOT_WRITTEN = ("PytorchStreamWriter failed writing", "unexpected pos")
_DOCTOR = (
    "Run `modelyard doctor` on the worker's host: it says what its GPU, driver or torch lacks."
)
_TOO_OLD = f"The driver is too old. {_DOCTOR}"
_RESTART = "The driver and its libraries differ, as after an upgrade: restart the worker's host."
_FAILED = "The GPU or its driver failed. Look at `nvidia-smi` on the worker, then resume."
_BUILD = "The worker's torch is not built for this GPU: install a build that is."
_EXCHANGE = """\
The GPUs of the slot could not talk to each other. NCCL_DEBUG=INFO in the worker's environment \
tells why; MODELYARD_GPUS_PER_SLOT=1 trains on one GPU each."""
_ASSERT = """\
A number out of range inside a GPU's kernel, mostly a class that the model has not. Check the data \
set again; started with device 'cpu', the job says where."""
_SHARED_MEMORY = """\
Loader processes ran out of shared memory: give the worker's container more (docker's --shm-size), \
or lower the hyperparameter 'workers'."""
# Whatever the class of the exception: kind and hint by what it says, the first that fits.
_BY_TEXT: tuple[tuple[str, ErrorKind, str], ...] = (
    ("device-side assert", ErrorKind.FRAMEWORK, _ASSERT),
    ("NCCL", ErrorKind.DEVICE, _EXCHANGE),
    ("no kernel image is available", ErrorKind.DEVICE, _BUILD),
    ("driver version is insufficient", ErrorKind.DEVICE, _TOO_OLD),
    ("driver on your system is too old", ErrorKind.DEVICE, _TOO_OLD),
    ("unsupported display driver", ErrorKind.DEVICE, _RESTART),
    ("river/library version mismatch", ErrorKind.DEVICE, _RESTART),
    ("no NVIDIA driver", ErrorKind.DEVICE, _DOCTOR),
    ("No CUDA GPUs are available", ErrorKind.DEVICE, _DOCTOR),
    ("no CUDA-capable device", ErrorKind.DEVICE, _DOCTOR),
    ("not compiled with CUDA", ErrorKind.DEVICE, _DOCTOR),
    ("CUDA error", ErrorKind.DEVICE, _FAILED),
    ("is killed by signal: Bus error", ErrorKind.CHILD_DIED, _SHARED_MEMORY),
)


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
    if _found_no_space(error):
        return TrainingError(
            ErrorKind.DISK_FULL,
            f"no space left on the disk of '{job.output_dir}'",
            hint="Remove artifacts of old jobs there, then resume this one: nothing is lost.",
        )
    text = f"{type(error).__name__}: {_last_line(error)}"
    said = f"CUDA error {text}" if isinstance(error, torch.AcceleratorError) else text
    for part, kind, hint in _BY_TEXT:
        if part in said:
            return TrainingError(kind, text, hint=hint)
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


def _found_no_space(error: Exception) -> bool:
    if is_disk_full(error):
        return True
    return isinstance(error, RuntimeError) and any(part in str(error) for part in _NOT_WRITTEN)


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
