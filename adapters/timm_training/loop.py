"""The training loop: epochs, steps, validation, and stopping at any of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

import torch

from adapters.contract import ErrorKind, Reporter, Result, StopReason, TrainingError
from adapters.place import Place
from adapters.timm_training.best import BEST, About, save_best, versions
from adapters.timm_training.build import Parts
from adapters.timm_training.data import Loader, SampleKey
from adapters.timm_training.metrics import OneClass, SeveralClasses
from adapters.timm_training.model import model_arguments, set_training
from adapters.timm_training.plan import Plan
from adapters.timm_training.state import LAST, save_last
from adapters.timm_training.step import Step

# A SIGKILL costs at most this much of a long epoch.
SECONDS_BETWEEN_CHECKPOINTS = 300.0
# On a GPU the loss is looked at once in so many steps: each look waits for the device.
STEPS_BETWEEN_LOSS_CHECKS = 20

# Of short epochs not each is kept: writing takes at most this share of the time.
LARGEST_SAVING_SHARE = 0.1


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
        self._step = Step(plan, parts, place)
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
                stop = self._plan.rank.agree(self._reporter.should_stop())
            if stop is not None:
                self._save_last()
                return self._result(stop)
        return self._result(None)

    def _train_epoch(self) -> StopReason | None:
        """Train the rest of the epoch; return why it broke off, if it did."""
        place, order, ranks = self._place, self._plan.order, self._plan.rank.total
        set_training(self._parts.model)
        loss_sum = torch.tensor(place.loss_sum, dtype=torch.float64, device=self._plan.device)
        began = self._clock() - place.seconds
        with self._batches(order.train(place.epoch, first_step=place.step)) as batches:
            for images, targets in batches:
                stop = self._stop_now()
                if stop is not None:
                    self._gather(loss_sum)
                    return stop
                loss_sum += self._step.train(images, targets)
                place.step += 1
                place.images += len(images) if ranks == 1 else order.train_batch_size
                place.seconds = self._clock() - began
                if self._looks_at_loss():
                    self._gather(loss_sum)
                self._report_progress()
                if self._clock() - self._saved_at > SECONDS_BETWEEN_CHECKPOINTS:
                    self._gather(loss_sum)
                    self._save_last()
        self._gather(loss_sum)
        return None

    def _validate_epoch(self) -> StopReason | None:
        """Validate, report and keep a trained epoch; return why it broke off, if it did."""
        found = self._validate()
        if isinstance(found, StopReason):
            return found
        place, metric = self._place, self._plan.metric
        place.metrics = {
            "train_loss": place.loss_sum / place.images,
            **found,
            "learning_rate": place.learning_rate,
            "images_per_second": place.images / max(place.seconds, 1e-9),
        }
        place.val_loss = found["val_loss"]
        # Reported before it is kept: an epoch that dies in between is told twice, with the same
        # numbers, and never not at all.
        self._reporter.metrics(epoch=place.epoch, values=place.metrics)
        if found[metric] > place.best_value:
            place.best_value, place.best_epoch = found[metric], place.epoch
            self._save_best()
        self._end_epoch()
        return None

    def _end_epoch(self) -> None:
        place, patience = self._place, self._plan.hyperparameters.early_stopping_patience
        out_of_patience = bool(patience) and place.epoch - place.best_epoch >= patience
        if out_of_patience and place.epoch < self._plan.job.epochs:
            self._reporter.log(
                f"ending after epoch {place.epoch}: {self._plan.metric} was best in epoch "
                f"{place.best_epoch} and early_stopping_patience is {patience}"
            )
        place.finished = out_of_patience or place.epoch >= self._plan.job.epochs
        place.begin_next_epoch()
        since_saved = self._clock() - self._saved_at
        if place.finished or self._saving_seconds <= LARGEST_SAVING_SHARE * since_saved:
            self._save_last()

    @torch.no_grad()
    def _validate(self) -> dict[str, float] | StopReason:
        """Return what the validation images tell, or why it broke off."""
        model, plan, place = self._parts.evaluated, self._plan, self._place
        plan.rank.share(self._parts.model)
        plan.rank.share(model)
        model.eval()
        measures = self._measures()
        with self._batches(plan.order.val()) as batches:
            for step in range(1, plan.order.val_steps + 1):
                stop = self._stop_now()
                if stop is not None:
                    return stop
                batch = next(batches, None)  # a rank may have one less than the others
                if batch is not None:
                    images, targets = batch
                    measures.add(self._step.logits(model, images), targets)
                self._reporter.progress(
                    epoch=place.epoch, step=step, steps=plan.order.val_steps, phase="val"
                )
        found = measures.result(plan.rank)
        self._finite(found["val_loss"], "validation loss")
        return found

    def _measures(self) -> OneClass | SeveralClasses:
        if self._plan.multi_label:
            return SeveralClasses()
        return OneClass(classes=len(self._plan.data.classes), device=self._plan.device)

    def _batches(
        self, keys: Iterator[list[SampleKey]]
    ) -> closing[Generator[tuple[torch.Tensor, torch.Tensor], None, None]]:
        return closing(self._loader(keys))

    def _stop_now(self) -> StopReason | None:
        """Return why to stop between two batches; a stop after the epoch waits for its end."""
        stop = self._plan.rank.agree(self._reporter.should_stop())
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
        if place == self._saved_place or self._plan.rank.number:
            return
        began = self._clock()
        save_last(self._last, plan=self._plan, parts=self._parts, place=self._place)
        self._saved_at = self._clock()
        self._saving_seconds = self._saved_at - began
        self._saved_place = place
        self._reporter.artifact(self._last, kind="checkpoint")

    def _save_best(self) -> None:
        if self._plan.rank.number:
            return
        plan, best = self._plan, self._place.best(self._plan.metric)
        assert best is not None
        about = About(
            model_name=plan.job.model_name,
            model_arguments=model_arguments(plan.job, self._parts.data_config),
            classes=tuple(plan.data.classes),
            multi_label=plan.multi_label,
            data_config=self._parts.data_config,
            best=best,
            versions=versions(),
        )
        save_best(self._best, self._parts.evaluated, about)
        self._reporter.artifact(self._best, kind="checkpoint")

    def _result(self, stopped: StopReason | None) -> Result:
        best = self._place.best(self._plan.metric)
        return Result(
            epochs_completed=self._place.epochs_completed,
            stopped=stopped,
            accuracy=best.value if best else None,
            loss=self._place.val_loss,
            best=best,
            best_model_path=str(self._best) if best else None,
            last_checkpoint_path=str(self._last),
        )
