"""What of a plan the Trainer is told by its own arguments."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import adapters.huggingface_training.offline  # noqa: F401  (before the library)

# isort: split
import torch
from transformers import TrainingArguments

from adapters.huggingface_training.plan import Plan
from adapters.randomness import Stream, derive_seed

_OPTIMIZERS = {"adamw": "adamw_torch"}
_MOMENTUM = {"sgd"}
_SCHEDULERS = {"constant": "constant_with_warmup", "cosine": "cosine_with_min_lr"}


class OneDevice(TrainingArguments):
    """Arguments of a training on the device of the job, and on no other that is there."""

    @cached_property
    def _setup_devices(self) -> torch.device:
        found: torch.device = TrainingArguments._setup_devices.func(self)  # type: ignore[attr-defined]
        if found.type != "cuda":
            return found
        # Left to itself the library takes all GPUs it sees, in one process.
        self._n_gpu = 1
        wanted = torch.device(self.modelyard_device)
        torch.cuda.set_device(wanted)
        self.distributed_state.device = wanted
        return wanted

    modelyard_device = "cpu"


def training_arguments(plan: Plan, *, validate_first: bool) -> TrainingArguments:
    """Return the Trainer's arguments of a plan."""
    hp, device = plan.hyperparameters, plan.device
    kind = type("JobArguments", (OneDevice,), {"modelyard_device": str(device)})
    arguments: TrainingArguments = kind(
        output_dir=str(plan.job.checkpoints_dir),
        num_train_epochs=plan.job.epochs,
        per_device_train_batch_size=plan.batch_size,
        per_device_eval_batch_size=plan.batch_size,
        gradient_accumulation_steps=hp.accumulation_steps,
        learning_rate=plan.job.learning_rate,
        weight_decay=hp.weight_decay,
        max_grad_norm=plan.gradient_clip,
        optim=_OPTIMIZERS.get(plan.optimizer, plan.optimizer),
        optim_args=f"momentum={hp.momentum}" if plan.optimizer in _MOMENTUM else None,
        lr_scheduler_type=_SCHEDULERS.get(hp.scheduler, hp.scheduler),
        lr_scheduler_kwargs=_scheduler_settings(plan),
        warmup_steps=warmup_updates(plan),
        # Any 32 bits: what is drawn at random is seeded by its place, not by this.
        seed=derive_seed(plan.job.seed, Stream.MODEL) & 0xFFFF_FFFF,
        use_cpu=device.type == "cpu",
        bf16=plan.precision == "bf16",
        fp16=plan.precision == "fp16",
        eval_on_start=validate_first,
        eval_strategy="no",  # asked for by our callback, of whole epochs only
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        average_tokens_across_devices=False,
        disable_tqdm=True,
        report_to="none",
        push_to_hub=False,
    )
    return arguments


def warmup_updates(plan: Plan) -> int:
    """Return the updates of warm-up: at most half of all."""
    epochs = min(plan.hyperparameters.warmup_epochs, plan.job.epochs / 2)
    return int(epochs * plan.updates_per_epoch)


def _scheduler_settings(plan: Plan) -> dict[str, Any]:
    hp, rate = plan.hyperparameters, plan.job.learning_rate
    lowest = min(hp.min_learning_rate, rate)
    if hp.scheduler == "cosine":
        return {"min_lr_rate": lowest / rate}
    if hp.scheduler == "polynomial":
        # The library asks for an end that is below the beginning.
        return {"lr_end": min(lowest, 0.999 * rate), "power": 2.0}
    if hp.scheduler == "warmup_stable_decay":
        left = plan.updates_per_epoch * plan.job.epochs - warmup_updates(plan)
        return {"num_decay_steps": max(1, left // 4), "min_lr_ratio": lowest / rate}
    return {}
