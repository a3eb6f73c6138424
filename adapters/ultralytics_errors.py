"""What Ultralytics and torch raise, as failures that a person can act on."""

from __future__ import annotations

import errno
import re

import torch

from adapters.contract import ErrorKind, TrainingError

_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_INTERNAL_ERROR"
    r"|unable to find an engine|killed by signal: (Killed|Bus error)|insufficient shared memory",
    re.IGNORECASE,
)
_DEVICE = re.compile(
    r"CUDA error|no CUDA GPUs|NVIDIA driver|Invalid CUDA 'device|device-side assert", re.IGNORECASE
)
_LONGEST = 2000  # characters of a library's message; some carry a whole file


def as_training_error(error: Exception, *, batch_size: int) -> TrainingError | None:
    """Return an error as a TrainingError, or None where its kind is not known."""
    text = str(error)[:_LONGEST].strip()
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "Free some space below the outputs folder, then resume the job."
        return TrainingError(ErrorKind.DISK_FULL, f"The disk is full: {text}", hint=hint)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or _OUT_OF_MEMORY.search(text):
        smaller = max(batch_size // 2, 1)
        hint = f"Clone the job with batch_size {smaller}, a smaller image_size or fewer workers."
        return TrainingError(ErrorKind.OUT_OF_MEMORY, f"Out of memory: {text}", hint=hint)
    if _DEVICE.search(text):
        hint = "Run 'modelyard doctor' on the worker's host; it says what is wrong with the GPU."
        return TrainingError(ErrorKind.DEVICE, text, hint=hint)
    if isinstance(error, FileNotFoundError) and "Image Not Found" in text:
        hint = "Check the data set again: an image has gone or cannot be read any more."
        return TrainingError(ErrorKind.DATASET_INVALID, text, hint=hint)
    if "gives BatchNorm a single value" in text:
        hint = "Clone the job with another batch_size, so that no batch has a single image."
        return TrainingError(ErrorKind.UNSUPPORTED, text, hint=hint)
    return None
