"""The training loop: epochs, steps, validation, and stopping at any of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.models import model_parameters
from timm.utils import dispatch_clip_grad

from adapters.contract import ErrorKind, Reporter, Result, StopReason, TrainingError
from adapters.timm_training.build import Parts, set_training
from adapters.timm_training.data import Loader, SampleKey
from adapters.timm_training.plan import Plan
from adapters.timm_training.randomness import Stream, derive_seed, seed_everything
from adapters.timm_training.state import BEST, LAST, Place, save_best, save_last

# A SIGKILL costs at most this much of a long epoch.
SECONDS_BETWEEN_CHECKPOINTS = 300.0
# On a GPU the loss is looked at once in so many steps: each look waits for the device.
STEPS_BETWEEN_LOSS_CHECKS = 20


# Of short epochs not each is kept: writing takes at most this share of the time.
LARGEST_SAVING_SHARE = 0.1


@dataclass(frozen=True)
class Evaluation:
    """What a validation found; accuracies are fractions."""

    loss: float
    top1: float
    top5: float


class Training:
    """One attempt, from its place to its end."""

    def __init__(
        self,
        plan: Plan,
        parts: Parts,
        loader: Loader,
        *,
        place: Place,
        reporter: Reporter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan = plan
        self._parts = parts
        self._loader = loader
        self._place = place
        self._reporter = reporter
        self._clock = clock
        self._saved_at = clock()
        self._saving_seconds = 0.0
        self._saved_place: tuple[int, int] | None = None
        self._last = plan.job.checkpoints_dir / LAST
        self._best = plan.job.checkpoints_dir / BEST

    def run(self) -> Result:
        """Train until the last epoch, the end of patience, or a stop."""
        while not self._place.finished:
            stop = self._train_epoch() or self._validate_epoch()
            if stop is None and not self._place.finished:
                stop = self._reporter.should_stop()
            if stop is not None:
                self._save_last()
                return self._result(stop)
        return self._result(None)

    def _train_epoch(self) -> StopReason | None:
        """Train the rest of the epoch; return why it broke off, if it did."""
        place, order = self._place, self._plan.order
        set_training(self._parts.model, frozen_backbone=self._plan.hyperparameters.freeze_backbone)
        loss_sum = torch.tensor(place.loss_sum, dtype=torch.float64, device=self._plan.device)
        began = self._clock() - place.seconds
        with self._batches(order.train(place.epoch, first_step=place.step)) as batches:
            for images, targets in batches:
                stop = self._stop_now()
                if stop is not None:
                    self._gather(loss_sum)
                    return stop
                loss_sum += self._step(images, targets).double() * len(images)
                place.step += 1
                place.images += len(images)
                place.seconds = self._clock() - began
                if self._looks_at_loss():
                    self._gather(loss_sum)
                self._report_progress()
                if self._clock() - self._saved_at > SECONDS_BETWEEN_CHECKPOINTS:
                    self._gather(loss_sum)
                    self._save_last()
        self._gather(loss_sum)
        return None

    def _step(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Train on one batch and return its loss, detached, a scalar on the device."""
        parts, place, hp = self._parts, self._place, self._plan.hyperparameters
        seed_everything(derive_seed(self._plan.job.seed, Stream.STEP, place.epoch, place.step))
        if parts.erasing is not None:
            images = parts.erasing(images)
        if parts.mixup is not None:
            images, targets = parts.mixup(images, targets)
        loss = parts.train_loss(self._logits(parts.model, images), targets)
        group_begin = place.step // hp.accumulation_steps * hp.accumulation_steps
        group = min(hp.accumulation_steps, self._plan.order.train_steps - group_begin)
        self._backward(loss / group, update=place.step + 1 == group_begin + group)
        detached: torch.Tensor = loss.detach()
        return detached

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

    def _validate_epoch(self) -> StopReason | None:
        """Validate, report and keep a trained epoch; return why it broke off, if it did."""
        found = self._validate()
        if isinstance(found, StopReason):
            return found
        place = self._place
        place.metrics = {
            "train_loss": place.loss_sum / place.images,
            "val_loss": found.loss,
            "top1": found.top1,
            "top5": found.top5,
            "learning_rate": place.learning_rate,
            "images_per_second": place.images / max(place.seconds, 1e-9),
        }
        place.val_loss = found.loss
        # Reported before it is kept: an epoch that dies in between is told twice, with the same
        # numbers, and never not at all.
        self._reporter.metrics(epoch=place.epoch, values=place.metrics)
        if found.top1 > place.best_top1:
            place.best_top1, place.best_epoch = found.top1, place.epoch
            save_best(self._best, plan=self._plan, parts=self._parts, place=place)
            self._reporter.artifact(self._best, kind="checkpoint")
        self._end_epoch()
        return None

    def _end_epoch(self) -> None:
        place, patience = self._place, self._plan.hyperparameters.early_stopping_patience
        out_of_patience = bool(patience) and place.epoch - place.best_epoch >= patience
        if out_of_patience and place.epoch < self._plan.job.epochs:
            self._reporter.log(
                f"ending after epoch {place.epoch}: top1 was best in epoch {place.best_epoch} "
                f"and early_stopping_patience is {patience}"
            )
        place.finished = out_of_patience or place.epoch >= self._plan.job.epochs
        place.begin_next_epoch()
        since_saved = self._clock() - self._saved_at
        if place.finished or self._saving_seconds <= LARGEST_SAVING_SHARE * since_saved:
            self._save_last()

    @torch.no_grad()
    def _validate(self) -> Evaluation | StopReason:
        """Return loss and accuracy over the validation images, or why it broke off."""
        model = self._parts.evaluated
        model.eval()
        device, order = self._plan.device, self._plan.order
        loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        correct = torch.zeros(2, dtype=torch.int64, device=device)  # within top 1 and top 5
        images_done = 0
        with self._batches(order.val()) as batches:
            for step, (images, targets) in enumerate(batches, start=1):
                stop = self._stop_now()
                if stop is not None:
                    return stop
                logits = self._logits(model, images)
                loss_sum += F.cross_entropy(logits, targets, reduction="sum").double()
                hits = logits.topk(min(5, logits.shape[1])).indices == targets[:, None]
                correct += torch.stack([hits[:, :1].sum(), hits.sum()])
                images_done += len(images)
                self._reporter.progress(
                    epoch=self._place.epoch, step=step, steps=order.val_steps, phase="val"
                )
        loss = self._finite(loss_sum.item() / images_done, "validation loss")
        top1, top5 = (count / images_done for count in correct.tolist())
        return Evaluation(loss=loss, top1=top1, top5=top5)

    def _logits(self, model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
        """Return a model's logits in float32, computed in the job's precision."""
        if self._plan.hyperparameters.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with self._autocast():
            output = model(images)
        if isinstance(output, tuple | list):  # some models add outputs of inner layers
            output = output[0]
        logits: torch.Tensor = output.float()
        return logits

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self._plan.precision)
        if dtype is None:
            return nullcontext()
        return torch.autocast(self._plan.device.type, dtype=dtype)

    def _batches(
        self, keys: Iterator[list[SampleKey]]
    ) -> closing[Generator[tuple[torch.Tensor, torch.Tensor], None, None]]:
        return closing(self._loader(keys))

    def _stop_now(self) -> StopReason | None:
        """Return why to stop between two batches; a stop after the epoch waits for its end."""
        stop = self._reporter.should_stop()
        return None if stop == StopReason.AFTER_EPOCH else stop

    def _looks_at_loss(self) -> bool:
        return self._plan.device.type == "cpu" or (
            self._place.step % STEPS_BETWEEN_LOSS_CHECKS == 0
        )

    def _gather(self, loss_sum: torch.Tensor) -> None:
        """Bring the epoch's loss to the CPU. Raises TrainingError where it is no number."""
        self._place.loss_sum = self._finite(loss_sum.item(), "training loss")

    def _finite(self, value: float, what: str) -> float:
        if math.isfinite(value):
            return value
        place, hp = self._place, self._plan.hyperparameters
        advice = [f"a learning rate below {self._plan.job.learning_rate:g}"]
        if hp.gradient_clip is None:
            advice.append("gradient_clip 1.0")
        if self._plan.precision != "fp32":
            advice.append("precision fp32")
        raise TrainingError(
            ErrorKind.NAN_LOSS,
            f"{what} became {value} in epoch {place.epoch} after step {place.step} "
            f"of {self._plan.order.train_steps}",
            hint=f"Try {' or '.join(advice)}. The last checkpoint is from before it.",
        )

    def _report_progress(self) -> None:
        place = self._place
        self._reporter.progress(
            epoch=place.epoch,
            step=place.step,
            steps=self._plan.order.train_steps,
            images_per_second=place.images / max(place.seconds, 1e-9),
        )

    def _save_last(self) -> None:
        place = (self._place.epoch, self._place.step)
        if place == self._saved_place:
            return
        began = self._clock()
        save_last(self._last, plan=self._plan, parts=self._parts, place=self._place)
        self._saved_at = self._clock()
        self._saving_seconds = self._saved_at - began
        self._saved_place = place
        self._reporter.artifact(self._last, kind="checkpoint")

    def _result(self, stopped: StopReason | None) -> Result:
        best = self._place.best
        return Result(
            epochs_completed=self._place.epochs_completed,
            stopped=stopped,
            accuracy=best.value if best else None,
            loss=self._place.val_loss,
            best=best,
            best_model_path=str(self._best) if best else None,
            last_checkpoint_path=str(self._last),
        )
