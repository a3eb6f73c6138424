"""The largest batch that fits, tried with real images of the job and a model thrown away after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from adapters.batch_size import SMALLEST, Chosen, find_batch_size
from adapters.ultralytics_training.speed import autocast
from adapters.ultralytics_training.trainer import CheckpointingTrainer, Plan, make_trainer

# isort: split
from ultralytics.utils.torch_utils import unset_deterministic


def fitting_batch_size(
    plan: Callable[[int], Plan], *, device: torch.device, train_images: int
) -> Chosen:
    """Return the largest batch size that a plan's training fits into memory with, and why."""
    trial = plan(min(SMALLEST, train_images))
    trainer = make_trainer(replace(trial, callbacks={}))
    try:
        trainer._setup_train()
        trainer._model_train()
        return find_batch_size(
            lambda size: _step(trainer, size), device=device, train_images=train_images
        )
    finally:
        trainer.close_loaders()
        unset_deterministic()


def _step(trainer: CheckpointingTrainer, size: int) -> None:
    """Train one batch of the job's own images, as the library's loop does."""
    dataset: Any = trainer.train_loader.dataset
    images = [dataset[i % len(dataset)] for i in range(size)]
    batch = trainer.train_loader.collate_fn(images)
    precision = torch.bfloat16 if trainer.args.amp == "bf16" else trainer.amp
    with autocast(precision, device=trainer.device.type):
        loss, _ = trainer.model(trainer.preprocess_batch(batch))
    trainer.scaler.scale(loss.sum()).backward()
    trainer.optimizer_step()
