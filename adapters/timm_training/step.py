"""One batch of training: forward, backward, and an update where its group of batches is whole."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from timm.models import model_parameters
from timm.utils import dispatch_clip_grad

from adapters.place import Place
from adapters.randomness import Stream, derive_seed, seed_everything
from adapters.timm_training.build import Parts
from adapters.timm_training.model import first_output
from adapters.timm_training.plan import Plan


class Step:
    """Trains on batches, one after another; ``place`` says which and is told of each update."""

    def __init__(self, plan: Plan, parts: Parts, place: Place) -> None:
        self._plan = plan
        self._parts = parts
        self._place = place

    def train(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Train on a batch and return the sum of its losses over all ranks, on the device."""
        plan, parts, place = self._plan, self._parts, self._place
        share = len(images)
        self._seed()
        if parts.erasing is not None:
            images = parts.erasing(images)
        if parts.mixup is not None:
            images, targets = parts.mixup(images, targets)
        loss = parts.train_loss(self.logits(parts.trained, images), targets)
        weighted = loss
        if plan.rank.total > 1:
            # Gradients are averaged over the ranks, whose shares may differ by an image.
            weighted = loss * (share * plan.rank.total / plan.order.train_batch_size)
        accumulation = plan.hyperparameters.accumulation_steps
        group_begin = place.step // accumulation * accumulation
        group = min(accumulation, plan.order.train_steps - group_begin)
        self._backward(weighted / group, update=place.step + 1 == group_begin + group)
        return plan.rank.sum(loss.detach().double() * share)

    def logits(self, model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
        """Return a model's logits in float32, computed in the job's precision."""
        if self._plan.hyperparameters.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with self._autocast():
            output = first_output(model(images))
        return output.float()

    def _seed(self) -> None:
        plan, place = self._plan, self._place
        where = [place.epoch, place.step, *([plan.rank.number] if plan.rank.number else [])]
        seed_everything(derive_seed(plan.job.seed, Stream.STEP, *where))

    def _backward(self, loss: torch.Tensor, *, update: bool) -> None:
        parts, hp = self._parts, self._plan.hyperparameters
        clipped = model_parameters(parts.model, exclude_head=hp.gradient_clip_mode == "agc")
        if parts.scaler is not None:
            parts.scaler(
                loss,
                parts.optimizer,
                clip_grad=hp.gradient_clip,
                clip_mode=hp.gradient_clip_mode,
                parameters=clipped,
                need_update=update,
            )
        else:
            # With several ranks the gradients are shared at every batch, not once an update:
            # what is half gathered is then the same on all, and a checkpoint can hold it.
            loss.backward()  # type: ignore[no-untyped-call]
            if update:
                if hp.gradient_clip is not None:
                    dispatch_clip_grad(clipped, hp.gradient_clip, mode=hp.gradient_clip_mode)
                parts.optimizer.step()
        if update:
            self._after_update()

    def _after_update(self) -> None:
        parts, place = self._parts, self._place
        parts.optimizer.zero_grad(set_to_none=True)
        place.learning_rate = max(group["lr"] for group in parts.optimizer.param_groups)
        place.updates += 1
        if parts.ema is not None:
            parts.ema.update(parts.model, step=place.updates)
        parts.scheduler.step_update(place.updates)

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self._plan.precision)
        if dtype is None:
            return nullcontext()
        return torch.autocast(self._plan.device.type, dtype=dtype)
