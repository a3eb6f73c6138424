"""What a job comes to on this machine: the data, the sizes, the precision, in one frozen place."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from pydantic import ValidationError

from adapters.contract import (
    ACCURACY_METRIC,
    MULTI_LABEL_METRIC,
    ErrorKind,
    TaskType,
    TrainingError,
    TrainingJob,
)
from adapters.data.content import Content
from adapters.frameworks import framework_info
from adapters.machine import (
    computes_in_bf16,
    loader_processes,
    torch_device,
)
from adapters.ranks import Rank
from adapters.schemas.misfits import JobFacts, refuse
from adapters.schemas.timm import DEFAULT_OPTIMIZER, OPTIMIZERS, TimmHyperparameters, misfits
from adapters.timm_training.data import Order


@dataclass(frozen=True)
class Plan:
    """A job with everything decided that its request left open."""

    job: TrainingJob
    hyperparameters: TimmHyperparameters
    data: Content
    device: torch.device
    rank: Rank
    optimizer: str
    precision: str  # fp32, bf16 or fp16
    workers: int  # loader processes of this rank
    batch_size: int  # of all ranks together; 0: not decided yet

    @property
    def multi_label(self) -> bool:
        return self.data.multi_label

    @property
    def metric(self) -> str:
        """Return the name of what tells the best epoch."""
        return MULTI_LABEL_METRIC if self.multi_label else ACCURACY_METRIC[self.job.task_type]

    @property
    def loss(self) -> str:
        """Return the name of the training loss in timm's factory."""
        chosen = self.hyperparameters.loss
        if chosen == "auto":
            return "bce" if self.multi_label else "ce"
        return {"cross_entropy": "ce", "asymmetric": "asl"}.get(chosen, chosen)

    @cached_property
    def order(self) -> Order:
        return Order(
            train_size=len(self.data.splits["train"]),
            val_size=len(self.data.splits["val"]),
            batch_size=self.batch_size,
            seed=self.job.seed,
            rank=self.rank,
        )

    @property
    def updates_per_epoch(self) -> int:
        return -(-self.order.train_steps // self.hyperparameters.accumulation_steps)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be continued exactly."""
        names = hashlib.sha256()
        for split in ("train", "val"):
            for sample in self.data.splits[split]:
                name = os.path.relpath(sample.image, self.data.path)
                labels = ",".join(map(str, sample.classes))
                names.update(os.fsencode(f"{name}\0{labels}\n"))
        job = self.job
        return {
            "model_name": job.model_name,
            "classes": list(self.data.classes),
            "images": names.hexdigest(),
            "multi_label": self.multi_label,
            "epochs": job.epochs,
            "batch_size": job.batch_size,
            "learning_rate": job.learning_rate,
            "optimizer": self.optimizer,
            "image_size": job.image_size,
            "seed": job.seed,
            "hyperparameters": self.hyperparameters.model_dump(exclude={"workers"}),
        }

    def with_batch_size(self, size: int) -> Plan:
        """Return the plan with a batch size. Raises TrainingError where it cannot be taken."""
        plan = dataclasses.replace(self, batch_size=size)
        ranks, batch = self.rank.total, plan.order.train_batch_size
        if batch < ranks:
            raise _unsupported(
                f"a batch of {batch} cannot be shared by {ranks} devices",
                hint=f"Take a batch size of at least {ranks}.",
            )
        plan.check()
        return plan

    def check(self) -> None:
        """Raise TrainingError(UNSUPPORTED) where what was asked for does not go together."""
        facts = JobFacts(
            task_type=self.job.task_type,
            model_name=self.job.model_name,
            epochs=self.job.epochs,
            batch_size=self.batch_size or None,
            image_size=self.job.image_size,
            on_cpu=self.device.type != "cuda",
            multi_label=self.multi_label,
            classes=tuple(self.data.classes),
            train_images=len(self.data.splits["train"]),
            devices=self.rank.total,
        )
        refuse(misfits(self.hyperparameters, facts))


def make_plan(job: TrainingJob, data: Content, *, rank: Rank | None = None) -> Plan:
    """Decide what a job left open, but for its batch size.

    Raises TrainingError(UNSUPPORTED) where it asks for what timm or this machine cannot do, and
    TrainingError(DATASET_INVALID) where there is nothing to train on or to validate with.
    """
    rank = rank or Rank(job.compute_device)
    hyperparameters = _hyperparameters(job)
    optimizer = (job.optimizer or DEFAULT_OPTIMIZER).lower()
    if optimizer not in OPTIMIZERS:
        raise _unsupported(
            f"unknown optimizer '{job.optimizer}'", hint=f"One of {', '.join(OPTIMIZERS)}."
        )
    if job.epochs < 1 or job.batch_size < 0:
        raise _unsupported("epochs must be at least 1, and the batch size at least 0")
    _check_data(data)
    device = torch_device(rank.device)
    plan = Plan(
        job=job,
        hyperparameters=hyperparameters,
        data=data,
        device=device,
        rank=rank,
        optimizer=optimizer,
        precision=_precision(hyperparameters.precision, device),
        workers=loader_processes(hyperparameters.workers, device, ranks=rank.total),
        batch_size=0,
    )
    plan.check()
    return plan.with_batch_size(job.batch_size) if job.batch_size else plan


def check_task(job: TrainingJob) -> None:
    """Raise TrainingError(UNSUPPORTED) where timm does not train a job's task or format."""
    if job.task_type != TaskType.IMAGE_CLASSIFICATION:
        raise _unsupported(f"timm does not train {job.task_type}", hint="timm classifies images.")
    formats = framework_info("timm").formats[job.task_type]
    if job.dataset_format not in formats:
        raise _unsupported(
            f"timm does not train on the format {job.dataset_format}",
            hint=f"It trains on {', '.join(formats)}.",
        )


def _check_data(data: Content) -> None:
    for split in ("train", "val"):
        if not data.splits.get(split):
            raise TrainingError(
                ErrorKind.DATASET_INVALID,
                f"the data set '{data.path}' has no image in the split '{split}'",
                hint="Put images there, or leave the split out and some of train are held out.",
            )
    if data.multi_label and not any(sample.classes for sample in data.splits["train"]):
        raise TrainingError(
            ErrorKind.DATASET_INVALID,
            "no image of the split 'train' has a class",
            hint="Look at the labels of the data set: there is nothing to learn.",
        )


def _hyperparameters(job: TrainingJob) -> TimmHyperparameters:
    try:
        return TimmHyperparameters.model_validate(dict(job.hyperparameters))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"]) or "hyperparameters"
        raise _unsupported(f"hyperparameter '{name}': {first['msg']}") from error


def _precision(choice: str, device: torch.device) -> str:
    if choice != "auto":
        return choice
    if computes_in_bf16(device):
        return "bf16"
    return "fp16" if device.type == "cuda" else "fp32"


def _unsupported(message: str, *, hint: str = "") -> TrainingError:
    return TrainingError(ErrorKind.UNSUPPORTED, message, hint=hint)
