"""Batch size 0 with timm: a step with random images, on parts that are thrown away."""

from __future__ import annotations

import torch

from adapters.batch_size import SMALLEST, find_batch_size
from adapters.contract import Reporter
from adapters.place import Place
from adapters.timm_training.build import build
from adapters.timm_training.model import set_training
from adapters.timm_training.plan import Plan
from adapters.timm_training.step import Step


def choose_batch_size(plan: Plan, reporter: Reporter, *, ranks: int) -> int:
    """Return the largest batch that fits, of all ranks together, and tell why it is that."""
    if plan.device.type == "cuda":
        torch.cuda.set_device(plan.device)
    train_images = len(plan.data.splits["train"])
    trial = plan.with_batch_size(min(SMALLEST, train_images))
    parts = build(trial, reporter, load_weights=False)
    set_training(parts.model)
    step = Step(trial, parts, Place())

    def train(size: int) -> None:
        images = torch.randn(size, *parts.data_config["input_size"], device=plan.device)
        step.train(images, _targets(plan, size)).item()

    chosen = find_batch_size(
        train,
        device=plan.device,
        train_images=train_images,
        accumulation_steps=plan.hyperparameters.accumulation_steps,
        ranks=ranks,
    )
    each = f", {chosen.size} on each of {ranks} devices" if ranks > 1 else ""
    reporter.decided("batch_size", chosen.size * ranks, why=f"{chosen.why}{each}")
    return chosen.size * ranks


def _targets(plan: Plan, size: int) -> torch.Tensor:
    if plan.multi_label:
        return torch.zeros(size, len(plan.data.classes), device=plan.device)
    return torch.zeros(size, dtype=torch.int64, device=plan.device)
