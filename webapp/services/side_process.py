"""A process that the recorder starts where there is something to do, and ends with itself."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

_STOP_SECONDS = 5.0


class SideProcess:
    """Starts a module that works until nothing is left to do; one at a time."""

    def __init__(
        self, module: str, *, pause_seconds: float, failed_pause_seconds: float | None = None
    ) -> None:
        """Pause after one that ended, or longer after one that failed: it may not even come up."""
        self._module = module
        self._pause = pause_seconds
        self._failed_pause = pause_seconds if failed_pause_seconds is None else failed_pause_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._not_before = 0.0

    def follow(self, is_wanted: Callable[[], bool]) -> None:
        """Start the process where it is wanted and none is at work; waits for nothing."""
        if self._at_work() or time.monotonic() < self._not_before:
            return
        if is_wanted():
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module], stdin=subprocess.DEVNULL
            )

    def stop(self) -> None:
        """End the process; what it was at is left to the next one."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _at_work(self) -> bool:
        if self._process is None:
            return False
        status = self._process.poll()
        if status is None:
            return True
        if status != 0:
            logger.warning("%s ended with status %s", self._module, status)
        pause = self._failed_pause if status else self._pause
        self._not_before = time.monotonic() + pause
        self._process = None
        return False
