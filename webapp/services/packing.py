"""The recorder's hold of the process that puts data sets into the store."""

from __future__ import annotations

import time

from webapp.services import dataset_claims, dataset_copies
from webapp.services.side_process import SideProcess

_TIDY_SECONDS = 600.0


class Packing:
    """Starts a packer where there is something to pack, and ends with it."""

    def __init__(self) -> None:
        self._process = SideProcess("webapp.packer", pause_seconds=0, failed_pause_seconds=5)
        self._tidy_at = 0.0

    def follow(self) -> None:
        """Start a packer where one is needed and none is at work; waits for nothing."""
        if dataset_copies.needed():
            if time.monotonic() >= self._tidy_at:
                self._tidy_at = time.monotonic() + _TIDY_SECONDS
                dataset_claims.forget_unused()
            self._process.follow(dataset_claims.anything_to_do)

    def stop(self) -> None:
        """End the packer; what it was at is left to the next one."""
        self._process.stop()
