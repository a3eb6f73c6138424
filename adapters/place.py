"""Where a training is, in its epochs and steps: what a checkpoint keeps beside the parts."""

from __future__ import annotations

from dataclasses import dataclass, field

from adapters.contract import Best


@dataclass
class Place:
    """Where a training is, and what it has gathered of the epoch that it is in."""

    epoch: int = 1  # the epoch that is going on or comes next, 1-based
    step: int = 0  # batches of it that are done; all of them: its validation comes next
    updates: int = 0  # optimizer updates since the beginning
    loss_sum: float = 0.0  # over the epoch's images so far
    images: int = 0
    seconds: float = 0.0  # spent training in this epoch, in all attempts
    learning_rate: float = 0.0  # of the last update
    val_loss: float | None = None  # of the last whole epoch
    best_epoch: int = 0  # 0: none yet
    best_value: float = -1.0  # of the plan's metric
    metrics: dict[str, float] = field(default_factory=dict)  # of the last whole epoch
    finished: bool = False  # all epochs are done, or patience ended

    @property
    def epochs_completed(self) -> int:
        return self.epoch - 1

    def best(self, metric: str) -> Best | None:
        """Return the best epoch so far, None before the first has ended."""
        if not self.best_epoch:
            return None
        return Best(epoch=self.best_epoch, metric=metric, value=self.best_value)

    def begin_next_epoch(self) -> None:
        self.epoch += 1
        self.step = self.images = 0
        self.loss_sum = self.seconds = 0.0
