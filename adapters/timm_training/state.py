"""Where a training is, kept in ``last.pth`` so that it goes on as if it had never stopped."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch

from adapters.checkpoints import load_checkpoint, save_checkpoint, write_atomically
from adapters.contract import Best, ErrorKind, Reporter, TrainingError
from adapters.timm_training.build import Parts, model_arguments
from adapters.timm_training.plan import Plan

FORMAT = "modelyard-timm-1"
LAST = "last.pth"
BEST = "best.safetensors"


@dataclass
class Place:
    """Where a training is, and what it has gathered of the epoch that it is in."""

    epoch: int = 1  # the epoch that is going on or comes next, 1-based
    step: int = 0  # batches of it that are done; all of them: its validation comes next
    updates: int = 0  # optimizer updates since the beginning
    loss_sum: float = 0.0  # over the epoch's images so far
    images: int = 0
    seconds: float = 0.0  # spent training in this epoch, in all attempts
    learning_rate: float = 0.0  # of the last update
    val_loss: float | None = None  # of the last whole epoch
    best_epoch: int = 0  # 0: none yet
    best_top1: float = -1.0
    metrics: dict[str, float] = field(default_factory=dict)  # of the last whole epoch
    finished: bool = False  # all epochs are done, or patience ended

    @property
    def epochs_completed(self) -> int:
        return self.epoch - 1

    @property
    def best(self) -> Best | None:
        if not self.best_epoch:
            return None
        return Best(epoch=self.best_epoch, metric="top1", value=self.best_top1)

    def begin_next_epoch(self) -> None:
        self.epoch += 1
        self.step = self.images = 0
        self.loss_sum = self.seconds = 0.0


def save_last(path: Path, *, plan: Plan, parts: Parts, place: Place) -> None:
    """Write all that an exact continuation needs."""
    state = {
        "identity": plan.identity,
        "versions": _versions(),
        "precision": plan.precision,
        "device": plan.device.type,
        "threads": torch.get_num_threads(),
        "place": dataclasses.asdict(place),
        "model": parts.model.state_dict(),
        "optimizer": parts.optimizer.state_dict(),
        "scheduler": parts.scheduler.state_dict(),
        "scaler": parts.scaler.state_dict() if parts.scaler else None,
        "ema": parts.ema.module.state_dict() if parts.ema else None,
        # Half-gathered gradients, where it stops between the batches of one update.
        "gradients": {
            name: p.grad for name, p in parts.model.named_parameters() if p.grad is not None
        },
    }
    save_checkpoint(path, state, format=FORMAT)


def read_last(path: Path, *, plan: Plan, reporter: Reporter) -> dict[str, Any]:
    """Read a checkpoint of this very job.

    Raises TrainingError(CHECKPOINT_INVALID) where it is of another job or of other data.
    """
    state = load_checkpoint(path, format=FORMAT)
    then, now = state["identity"], plan.identity
    differing = [name for name in now if then.get(name) != now[name]]
    if differing:
        raise TrainingError(
            ErrorKind.CHECKPOINT_INVALID,
            f"checkpoint '{path}' was made with other {', '.join(differing)}",
            hint="Give the job the data set and settings it began with, or clone it and "
            "start the clone: it trains from the beginning.",
        )
    if state["versions"] != _versions():
        reporter.log(f"continuing a checkpoint of {state['versions']} with {_versions()}")
    return state


def restore(state: dict[str, Any], *, parts: Parts) -> Place:
    """Put a checkpoint back into the parts and return the place it was made at."""
    parts.model.load_state_dict(state["model"])
    parts.optimizer.load_state_dict(state["optimizer"])
    parts.scheduler.load_state_dict(state["scheduler"])
    if parts.scaler is not None and state["scaler"] is not None:
        parts.scaler.load_state_dict(state["scaler"])
    if parts.ema is not None:
        parts.ema.module.load_state_dict(state["ema"])
    parameters = dict(parts.model.named_parameters())
    for name, gradient in state["gradients"].items():
        # Copied into the parameter's own memory order, which a fresh gradient would have.
        parameters[name].grad = torch.empty_like(parameters[name]).copy_(gradient)
    return Place(**state["place"])


def save_best(path: Path, *, plan: Plan, parts: Parts, place: Place) -> None:
    """Write the validated model so that plain timm loads it.

    ``timm.create_model(name, num_classes=n, checkpoint_path=path)``; the file's metadata says
    which name, classes, input size, mean and standard deviation.
    """
    tensors = {
        # A copy of each: the format refuses tensors that share memory, as tied weights do.
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in parts.evaluated.state_dict().items()
    }
    description = {
        "framework": "timm",
        "model_name": plan.job.model_name,
        "model_arguments": model_arguments(plan.job, parts),
        "classes": list(plan.data.classes),
        "data_config": parts.data_config,
        "epoch": place.best_epoch,
        "top1": place.best_top1,
        "versions": _versions(),
    }
    metadata = {"format": "pt", "modelyard": json.dumps(description)}
    content = safetensors.torch.save(tensors, metadata=metadata)
    write_atomically(path, lambda stream: stream.write(content))


def _versions() -> dict[str, str]:
    return {"timm": str(timm.__version__), "torch": str(torch.__version__)}
