"""What happens between two steps: progress, questions whether to stop, and when to validate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import adapters.huggingface_training.offline  # noqa: F401  (before the library)

# isort: split
from transformers import TrainerCallback, TrainingArguments

from adapters.contract import StopReason

if TYPE_CHECKING:
    from adapters.huggingface_training.trainer import ReportingTrainer


class Steps(TrainerCallback):
    """Reports each step and asks whether to stop; tells the Trainer when to validate."""

    def __init__(self, trainer: ReportingTrainer, clock: Callable[[], float]) -> None:
        self._trainer = trainer
        self._clock = clock
        self._began = 0.0

    def on_epoch_begin(
        self, args: TrainingArguments, state: Any, control: Any, **more: Any
    ) -> None:
        self._began = self._clock() - self._trainer.place.seconds

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: Any, control: Any, **more: Any
    ) -> None:
        self._trainer.note_rate()

    def on_substep_end(
        self, args: TrainingArguments, state: Any, control: Any, **more: Any
    ) -> None:
        self._after_batch(control)

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **more: Any) -> None:
        self._trainer.count_update()
        self._after_batch(control)
        control.should_save = control.should_training_stop or self._trainer.checkpoint_is_due()

    def on_epoch_end(self, args: TrainingArguments, state: Any, control: Any, **more: Any) -> None:
        trainer = self._trainer
        whole = trainer.place.step == trainer.plan.steps and trainer.stopped is None
        control.should_evaluate = whole
        control.should_save = control.should_log = False

    def _after_batch(self, control: Any) -> None:
        trainer = self._trainer
        seconds = self._clock() - self._began
        trainer.place.seconds = seconds
        trainer.reporter.progress(
            epoch=trainer.place.epoch,
            step=trainer.steps_done,
            steps=trainer.plan.steps,
            images_per_second=trainer.images_done / max(seconds, 1e-9),
        )
        stop = trainer.asked_to_stop()
        if stop is not None and stop != StopReason.AFTER_EPOCH:
            trainer.stopped = stop
            control.should_training_stop = True
