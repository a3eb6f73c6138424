"""Why and how hard an attempt is to be stopped, shared between those who ask and its supervisor."""

from __future__ import annotations

import threading
import time
from enum import IntEnum

from adapters.contract import StopReason


class Stop(IntEnum):
    """Requests to stop, each harder than the one before; a later one replaces a softer."""

    AFTER_EPOCH = 1  # cancel, at the end of the epoch
    PREEMPTED = 2  # a more urgent job takes the place: checkpoint, then back to the queue
    SHUTDOWN = 3  # the worker goes away: checkpoint, then back to the queue
    NOW = 4  # cancel: checkpoint, then end
    KILL = 5  # cancel without a checkpoint
    LOST = 6  # the lease is gone: someone else may train, nothing more may be reported

    @property
    def by_person(self) -> bool:
        return self in (Stop.AFTER_EPOCH, Stop.NOW, Stop.KILL)

    @property
    def ends_at_once(self) -> bool:
        return self >= Stop.KILL

    @property
    def reason(self) -> StopReason:
        """What the child is told."""
        return _REASONS.get(self, StopReason.NOW)


# To an adapter a place that is given up is the same as a worker that goes away.
_REASONS = {
    Stop.AFTER_EPOCH: StopReason.AFTER_EPOCH,
    Stop.PREEMPTED: StopReason.SHUTDOWN,
    Stop.SHUTDOWN: StopReason.SHUTDOWN,
}

# The modes of the API's cancel.
CANCEL_MODES = {"after_epoch": Stop.AFTER_EPOCH, "now": Stop.NOW, "kill": Stop.KILL}
# What the recorder of `subprocess` mode asks of a process on its host.
ASKED = {**CANCEL_MODES, "preempt": Stop.PREEMPTED}


class StopRequest:
    """The hardest request so far; safe between threads and in a signal handler."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._stop: Stop | None = None
        self.asked_at: float | None = None  # the present one, by time.monotonic()
        self.without_grace = False  # whatever is asked for: no time to write a checkpoint

    def ask(self, stop: Stop) -> None:
        with self._lock:
            if self._stop is None or stop > self._stop:
                self._stop, self.asked_at = stop, time.monotonic()

    def hurry(self) -> None:
        """Give the child no more time: its worker has to be gone at once."""
        self.without_grace = True

    @property
    def current(self) -> Stop | None:
        return self._stop
