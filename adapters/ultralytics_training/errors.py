"""What Ultralytics raises, as failures that a person can act on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from adapters import failures
from adapters.contract import ErrorKind, TrainingError, TrainingJob

# cuBLAS and cuDNN say so when memory is short; Ultralytics counts these as out of memory, too.
_OUT_OF_MEMORY = re.compile(
    r"CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_INTERNAL_ERROR|unable to find an engine"
)
_DEVICE = re.compile(r"Invalid CUDA 'device|no CUDA GPUs|NVIDIA driver", re.IGNORECASE)


@contextmanager
def short_memory_told() -> Iterator[None]:
    """Raise torch's error of short memory where cuBLAS or cuDNN have words of their own for it."""
    try:
        yield
    except RuntimeError as error:
        if _OUT_OF_MEMORY.search(str(error)):
            raise torch.OutOfMemoryError(f"out of memory: {error}") from error
        raise


def as_training_error(error: Exception, job: TrainingJob) -> TrainingError:
    """Return the TrainingError that says what an exception means for a job."""
    text = str(error).strip()
    if _OUT_OF_MEMORY.search(text):
        return failures.out_of_memory(error, job)
    if _DEVICE.search(text):
        hint = "Run 'modelyard doctor' on the worker's host: it says what its GPU lacks."
        return TrainingError(ErrorKind.DEVICE, text.partition("\n")[0], hint=hint)
    if isinstance(error, FileNotFoundError) and "Image Not Found" in text:
        hint = "Check the data set again: an image has gone or cannot be read any more."
        return TrainingError(ErrorKind.DATASET_INVALID, text.splitlines()[-1], hint=hint)
    if "froze the entire model" in text:
        message = "freeze leaves no layer of the model to be trained"
        hint = "Clone the job with a smaller freeze."
        return TrainingError(ErrorKind.UNSUPPORTED, message, hint=hint)
    if "gives BatchNorm a single value" in text:
        message = f"batch_size {job.batch_size} leaves a single image for an epoch's last batch"
        hint = "Clone the job with another batch_size or a larger image_size."
        return TrainingError(ErrorKind.UNSUPPORTED, message, hint=hint)
    return failures.as_training_error(error, job)
