"""The recorder's hold of the process that puts data sets into the store."""

from __future__ import annotations

from webapp.services import dataset_claims, dataset_copies
from webapp.services.side_process import SideProcess


class Packing:
    """Starts a packer where there is something to pack, and ends with it."""

    def __init__(self) -> None:
        self._process = SideProcess("webapp.packer", pause_seconds=0, failed_pause_seconds=5)

    def follow(self) -> None:
        """Start a packer where one is needed and none is at work; waits for nothing."""
        if dataset_copies.needed():
            self._process.follow(dataset_claims.anything_to_do)

    def stop(self) -> None:
        """End the packer; what it was at is left to the next one."""
        self._process.stop()
