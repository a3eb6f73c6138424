"""What a job comes to on this machine: the data, the sizes, the precision, in one frozen place."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from pydantic import ValidationError

from adapters.contract import DatasetFormat, ErrorKind, TaskType, TrainingError, TrainingJob
from adapters.data.imagefolder import ImageFolder
from adapters.schemas.timm import DEFAULT_OPTIMIZER, OPTIMIZERS, TimmHyperparameters
from adapters.timm_training.data import Order


@dataclass(frozen=True)
class Plan:
    """A job with everything decided that its request left open."""

    job: TrainingJob
    hyperparameters: TimmHyperparameters
    data: ImageFolder
    device: torch.device
    optimizer: str
    precision: str  # fp32, bf16 or fp16
    workers: int  # loader processes
    order: Order

    @property
    def updates_per_epoch(self) -> int:
        return -(-self.order.train_steps // self.hyperparameters.accumulation_steps)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be continued exactly."""
        names = hashlib.sha256()
        for split in ("train", "val"):
            for path, label in self.data.splits[split]:
                names.update(f"{path.relative_to(self.data.path)}\0{label}\n".encode())
        job = self.job
        return {
            "model_name": job.model_name,
            "classes": list(self.data.classes),
            "images": names.hexdigest(),
            "epochs": job.epochs,
            "batch_size": job.batch_size,
            "learning_rate": job.learning_rate,
            "optimizer": self.optimizer,
            "image_size": job.image_size,
            "seed": job.seed,
            "hyperparameters": self.hyperparameters.model_dump(exclude={"workers"}),
        }


def make_plan(job: TrainingJob, data: ImageFolder) -> Plan:
    """Decide what a job left open.

    Raises TrainingError(UNSUPPORTED) where it asks for what timm or this machine cannot do.
    """
    hyperparameters = _hyperparameters(job)
    optimizer = (job.optimizer or DEFAULT_OPTIMIZER).lower()
    if optimizer not in OPTIMIZERS:
        raise _unsupported(
            f"unknown optimizer '{job.optimizer}'", hint=f"One of {', '.join(OPTIMIZERS)}."
        )
    if job.task_type != TaskType.IMAGE_CLASSIFICATION:
        raise _unsupported(f"timm does not train {job.task_type}", hint="timm classifies images.")
    if job.dataset_format != DatasetFormat.IMAGEFOLDER:
        raise _unsupported(
            f"timm does not train on the format {job.dataset_format}", hint="Use an imagefolder."
        )
    if job.epochs < 1 or job.batch_size < 1:
        raise _unsupported("epochs and batch size must be at least 1")
    device = _device(job.compute_device)
    order = Order(
        train_size=len(data.splits["train"]),
        val_size=len(data.splits["val"]),
        batch_size=job.batch_size,
        seed=job.seed,
    )
    if hyperparameters.mixing and order.train_batch_size % 2:
        raise _unsupported(
            f"mixup and cutmix need an even batch size, not {order.train_batch_size}",
            hint=f"Take {order.train_batch_size + 1}, or switch mixing off.",
        )
    return Plan(
        job=job,
        hyperparameters=hyperparameters,
        data=data,
        device=device,
        optimizer=optimizer,
        precision=_precision(hyperparameters.precision, device),
        workers=_workers(hyperparameters.workers, device),
        order=order,
    )


def _hyperparameters(job: TrainingJob) -> TimmHyperparameters:
    try:
        return TimmHyperparameters.model_validate(dict(job.hyperparameters))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"]) or "hyperparameters"
        raise _unsupported(f"hyperparameter '{name}': {first['msg']}") from error


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise TrainingError(ErrorKind.DEVICE, f"'{name}' is not a device of torch") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            ErrorKind.DEVICE,
            f"{name} was asked for, but torch finds no GPU that it can use",
            hint="Look at `nvidia-smi` on the worker, or start the job on a CPU.",
        )
    return device


def _precision(choice: str, device: torch.device) -> str:
    if device.type == "cuda":
        best = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        return best if choice == "auto" else choice
    if choice == "fp16":
        raise _unsupported(
            "precision fp16 needs a GPU", hint="Take 'auto': it picks what the device is fast in."
        )
    if choice == "auto":
        return "bf16" if _cpu_computes_in_bf16() else "fp32"
    return choice


def _cpu_computes_in_bf16() -> bool:
    """Tell whether bfloat16 is an instruction here; emulated, it is slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def _workers(choice: int | None, device: torch.device) -> int:
    if choice is not None:
        return choice
    cores = len(os.sched_getaffinity(0))
    if device.type == "cpu":
        # Training itself uses all cores; on a few of them loader processes only get in the way.
        return 0 if cores <= 4 else 2
    return min(8, max(1, cores // max(1, torch.cuda.device_count())))


def _unsupported(message: str, *, hint: str = "") -> TrainingError:
    return TrainingError(ErrorKind.UNSUPPORTED, message, hint=hint)
