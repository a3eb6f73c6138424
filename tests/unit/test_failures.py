"""What a library's exceptions become for a person."""

from __future__ import annotations

import errno
from collections.abc import Callable
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
        (
            RuntimeError(
                "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible"
            ),
            ErrorKind.CHILD_DIED,
            "Bus error",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
            ErrorKind.OUT_OF_MEMORY,
            "does not fit",
        ),
        (torch.AcceleratorError("CUDA error: out of memory"), ErrorKind.OUT_OF_MEMORY, "size 64"),
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


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("CUDA error: an illegal memory access was encountered", "nvidia-smi"),
        ("CUDA error: no CUDA-capable device is detected", "modelyard doctor"),
        ("No CUDA GPUs are available", "modelyard doctor"),
        ("CUDA error: CUDA driver version is insufficient for CUDA runtime version", "too old"),
        ("The NVIDIA driver on your system is too old (found version 11040)", "too old"),
        ("Error 803: system has unsupported display driver / cuda driver combination", "restart"),
        ("Failed to initialize NVML: Driver/library version mismatch", "restart"),
        ("CUDA error: no kernel image is available for execution on the device", "build"),
        ("NCCL error in: ProcessGroupNCCL.cpp:94, unhandled cuda error", "talk to each other"),
    ],
)  # fmt: skip
def test_what_a_gpu_or_its_driver_lacks_is_told_apart(text: str, hint: str) -> None:
    told = as_training_error(RuntimeError(text), make_job())
    assert told.kind == ErrorKind.DEVICE
    assert hint in told.hint


def test_a_class_that_the_model_has_not_is_no_failure_of_the_gpu() -> None:
    told = as_training_error(
        torch.AcceleratorError("CUDA error: device-side assert triggered"), make_job()
    )
    assert told.kind == ErrorKind.FRAMEWORK
    assert "device 'cpu'" in told.hint


def allocate() -> None:
    torch.empty(2**55)


def run_out_of_python_memory() -> None:
    bytearray(2**62)


def save_to_a_full_disk() -> None:
    torch.save({"weights": torch.zeros(100_000)}, "/dev/full")


def write_to_a_full_disk() -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"checkpoint")


def use_a_gpu() -> None:
    torch.zeros(1, device="cuda:99")


@pytest.mark.parametrize(
    ("fail", "kind"),
    [
        (allocate, ErrorKind.OUT_OF_MEMORY),
        (run_out_of_python_memory, ErrorKind.OUT_OF_MEMORY),
        (save_to_a_full_disk, ErrorKind.DISK_FULL),
        (write_to_a_full_disk, ErrorKind.DISK_FULL),
        (use_a_gpu, ErrorKind.DEVICE),
    ],
)
def test_real_failures_are_recognised(fail: Callable[[], None], kind: ErrorKind) -> None:
    with pytest.raises(Exception) as caught:
        fail()
    told = as_training_error(caught.value, make_job())
    assert told.kind == kind, caught.value
    assert told.hint
