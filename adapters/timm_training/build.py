"""The parts of a training, made by timm's own factories from a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.data import Mixup, resolve_data_config
from timm.data.random_erasing import RandomErasing
from timm.loss import create_classification_loss
from timm.models import is_model, resolve_model_input_args
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3, NativeScaler

from adapters.contract import ErrorKind, Reporter, TrainingError, TrainingJob
from adapters.failures import is_out_of_memory
from adapters.timm_training.plan import Plan
from adapters.timm_training.pretrained import check_loaded, pretrained_file
from adapters.timm_training.randomness import Stream, derive_seed, seed_everything


@dataclass
class Parts:
    """What is trained and what trains it."""

    model: torch.nn.Module
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


def build(plan: Plan, reporter: Reporter, *, load_pretrained: bool) -> Parts:
    """Make all parts of a training. Raises TrainingError where timm cannot."""
    hp = plan.hyperparameters
    model = _model(plan, reporter, load_pretrained=load_pretrained)
    data_config = resolve_data_config(_requested_size(plan.job), model=model)
    _check_input(plan, model, data_config)
    if hp.freeze_backbone:
        _freeze_backbone(model)
    memory_format = torch.channels_last if hp.channels_last else torch.contiguous_format
    model.to(plan.device).to(memory_format=memory_format)  # type: ignore[call-overload]
    optimizer = _optimizer(plan, model)
    return Parts(
        model=model,
        data_config=data_config,
        optimizer=optimizer,
        scheduler=_scheduler(plan, optimizer),
        train_loss=create_classification_loss(
            {"cross_entropy": "ce"}.get(hp.loss, hp.loss),
            smoothing=hp.label_smoothing,
            soft_targets=hp.mixing,
        ).to(plan.device),
        scaler=NativeScaler(device=plan.device.type) if plan.precision == "fp16" else None,
        ema=ModelEmaV3(model, decay=hp.ema_decay, use_warmup=hp.ema_warmup) if hp.ema else None,
        mixup=_mixup(plan),
        erasing=_erasing(plan),
    )


def set_training(model: torch.nn.Module, *, frozen_backbone: bool) -> None:
    """Put a model into training mode; a frozen backbone keeps its batch statistics too."""
    model.train()
    if frozen_backbone:
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()


def _model(plan: Plan, reporter: Reporter, *, load_pretrained: bool) -> torch.nn.Module:
    job = plan.job
    # Only names of the registry: timm would also take 'local-dir:' and 'hf-hub:' addresses.
    if not is_model(job.model_name):
        raise _unsupported(
            f"timm {timm.__version__} on this worker has no model '{job.model_name}'",
            hint="Pick a model of the catalog, or update timm on the worker.",
        )
    model = _create(plan)
    if job.pretrained and load_pretrained:
        file = pretrained_file(job, reporter)
        overlay = {"file": str(file), "custom_load": False}
        try:
            loaded = _create(plan, pretrained=True, pretrained_cfg_overlay=overlay)
        except (RuntimeError, ValueError, KeyError, OSError) as error:
            raise TrainingError(
                ErrorKind.CHECKPOINT_INVALID,
                f"weights file '{file}' cannot be loaded into {job.model_name}: "
                f"{str(error).strip().splitlines()[0]}",
                hint="It is damaged or belongs to another model; replace it.",
            ) from error
        check_loaded(loaded, model, file=file, reporter=reporter)
        return loaded
    return model


def _create(plan: Plan, **pretrained: Any) -> torch.nn.Module:
    job, hp = plan.job, plan.hyperparameters
    overlay = pretrained.pop("pretrained_cfg_overlay", None)
    try:
        arguments = resolve_model_input_args(
            job.model_name,
            _requested_size(job),
            num_classes=len(plan.data.classes),
            drop_rate=hp.drop_rate,
            drop_path_rate=hp.drop_path,
            pretrained_cfg_overlay=overlay,
        )
        # Seeded here, so that each call makes the same random weights.
        seed_everything(derive_seed(job.seed, Stream.MODEL))
        model: torch.nn.Module = timm.create_model(**arguments, **pretrained)
    except (TypeError, AssertionError, ValueError) as error:
        raise _unsupported(
            f"{job.model_name} cannot be made with image size {job.image_size}, "
            f"drop_rate {hp.drop_rate} and drop_path {hp.drop_path}: {error}",
            hint="Leave these to the model's own, or take a multiple of its own image size.",
        ) from error
    return model


@torch.no_grad()
def _check_input(plan: Plan, model: torch.nn.Module, data_config: dict[str, Any]) -> None:
    """Put one empty image through a model, so that a wrong size is told before data is read."""
    name, size = plan.job.model_name, tuple(data_config["input_size"])
    try:
        output = model.eval()(torch.zeros(1, *size))
    except (AssertionError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise _unsupported(
            f"{name} does not take images of {size[1]} x {size[2]} pixels: {error}",
            hint=f"Leave the image size to the model's own, {_own_size(model)}.",
        ) from error
    if getattr(output, "shape", None) != (1, len(plan.data.classes)):
        raise _unsupported(
            f"{name} gives features, not classes", hint="Pick a model of the catalog."
        )


def _own_size(model: torch.nn.Module) -> str:
    height, width = model.pretrained_cfg["input_size"][1:]  # type: ignore[index]
    return f"{height} x {width}"


def _requested_size(job: TrainingJob) -> dict[str, tuple[int, int, int]]:
    if job.image_size is None:
        return {}
    return {"input_size": (3, job.image_size, job.image_size)}


def _freeze_backbone(model: torch.nn.Module) -> None:
    head = model.get_classifier()  # type: ignore[operator]
    modules = head if isinstance(head, tuple | list | torch.nn.ModuleList) else [head]
    model.requires_grad_(False)
    for module in modules:
        module.requires_grad_(True)


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
    try:
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
    except ValueError as error:
        raise _unsupported(
            f"scheduler '{hp.scheduler}' cannot be laid over {epochs} epochs: {error}",
            hint="Train for more epochs, or take 'cosine'.",
        ) from error
    return scheduler


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
    )


def _erasing(plan: Plan) -> RandomErasing | None:
    """Return random erasing of whole batches: timm does it after normalisation, on the device."""
    hp = plan.hyperparameters
    if not hp.random_erasing or not hp.augment:
        return None
    return RandomErasing(probability=hp.random_erasing, mode="pixel", device=plan.device)


def _unsupported(message: str, *, hint: str) -> TrainingError:
    return TrainingError(ErrorKind.UNSUPPORTED, message, hint=hint)


def model_arguments(job: TrainingJob, parts: Parts) -> dict[str, Any]:
    """Return what timm.create_model needs besides the name to make the trained model again."""
    arguments: dict[str, Any] = {}
    traits = resolve_model_input_args(
        job.model_name, {"input_size": tuple(parts.data_config["input_size"])}
    )
    if "img_size" in traits:
        arguments["img_size"] = list(traits["img_size"])
    return arguments
