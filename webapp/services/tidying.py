"""The recorder's hold of the process that removes what deleted jobs left, and what is too old."""

from __future__ import annotations

import time

from webapp.services import deletion, disk_use
from webapp.services.side_process import SideProcess

LOOK_SECONDS = 2.0
_DAILY_AFTER_SECONDS = 60.0  # from the recorder's start, which has more urgent things to do


class Tidying:
    """Starts a tidier soon after something was deleted, and once a day."""

    def __init__(self) -> None:
        self._process = SideProcess("webapp.tidier", pause_seconds=2, failed_pause_seconds=60)
        self._look_at = 0.0
        self._daily_from = time.monotonic() + _DAILY_AFTER_SECONDS

    def follow(self) -> None:
        """Start a tidier where there is something to do and none is at work; waits for nothing."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_SECONDS
            self._process.follow(self._is_wanted)

    def stop(self) -> None:
        """End the tidier; what it was at is left to the next one."""
        self._process.stop()

    def _is_wanted(self) -> bool:
        return deletion.pending() or (time.monotonic() >= self._daily_from and disk_use.due())
