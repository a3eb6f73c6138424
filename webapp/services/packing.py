"""The recorder's hold of the process that puts data sets into the store."""

from __future__ import annotations

import logging
import subprocess
import sys
import time

from webapp.services import dataset_claims, dataset_copies

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 5.0  # after one that failed: it may not even come up
_STOP_SECONDS = 5.0


class Packing:
    """Starts a packer where there is something to pack, and ends with it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._not_before = 0.0

    def follow(self) -> None:
        """Start a packer where one is needed and none is at work; waits for nothing."""
        if not dataset_copies.needed() or self._at_work() or time.monotonic() < self._not_before:
            return
        if dataset_claims.anything_to_do():
            self._process = subprocess.Popen(
                [sys.executable, "-m", "webapp.packer"], stdin=subprocess.DEVNULL
            )

    def stop(self) -> None:
        """End the packer; what it was at is left to the next one."""
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
            logger.warning("the packer of data sets ended with status %s", status)
            self._not_before = time.monotonic() + _PAUSE_SECONDS
        self._process = None
        return False
