"""What a job comes to on this machine: the data, the sizes, the precision, in one frozen place."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from pydantic import ValidationError

from adapters.contract import ErrorKind, TaskType, TrainingError, TrainingJob
from adapters.data.content import Content
from adapters.huggingface_training.data import Order
from adapters.huggingface_training.zoo import ModelSpec, find_spec
from adapters.machine import (
    computes_in_bf16,
    loader_processes,
    torch_device,
)
from adapters.ranks import Rank
from adapters.schemas.fields import tasks_of
from adapters.schemas.huggingface import (
    DEFAULT_OPTIMIZER,
    OPTIMIZERS,
    HuggingFaceHyperparameters,
    misfits,
)
from adapters.schemas.misfits import JobFacts, refuse

TASKS = (
    TaskType.IMAGE_CLASSIFICATION,
    TaskType.OBJECT_DETECTION,
    TaskType.SEMANTIC_SEGMENTATION,
)
_DETECTION_CLIP = 0.1  # what DETR and all that came of it were trained with


@dataclass(frozen=True)
class Plan:
    """A job with everything decided that its request left open."""

    job: TrainingJob
    hyperparameters: HuggingFaceHyperparameters
    spec: ModelSpec
    content: Content
    image_size: int
    device: torch.device
    rank: Rank
    optimizer: str
    precision: str  # fp32, bf16 or fp16
    workers: int  # loader processes of this rank
    batch_size: int  # of all ranks together; 0: not decided yet

    @cached_property
    def order(self) -> Order:
        splits = self.content.splits
        return Order(
            train_size=len(splits["train"]),
            val_size=len(splits["val"]),
            batch_size=self.batch_size,
            seed=self.job.seed,
            rank=self.rank,
        )

    def with_batch_size(self, size: int) -> Plan:
        """Return the plan with a batch size. Raises TrainingError where ranks cannot share it."""
        ranks = self.rank.total
        if size % ranks:
            raise _unsupported(
                f"a batch of {size} cannot be shared evenly by {ranks} devices",
                hint=f"Take {ranks * -(-size // ranks)}.",
            )
        for split, samples in self.content.splits.items():
            if split in ("train", "val") and len(samples) < ranks:
                raise _unsupported(
                    f"{len(samples)} {split} images cannot be shared by {ranks} devices",
                    hint="Start it on one device.",
                )
        return dataclasses.replace(self, batch_size=size)

    @property
    def steps(self) -> int:
        """Return the batches of an epoch."""
        return self.order.train_steps

    @property
    def updates_per_epoch(self) -> int:
        return -(-self.steps // self.hyperparameters.accumulation_steps)

    @property
    def gradient_clip(self) -> float:
        """Return the bound on the gradients' norm; 0: none."""
        if self.hyperparameters.gradient_clip is not None:
            return self.hyperparameters.gradient_clip
        return _DETECTION_CLIP if self.job.task_type == TaskType.OBJECT_DETECTION else 0.0

    @property
    def begins_with_weights(self) -> bool:
        """Tell whether it begins with weights that someone trained."""
        return self.job.pretrained or self.job.initial_dir is not None

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be continued exactly."""
        names = hashlib.sha256()
        for split in ("train", "val"):
            for sample in self.content.splits[split]:
                line = f"{sample.image.relative_to(self.content.path)}\0{sample.classes}\n"
                names.update(line.encode("utf-8", "surrogateescape"))
        job = self.job
        return {
            "model_name": job.model_name,
            "task_type": str(job.task_type),
            "classes": list(self.content.classes),
            "images": names.hexdigest(),
            "epochs": job.epochs,
            "batch_size": job.batch_size,
            "learning_rate": job.learning_rate,
            "optimizer": self.optimizer,
            "image_size": self.image_size,
            "seed": job.seed,
            "hyperparameters": self.hyperparameters.model_dump(exclude={"workers"}),
        }


def make_plan(job: TrainingJob, content: Content, *, rank: Rank | None = None) -> Plan:
    """Decide what a job left open, but for a batch size of 0.

    Raises TrainingError(UNSUPPORTED) where it asks for what the library or this machine cannot do.
    """
    hyperparameters = _hyperparameters(job)
    spec = find_spec(job.model_name)
    if spec is None or job.task_type not in spec.tasks:
        raise _unsupported(
            f"transformers trains no {job.task_type} with the model '{job.model_name}'",
            hint="Pick a model of the catalog that lists this task.",
        )
    optimizer = (job.optimizer or DEFAULT_OPTIMIZER).lower()
    if optimizer not in OPTIMIZERS:
        raise _unsupported(
            f"unknown optimizer '{job.optimizer}'", hint=f"One of {', '.join(OPTIMIZERS)}."
        )
    if job.epochs < 1 or job.batch_size < 0:
        raise _unsupported("epochs must be at least 1, batch size at least 0 (found by trial)")
    _check_for_task(job, hyperparameters)
    rank = rank or Rank(job.compute_device)
    device = torch_device(rank.device)
    facts = JobFacts(
        task_type=job.task_type,
        model_name=job.model_name,
        epochs=job.epochs,
        batch_size=job.batch_size or None,
        image_size=job.image_size,
        on_cpu=device.type != "cuda",
        multi_label=content.multi_label,
        classes=tuple(content.classes),
        train_images=len(content.splits.get("train", ())),
        devices=rank.total,
    )
    refuse(misfits(hyperparameters, facts))
    plan = Plan(
        job=job,
        hyperparameters=hyperparameters,
        spec=spec,
        content=content,
        image_size=job.image_size or spec.image_size,
        device=device,
        rank=rank,
        optimizer=optimizer,
        precision=_precision(hyperparameters.precision, device, job.task_type),
        workers=loader_processes(hyperparameters.workers, device, ranks=rank.total),
        batch_size=0,
    )
    return plan.with_batch_size(job.batch_size) if job.batch_size else plan


def _hyperparameters(job: TrainingJob) -> HuggingFaceHyperparameters:
    try:
        return HuggingFaceHyperparameters.model_validate(dict(job.hyperparameters))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"]) or "hyperparameters"
        raise _unsupported(f"hyperparameter '{name}': {first['msg']}") from error


def _check_for_task(job: TrainingJob, hp: HuggingFaceHyperparameters) -> None:
    """Refuse what would be passed over in silence."""
    for name, field in type(hp).model_fields.items():
        tasks = tasks_of(field)
        if tasks and job.task_type not in tasks and getattr(hp, name) != field.default:
            raise _unsupported(
                f"hyperparameter '{name}' means nothing for {job.task_type}; it is for "
                f"{', '.join(tasks)}",
                hint="Leave it out.",
            )


def _precision(choice: str, device: torch.device, task_type: TaskType) -> str:
    if choice != "auto":
        return choice
    # The matching of boxes to objects is decided by small differences of costs.
    exact = task_type == TaskType.OBJECT_DETECTION
    return "fp32" if exact or not computes_in_bf16(device) else "bf16"


def _unsupported(message: str, *, hint: str = "") -> TrainingError:
    return TrainingError(ErrorKind.UNSUPPORTED, message, hint=hint)
