"""The parts of a training, made by timm's own factories from a plan."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from timm.loss import create_classification_loss
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3, NativeScaler
from torch.nn.parallel import DistributedDataParallel

from adapters.contract import Reporter
from adapters.timm_training.model import make_model
from adapters.timm_training.plan import Plan

_LARGEST_BALANCE = 100.0  # of a class that hardly occurs; more would only make training unsteady


@dataclass
class Parts:
    """What is trained and what trains it."""

    model: torch.nn.Module
    trained: torch.nn.Module  # the same, or what shares its gradients with the other ranks
    data_config: dict[str, Any]  # input_size, mean, std, interpolation, crop_pct, crop_mode
    optimizer: torch.optim.Optimizer
    scheduler: Any
    train_loss: torch.nn.Module
    scaler: NativeScaler | None  # float16 only
    ema: ModelEmaV3 | None
    mixup: Mixup | None
    erasing: RandomErasing | None

    @property
    def evaluated(self) -> torch.nn.Module:
        """Return the model that is validated and kept as the best: the averaged one, if any."""
        return self.model if self.ema is None else self.ema.module


def build(plan: Plan, reporter: Reporter, *, load_weights: bool) -> Parts:
    """Make all parts of a training. Raises TrainingError where timm cannot."""
    hp = plan.hyperparameters
    model, data_config = make_model(plan, reporter, load_weights=load_weights)
    memory_format = torch.channels_last if hp.channels_last else torch.contiguous_format
    model.to(plan.device).to(memory_format=memory_format)  # type: ignore[call-overload]
    optimizer = _optimizer(plan, model)
    return Parts(
        model=model,
        trained=_shared(plan, model),
        data_config=data_config,
        optimizer=optimizer,
        scheduler=_scheduler(plan, optimizer),
        train_loss=_loss(plan).to(plan.device),
        scaler=NativeScaler(device=plan.device.type) if plan.precision == "fp16" else None,
        ema=ModelEmaV3(model, decay=hp.ema_decay, use_warmup=hp.ema_warmup) if hp.ema else None,
        mixup=_mixup(plan),
        erasing=_erasing(plan),
    )


def _shared(plan: Plan, model: torch.nn.Module) -> torch.nn.Module:
    if plan.rank.total == 1:
        return model
    ids = [plan.device.index] if plan.device.type == "cuda" else None
    shared: torch.nn.Module = DistributedDataParallel(model, device_ids=ids)
    return shared


def _optimizer(plan: Plan, model: torch.nn.Module) -> torch.optim.Optimizer:
    hp = plan.hyperparameters
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model,
        opt=plan.optimizer,
        lr=plan.job.learning_rate,
        weight_decay=hp.weight_decay,
        momentum=hp.momentum,
        layer_decay=hp.layer_decay,
    )
    return optimizer


def _scheduler(plan: Plan, optimizer: torch.optim.Optimizer) -> Any:
    """Return timm's scheduler, stepped at every update.

    Plateau is not offered: its decisions are no function of the update, and timm, which is about
    to remove it, does not keep them in checkpoints.
    """
    hp, epochs = plan.hyperparameters, plan.job.epochs
    decay_epochs = None if hp.scheduler == "wsd" else hp.decay_epochs or max(epochs / 3, 0.01)
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=hp.scheduler,
        num_epochs=epochs,
        warmup_epochs=min(hp.warmup_epochs, epochs / 2),
        warmup_lr=min(1e-6, plan.job.learning_rate),
        min_lr=min(hp.min_learning_rate, plan.job.learning_rate),
        decay_epochs=decay_epochs,
        decay_rate=hp.decay_rate,
        step_on_epochs=False,
        updates_per_epoch=plan.updates_per_epoch,
    )
    return scheduler


def _loss(plan: Plan) -> torch.nn.Module:
    hp = plan.hyperparameters
    weights = _class_weights(plan)
    if plan.loss == "ce" and weights is not None:  # timm's has none
        smoothing = 0.0 if hp.mixing else hp.label_smoothing
        return _WeightedCrossEntropy(weight=weights, label_smoothing=smoothing, reduction="none")
    loss: torch.nn.Module = create_classification_loss(
        plan.loss,
        multi_label=plan.multi_label,
        smoothing=hp.label_smoothing,
        soft_targets=hp.mixing,
        pos_weight=weights,
    )
    return loss


class _WeightedCrossEntropy(torch.nn.CrossEntropyLoss):
    """Averages over the images; torch's own mean cancels the weights of a batch of one class."""

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = super().forward(logits, targets).mean()
        return loss


def _class_weights(plan: Plan) -> torch.Tensor | None:
    """Return the factor on each class's loss, None where all count alike.

    Of a softmax the factors are on images; of a sigmoid, on a class where an image has it.
    """
    chosen = plan.hyperparameters.class_weights
    if chosen == "none":
        return None
    if not isinstance(chosen, str):
        return torch.tensor(chosen, dtype=torch.float32)
    train, classes = plan.data.splits["train"], len(plan.data.classes)
    found = Counter(label for sample in train for label in sample.classes)
    counts = torch.tensor([max(1, found[label]) for label in range(classes)])
    if plan.loss == "ce":
        balanced = len(train) / (classes * counts)  # one on the average of all images
    else:
        balanced = (len(train) - counts) / counts
    return balanced.clamp(1 / _LARGEST_BALANCE, _LARGEST_BALANCE)


def _mixup(plan: Plan) -> Mixup | None:
    hp = plan.hyperparameters
    if not hp.mixing:
        return None
    return Mixup(
        mixup_alpha=hp.mixup,
        cutmix_alpha=hp.cutmix,
        prob=hp.mixup_prob,
        switch_prob=hp.mixup_switch_prob,
        label_smoothing=hp.label_smoothing,
        num_classes=len(plan.data.classes),
        multi_label=plan.multi_label,
    )


def _erasing(plan: Plan) -> RandomErasing | None:
    """Return random erasing of whole batches: timm does it after normalisation, on the device."""
    hp = plan.hyperparameters
    if not hp.random_erasing or not hp.augment:
        return None
    return RandomErasing(probability=hp.random_erasing, mode="pixel", device=plan.device)
