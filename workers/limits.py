"""How long a child may take: for its next step, and in all."""

from __future__ import annotations

import time
from collections.abc import Callable

from adapters.contract import ErrorKind, TrainingError


class Limits:
    """Tells when an attempt has gone over one of its limits; 0 means that there is none.

    Time in which the child was paused by us counts for neither.
    """

    def __init__(
        self,
        *,
        stall_seconds: float,
        attempt_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stall_seconds = stall_seconds
        self._attempt_seconds = attempt_seconds
        self._clock = clock
        self._looked_at = clock()
        self._since_step = 0.0
        self._in_all = 0.0

    def stepped(self) -> None:
        """Take note that the child has told of progress."""
        self._since_step = 0.0

    def exceeded(self, *, paused: bool) -> TrainingError | None:
        """Return why the attempt must end now, if it must; look several times a second."""
        now = self._clock()
        elapsed, self._looked_at = now - self._looked_at, now
        if not paused:
            self._since_step += elapsed
            self._in_all += elapsed
        if 0 < self._stall_seconds < self._since_step:
            return TrainingError(
                ErrorKind.STALLED,
                f"No step for {self._stall_seconds:g} s: the training process hangs",
                hint="Look at the log's last lines and at the worker's disks and GPU; if a step "
                "really takes so long, raise MODELYARD_STALL_SECONDS there.",
            )
        if 0 < self._attempt_seconds < self._in_all:
            return TrainingError(
                ErrorKind.TIME_LIMIT,
                f"The attempt took longer than {self._attempt_seconds:g} s",
                hint="Resume the job to go on from its last checkpoint, or raise "
                "MODELYARD_ATTEMPT_SECONDS on the worker.",
            )
        return None
