"""transformers' Trainer with our reporting, stopping, validation and checkpoints.

The loop, the optimizer, the schedule, accumulation, clipping and mixed precision are the
library's. Random numbers follow from the place (see ``adapters.randomness``), so no random states
are kept.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import adapters.huggingface_training.offline  # noqa: F401  (before the library)

# isort: split
import torch
from transformers import PrinterCallback, Trainer

from adapters.contract import ErrorKind, Reporter, StopReason, TrainingError
from adapters.huggingface_training.arguments import training_arguments
from adapters.huggingface_training.build import Parts, parameter_groups, set_training
from adapters.huggingface_training.data import (
    Loader,
    Samples,
    TrainBatches,
    ValBatches,
    make_loader,
)
from adapters.huggingface_training.plan import Plan
from adapters.huggingface_training.state import (
    BEST,
    LAST,
    save_best,
    save_last,
    trainer_state,
)
from adapters.huggingface_training.steps import Steps
from adapters.place import Place
from adapters.randomness import Stream, derive_seed, seed_everything

# A SIGKILL costs at most this much of a long epoch.
SECONDS_BETWEEN_CHECKPOINTS = 300.0
# Of short epochs not each is kept: writing takes at most this share of the time.
LARGEST_SAVING_SHARE = 0.1
# On a GPU the loss is looked at once in so many steps: each look waits for the device.
STEPS_BETWEEN_LOSS_CHECKS = 20


class StopNow(Exception):
    """Somebody asked to stop while a validation went on."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(str(reason))
        self.reason = reason


class ReportingTrainer(Trainer):
    """Trains one attempt, from its place to its end."""

    def __init__(
        self,
        plan: Plan,
        parts: Parts,
        samples: Samples,
        *,
        place: Place,
        kept: dict[str, Any] | None,
        reporter: Reporter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan, self.parts, self.place, self.reporter = plan, parts, place, reporter
        self.stopped: StopReason | None = None
        self._kept = kept
        self._clock = clock
        self._saved_at = clock()
        self._saving_seconds = 0.0
        self._saved_place: tuple[int, int] | None = None
        # Of the batches since the last update: with it they count, or are repeated.
        self._pending_loss = torch.zeros((), dtype=torch.float64, device=plan.device)
        self._pending_images = 0
        self._pending_steps = 0
        self._rate = 0.0  # of the last update
        self._buffers = self._copied_buffers()
        self._epoch_loss = torch.tensor(place.loss_sum, dtype=torch.float64, device=plan.device)
        self._train_loader = self._loader(samples, TrainBatches(plan.order))
        self._val_loader = self._loader(samples, ValBatches(plan.order))
        arguments = training_arguments(plan, validate_first=place.step == plan.steps)
        super().__init__(model=parts.model, args=arguments, callbacks=[Steps(self, clock)])
        self.remove_callback(PrinterCallback)
        # Ours is the mean of a batch's images, whatever the model's own would be.
        self.loss_is_scaled_for_ga = False

    def run(self) -> None:
        """Train until the last epoch, the end of patience, or a stop, kept in ``stopped``."""
        if self.place.finished:
            return
        try:
            if self._kept is None:
                self.train()
            else:
                with tempfile.TemporaryDirectory(prefix="modelyard-") as scratch:
                    state = Path(scratch) / "trainer_state.json"
                    state.write_text(trainer_state(self.place), encoding="utf-8")
                    self.train(resume_from_checkpoint=scratch)
        except StopNow as stop:
            self.stopped = stop.reason
        if self.stopped is not None:
            self.save_last()

    # What the Trainer asks for

    def get_train_dataloader(self) -> Loader:
        return self._train_loader

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            decayed = set(self.get_decay_parameter_names(self.parts.model))
            groups = parameter_groups(self.plan, self.parts.model, decayed=decayed)
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args, self.parts.model)
            self.optimizer = kind(groups, **settings)
        return self.optimizer

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        set_training(self.model, frozen_backbone=self.plan.hyperparameters.freeze_backbone)
        loss, outputs = self._loss(model, inputs)
        images = len(inputs["pixel_values"])
        self._pending_loss += loss.detach().double() * images
        self._pending_images += images * self.plan.rank.total
        self._pending_steps += 1
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        place = self.place
        step = place.step + self._pending_steps
        rank = self.plan.rank.number
        where = [place.epoch, step, *([rank] if rank else [])]
        seed_everything(derive_seed(self.plan.job.seed, Stream.STEP, *where))
        return super().training_step(model, inputs, num_items_in_batch)

    def evaluate(self, *arguments: Any, **settings: Any) -> dict[str, float]:
        """Validate the epoch that was trained, report it and keep what is worth keeping."""
        found = self._validate()
        place, task = self.place, self.parts.task
        place.metrics = {
            "train_loss": place.loss_sum / max(place.images, 1),
            **found,
            "learning_rate": place.learning_rate,
            "images_per_second": place.images / max(place.seconds, 1e-9),
        }
        place.val_loss = found["val_loss"]
        # Reported before it is kept: an epoch that dies in between is told twice, with the same
        # numbers, and never not at all.
        self.reporter.metrics(epoch=place.epoch, values=place.metrics)
        value = found[task.best_metric]
        value = value if math.isfinite(value) else 0.0
        if value > place.best_value:
            place.best_value, place.best_epoch = value, place.epoch
            if self.plan.rank.number == 0:
                for path in save_best(self._folder / BEST, parts=self.parts):
                    self.reporter.artifact(path, kind="checkpoint")
        self._end_epoch()
        return {f"eval_{name}": value for name, value in found.items()}

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.save_last()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Do nothing: the model has its weights before the Trainer is made."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self._kept is not None:
            assert self.optimizer is not None
            assert self.lr_scheduler is not None
            self.optimizer.load_state_dict(self._kept["optimizer"])
            self.lr_scheduler.load_state_dict(self._kept["scheduler"])

    def _load_scaler(self, checkpoint: str | None) -> None:
        scaler = self.accelerator.scaler
        if self._kept is not None and self._kept["scaler"] is not None and scaler is not None:
            scaler.load_state_dict(self._kept["scaler"])
        self._kept = None  # as large as the model and its optimizer

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Do nothing: random numbers follow from the place."""

    # What we add

    def save_last(self) -> None:
        """Write the checkpoint of this place, once."""
        place = (self.place.epoch, self.place.step)
        if place == self._saved_place or self.lr_scheduler is None or self.plan.rank.number:
            return
        self.gather_loss()
        if self._pending_steps:
            self._forget_open_update()
        began = self._clock()
        path = self._folder / LAST
        save_last(
            path,
            plan=self.plan,
            parts=self.parts,
            place=self.place,
            optimizer=self.optimizer,
            scheduler=self.lr_scheduler,
            scaler=self.accelerator.scaler,
        )
        self._saved_at = self._clock()
        self._saving_seconds = self._saved_at - began
        self._saved_place = place
        self.reporter.artifact(path, kind="checkpoint")

    def asked_to_stop(self) -> StopReason | None:
        """Return whether to stop and why, the same on all ranks, which ask at the same place."""
        return self.plan.rank.agree(self.reporter.should_stop())

    def checkpoint_is_due(self) -> bool:
        return self._clock() - self._saved_at > SECONDS_BETWEEN_CHECKPOINTS

    def count_update(self) -> None:
        """Take the batches of an update into the place, once it is done."""
        place = self.place
        self._epoch_loss += self.plan.rank.sum(self._pending_loss)
        place.images += self._pending_images
        place.step += self._pending_steps
        place.updates = self.state.global_step
        self._pending_loss = torch.zeros_like(self._pending_loss)
        self._pending_images = self._pending_steps = 0
        self._buffers = self._copied_buffers()
        if self.parts.ema is not None:
            self.parts.ema.update(self.model, updates=place.updates)
        place.learning_rate = self._rate
        if self.plan.device.type == "cpu" or place.updates % STEPS_BETWEEN_LOSS_CHECKS == 0:
            self.gather_loss()

    def note_rate(self) -> None:
        """Remember the learning rate that the update is made with."""
        assert self.optimizer is not None
        self._rate = max(float(group["lr"]) for group in self.optimizer.param_groups)

    def gather_loss(self) -> None:
        """Bring the epoch's loss to the CPU. Raises TrainingError where it is no number."""
        self.place.loss_sum = self._finite(self._epoch_loss.item(), "training loss")

    @property
    def steps_done(self) -> int:
        """Return the batches of the epoch that were trained, those of an open update included."""
        return self.place.step + self._pending_steps

    @property
    def images_done(self) -> int:
        return self.place.images + self._pending_images

    def close(self) -> None:
        """End the loader processes."""
        del self._train_loader, self._val_loader
        self.callback_handler.train_dataloader = self.callback_handler.eval_dataloader = None

    @property
    def _folder(self) -> Path:
        return self.plan.job.checkpoints_dir

    def _copied_buffers(self) -> dict[str, torch.Tensor]:
        """Return the statistics that batches leave in a model before their update is made."""
        if self.plan.hyperparameters.accumulation_steps == 1:
            return {}
        return {name: buffer.clone() for name, buffer in self.parts.model.named_buffers()}

    def _forget_open_update(self) -> None:
        """Undo what the batches of an update that was not made left behind: they are repeated."""
        for name, buffer in self.parts.model.named_buffers():
            buffer.copy_(self._buffers[name])
        self._pending_loss = torch.zeros_like(self._pending_loss)
        self._pending_images = self._pending_steps = 0

    def _loader(self, samples: Samples, batches: TrainBatches | ValBatches) -> Loader:
        return make_loader(
            samples,
            batches,
            collate=self.parts.task.collate,
            workers=self.plan.workers,
            device=self.plan.device,
        )

    def _loss(self, model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        forward = self.parts.forward

        def call(**arguments: Any) -> Any:
            return model(**arguments, **forward)

        smoothing = self.plan.hyperparameters.label_smoothing if model.training else 0.0
        return self.parts.task.loss(call, batch, smoothing=smoothing)

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Return the metrics of the validation images. Raises StopNow."""
        self.gather_loss()
        rank = self.plan.rank
        rank.share(self.parts.model)
        rank.share(self.parts.evaluated)
        model = self.parts.evaluated.eval()
        metrics = self.parts.task.metrics(self.plan.device)
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.plan.device)
        images = 0
        for step, raw in enumerate(self._val_loader, start=1):
            stop = self.asked_to_stop()
            if stop is not None and stop != StopReason.AFTER_EPOCH:
                raise StopNow(stop)
            batch = self._prepare_inputs(raw)
            with self._autocast():
                loss, outputs = self._loss(model, batch)
            number = sum(rank.gather(len(batch["pixel_values"])))
            loss_sum += loss.double() * (number / rank.total)
            images += number
            metrics.update(outputs, batch)
            self.reporter.progress(
                epoch=self.place.epoch, step=step, steps=self.plan.order.val_steps, phase="val"
            )
        loss_mean = self._finite(rank.sum(loss_sum).item() / images, "validation loss")
        # What follows from them, the end of patience for one, must be the same on all ranks.
        return rank.gather({"val_loss": loss_mean, **metrics.compute()})[0]

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.plan.precision)
        if dtype is None:
            return nullcontext()
        return torch.autocast(self.plan.device.type, dtype=dtype)

    def _end_epoch(self) -> None:
        place, patience = self.place, self.plan.hyperparameters.early_stopping_patience
        out_of_patience = bool(patience) and place.epoch - place.best_epoch >= patience
        if out_of_patience and place.epoch < self.plan.job.epochs:
            self.reporter.log(
                f"ending after epoch {place.epoch}: {self.parts.task.best_metric} was best in "
                f"epoch {place.best_epoch} and early_stopping_patience is {patience}"
            )
        place.finished = out_of_patience or place.epoch >= self.plan.job.epochs
        place.begin_next_epoch()
        self._epoch_loss = torch.zeros_like(self._epoch_loss)
        since_saved = self._clock() - self._saved_at
        if place.finished or self._saving_seconds <= LARGEST_SAVING_SHARE * since_saved:
            self.save_last()
        if not place.finished:
            self.stopped = self.asked_to_stop()
        if place.finished or self.stopped is not None:
            self.control.should_training_stop = True

    def _finite(self, value: float, what: str) -> float:
        if math.isfinite(value):
            return value
        advice = [f"a learning rate below {self.plan.job.learning_rate:g}"]
        if not self.plan.gradient_clip:
            advice.append("gradient_clip 1.0")
        if self.plan.precision != "fp32":
            advice.append("precision fp32")
        raise TrainingError(
            ErrorKind.NAN_LOSS,
            f"{what} became {value} in epoch {self.place.epoch} after step {self.place.step} "
            f"of {self.plan.steps}",
            hint=f"Try {' or '.join(advice)}. The last checkpoint is from before it.",
        )
