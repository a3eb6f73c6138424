"""Where a training is, kept in ``last.pth`` so that it goes on as if it had never stopped."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from adapters.checkpoints import load_own_checkpoint, save_checkpoint
from adapters.contract import Reporter
from adapters.place import Place
from adapters.timm_training.best import BEST, read_about, versions
from adapters.timm_training.build import Parts
from adapters.timm_training.plan import Plan

FORMAT = "modelyard-timm-2"
LAST = "last.pth"


def save_last(path: Path, *, plan: Plan, parts: Parts, place: Place) -> None:
    """Write all that an exact continuation needs."""
    state = {
        "identity": plan.identity,
        "versions": versions(),
        "precision": plan.precision,
        "device": plan.device.type,
        "threads": torch.get_num_threads(),
        "batch_size": plan.batch_size,
        "ranks": plan.rank.total,
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
    return load_own_checkpoint(
        path, format=FORMAT, identity=plan.identity, versions=versions(), log=reporter.log
    )


def restore(state: dict[str, Any], *, plan: Plan, parts: Parts) -> Place:
    """Put a checkpoint back into the parts and return the place it was made at."""
    place = Place(**state["place"])
    parts.model.load_state_dict(state["model"])
    parts.optimizer.load_state_dict(state["optimizer"])
    if parts.scaler is not None and state["scaler"] is not None:
        parts.scaler.load_state_dict(state["scaler"])
    if parts.ema is not None:
        parts.ema.module.load_state_dict(state["ema"])
    if state["batch_size"] != plan.batch_size:
        return _in_other_batches(place, state["batch_size"], plan=plan, parts=parts)
    parts.scheduler.load_state_dict(state["scheduler"])
    parameters = dict(parts.model.named_parameters())
    for name, gradient in state["gradients"].items():
        # Copied into the parameter's own memory order, which a fresh gradient would have.
        parameters[name].grad = torch.empty_like(parameters[name]).copy_(gradient)
    return place


def _in_other_batches(place: Place, size: int, *, plan: Plan, parts: Parts) -> Place:
    """Return the place counted in the plan's batches: its memory held no larger ones.

    The same images come next. Half-gathered gradients are left: their group has another length.
    """
    place.step = place.step * size // plan.batch_size
    done = place.step // plan.hyperparameters.accumulation_steps
    place.updates = place.epochs_completed * plan.updates_per_epoch + done
    parts.scheduler.step_update(place.updates)
    return place


def adopt_best(place: Place, *, plan: Plan) -> None:
    """Take over a best model that is of an epoch after the checkpoint's.

    It was reported before what kept the place was killed. The epoch comes again, and ends with the
    same bits; until then the file and what is said of it must not differ.
    """
    path = plan.job.checkpoints_dir / BEST
    if not path.exists():
        return
    best = read_about(path).best
    if best.metric == plan.metric and best.epoch > place.best_epoch:
        place.best_epoch, place.best_value = best.epoch, best.value
