"""What an Ultralytics trainer tells through its callbacks, in the words of the contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from adapters.contract import AdapterError, Reporter, StopReason, TrainingJob
from adapters.ranks import Rank
from adapters.ultralytics_training.metrics import shared_names

# A kill costs at most this much of a long epoch.
MIDWAY_SECONDS = 600.0


class StopNow(AdapterError):
    """Leaves the training loop between two batches; never leaves the adapter."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(str(reason))
        self.reason = reason


class TrainerReport:
    """Follows one training: progress and stops at every batch, metrics once an epoch."""

    def __init__(
        self, job: TrainingJob, reporter: Reporter, *, clock: Callable[[], float], rank: Rank
    ) -> None:
        self._job = job
        self._rank = rank
        self._reporter = reporter
        self._clock = clock
        self.stopped: StopReason | None = None
        self.val_loss: float | None = None
        self.step = 0  # batches of the epoch that are trained
        self._val_step = 0
        self._started = self._saved_at = 0.0
        self._rate: float | None = None
        self._draws = False  # at the validation to come
        self._has_drawn = False

    def callbacks(self) -> dict[str, Callable[[Any], None]]:
        """Return the functions that a trainer is to call, by event."""
        return {
            "on_train_start": lambda trainer: trainer.restore_place(),
            "on_train_epoch_start": self._epoch_started,
            "on_train_batch_start": lambda trainer: trainer.carry_over(),
            "on_train_batch_end": self._batch_trained,
            "on_train_epoch_end": self._epoch_trained,
            "on_val_start": self._validation_began,
            "on_val_batch_end": self._batch_validated,
            "on_val_end": self._validation_ended,
            "on_epoch_metrics": self._epoch_measured,
            "on_model_save": self._saved,
            "on_fit_epoch_end": self._epoch_ended,
        }

    def check_stop(self) -> None:
        """Raise StopNow where the child is to end before the epoch does.

        Ranks that train together can only leave at the same batch: not here.
        """
        if self._rank.total == 1:
            self._obey(self._reporter.should_stop())

    def _stop_together(self) -> None:
        self._obey(self._rank.agree(self._reporter.should_stop()))

    def _obey(self, reason: StopReason | None) -> None:
        if reason in (StopReason.NOW, StopReason.SHUTDOWN):
            raise StopNow(reason)

    def _epoch_started(self, trainer: Any) -> None:
        # Out of memory is told with its remedy; the library would go on with half the batch size,
        # which is another job than was asked for. It does so only below three retries.
        trainer._oom_retries = 3
        if trainer.epoch > trainer.start_epoch:
            trainer.train_loader.first_batch = 0
        self._epoch = trainer.epoch + 1
        self.step = trainer.train_loader.first_batch
        self._val_step = 0
        self._rate = None
        self._started = self._saved_at = self._clock()
        self._tell_progress(trainer)
        self._stop_together()

    def _batch_trained(self, trainer: Any) -> None:
        self.step += 1
        now = self._clock()
        self._rate = _images_trained(trainer, self.step) / max(now - self._started, 1e-9)
        self._tell_progress(trainer)
        self._stop_together()
        if now - self._saved_at > MIDWAY_SECONDS:
            self._saved_at = now
            self.save_midway(trainer)

    def _tell_progress(self, trainer: Any) -> None:
        self._reporter.progress(
            epoch=trainer.epoch + 1,
            step=self.step,
            steps=len(trainer.train_loader),
            images_per_second=self._rate,
        )

    def save_midway(self, trainer: Any) -> None:
        """Keep what an epoch under way has trained so far."""
        if trainer.save_midway(self.step):
            self._reporter.artifact(trainer.last, kind="checkpoint")

    def _epoch_trained(self, trainer: Any) -> None:
        trainer.carry_over()
        trainer.begin_validation()
        ends = trainer.epoch + 1 >= trainer.epochs or trainer.stopper.possible_stop
        wanted = self._job.hyperparameters.get("plots", True)
        # The first show early how the data are understood, and how long the last will take.
        self._draws = wanted and (not self._has_drawn or ends or self._leaves_after_epoch())

    def _validation_began(self, validator: Any) -> None:
        validator.args.plots = self._draws  # the library draws after the last epoch only
        validator.on_plot = self._plotted

    def _plotted(self, path: str | Path, data: object = None) -> None:
        """Tell of a picture; called when its file is whole, from a thread for some."""
        self._reporter.artifact(Path(path), kind="plot")

    def _batch_validated(self, validator: Any) -> None:
        self._val_step += 1
        steps = len(validator.dataloader)
        self._tell_validation(self._val_step, steps=steps, phase="val")
        self.check_stop()
        if self._draws and self._val_step == steps:
            self._tell_validation(0, steps=1, phase="draw")

    def _validation_ended(self, validator: Any) -> None:
        if self._draws:
            self._has_drawn = True
            self._tell_validation(1, steps=1, phase="draw")

    def _tell_validation(self, step: int, *, steps: int, phase: str) -> None:
        self._reporter.progress(epoch=self._epoch, step=step, steps=steps, phase=phase)

    def _epoch_measured(self, trainer: Any) -> None:
        values = self._values(trainer)
        self.val_loss = values.get("val_loss")
        self._reporter.metrics(epoch=trainer.epoch + 1, values=values)
        self._reporter.log(_line(trainer.epoch + 1, trainer.epochs, values))

    def _values(self, trainer: Any) -> dict[str, float]:
        train = {f"train_{name}": float(value) for name, value in trainer.tloss.items()}
        return {
            **train,
            "train_loss": sum(train.values()),
            **shared_names(trainer.metrics),
            "learning_rate": _learning_rate(trainer.optimizer),
            # None where only the validation of an interrupted epoch was left.
            **({} if self._rate is None else {"images_per_second": self._rate}),
        }

    def _saved(self, trainer: Any) -> None:
        if trainer.best_epoch is not None and trainer.best_epoch.epoch == trainer.epoch + 1:
            self._reporter.artifact(trainer.best, kind="checkpoint")
        self._reporter.artifact(trainer.last, kind="checkpoint")

    def _epoch_ended(self, trainer: Any) -> None:
        reason = self._reporter.should_stop()
        if reason is not None and trainer.epoch + 1 < trainer.epochs:
            self.stopped = reason
            trainer.stop = True

    def _leaves_after_epoch(self) -> bool:
        return self._reporter.should_stop() == StopReason.AFTER_EPOCH


def _learning_rate(optimizer: Any) -> float:
    """Return the rate that most weights are trained with; MuSGD trains the head's with thrice."""
    return min(
        float(group["lr"])
        for group in optimizer.param_groups
        if group.get("param_group") == "weight"
    )


def _images_trained(trainer: Any, step: int) -> int:
    """Return the images of an epoch that were trained here, not before an interruption."""
    loader = trainer.train_loader
    batch = loader.batch_size * trainer.rank.total
    return min(step * batch, len(loader.dataset)) - loader.first_batch * batch


def _line(epoch: int, epochs: int, values: Mapping[str, float]) -> str:
    """Return the log's line of an epoch: the losses' sums, then what was measured."""
    parts = [
        f"{name} {value:.4g}"
        for name, value in values.items()
        if "loss" not in name and name not in ("learning_rate", "images_per_second")
    ]
    return (
        f"epoch {epoch}/{epochs}: train_loss {values['train_loss']:.4g}, "
        f"val_loss {values['val_loss']:.4g}, {', '.join(parts)}, "
        f"lr {values['learning_rate']:.3g}, {values.get('images_per_second', 0):.0f} images/s"
    )
