"""What a library's exceptions become for a person."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from adapters.contract import DatasetFormat, ErrorKind, TaskType, TrainingError, TrainingJob
from adapters.data.description import DatasetError
from adapters.failures import as_training_error


def make_job(*, batch_size: int = 64) -> TrainingJob:
    return TrainingJob(
        id=1,
        attempt=1,
        framework="timm",
        model_name="resnet18",
        task_type=TaskType.IMAGE_CLASSIFICATION,
        dataset_path=Path("/data"),
        dataset_format=DatasetFormat.IMAGEFOLDER,
        epochs=1,
        batch_size=batch_size,
        learning_rate=0.1,
        output_dir=Path("/outputs/1"),
    )


LOADER_ERROR = """Caught DatasetError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "worker.py", line 1, in _worker_loop
adapters.data.description.DatasetError: image '/data/train/a: b/1.png' cannot be read: truncated"""


@pytest.mark.parametrize(
    ("error", "kind", "part"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), ErrorKind.OUT_OF_MEMORY, "size 64"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"),
            ErrorKind.OUT_OF_MEMORY,
            "can't allocate",
        ),
        (MemoryError(), ErrorKind.OUT_OF_MEMORY, "does not fit"),
        (OSError(errno.ENOSPC, "No space left on device"), ErrorKind.DISK_FULL, "/outputs/1"),
        (OSError(errno.EDQUOT, "Quota exceeded"), ErrorKind.DISK_FULL, "no space"),
        (
            DatasetError(LOADER_ERROR),
            ErrorKind.DATASET_INVALID,
            "image '/data/train/a: b/1.png' cannot be read: truncated",
        ),
        (torch.AcceleratorError("CUDA error: lost"), ErrorKind.DEVICE, "lost"),
        (RuntimeError("CUDA error: unspecified launch failure"), ErrorKind.DEVICE, "launch"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
            ErrorKind.CHILD_DIED,
            "pid 7",
        ),
        (ZeroDivisionError("division by zero"), ErrorKind.FRAMEWORK, "ZeroDivisionError"),
        (ValueError(), ErrorKind.FRAMEWORK, "ValueError"),
    ],
)
def test_each_failure_has_its_kind_a_message_and_a_hint(
    error: Exception, kind: ErrorKind, part: str
) -> None:
    told = as_training_error(error, make_job())
    assert told.kind == kind
    assert part in told.message
    assert "Traceback" not in told.message
    assert told.hint


def test_out_of_memory_advises_half_the_batch() -> None:
    error = torch.OutOfMemoryError("CUDA out of memory.")
    assert "batch size 32" in as_training_error(error, make_job()).hint
    assert "smaller" in as_training_error(error, make_job(batch_size=1)).hint


def test_what_was_told_already_is_not_told_otherwise() -> None:
    error = TrainingError(ErrorKind.NAN_LOSS, "loss became nan")
    assert as_training_error(error, make_job()) is error
