"""What of a plan the Trainer is told by its own arguments."""

from __future__ import annotations

import os
from functools import cached_property, partial
from typing import Any

import adapters.huggingface_training.offline  # noqa: F401  (before the library)

# isort: split
import torch
from accelerate.utils import (  # type: ignore[import-untyped]
    check_cuda_p2p_ib_support,
    reduce,
)
from transformers import TrainingArguments
from transformers.loss import loss_for_object_detection

from adapters.huggingface_training.plan import Plan
from adapters.randomness import Stream, derive_seed
from adapters.ranks import Rank

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


def tell_library(rank: Rank) -> None:
    """Set in a rank's own process what accelerate reads, which finds the group by itself.

    It would take the n-th device that is there; the job's may be others.
    """
    os.environ["ACCELERATE_TORCH_DEVICE"] = rank.device
    os.environ["ACCELERATE_BYPASS_DEVICE_MAP"] = "true"
    # Without it the library sets the number of threads, by all cores of the machine.
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    if rank.device != "cpu" and not check_cuda_p2p_ib_support():
        # Of cards without it accelerate refuses a group that was not told; NCCL reads it later.
        os.environ.update(NCCL_P2P_DISABLE="1", NCCL_IB_DISABLE="1")
    # DETR's loss divides the mean of the ranks' numbers of boxes by the ranks once more, where
    # their sum is meant: boxes would count twice as much on two devices.
    loss_for_object_detection.reduce = partial(  # type: ignore[attr-defined]
        reduce, reduction="sum"
    )


def training_arguments(plan: Plan, *, validate_first: bool) -> TrainingArguments:
    """Return the Trainer's arguments of a plan."""
    hp, device = plan.hyperparameters, plan.device
    kind = type("JobArguments", (OneDevice,), {"modelyard_device": str(device)})
    arguments: TrainingArguments = kind(
        output_dir=str(plan.job.checkpoints_dir),
        num_train_epochs=plan.job.epochs,
        per_device_train_batch_size=plan.batch_size // plan.rank.total,
        per_device_eval_batch_size=plan.batch_size // plan.rank.total,
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
