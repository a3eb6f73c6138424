"""How much room a worker's volumes have left, looked at beside everything else."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from modelyard.disk import room

LOOK_SECONDS = 10.0


class Disks:
    """Looks at volumes in a thread of its own: a network disk that is away answers to nobody."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        """Look at the volumes of these folders, by name."""
        self._folders = dict(folders)
        self._found: list[dict[str, Any]] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="disks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Look no more; one that waits for a disk ends with the process."""
        self._stopped.set()

    def describe(self) -> list[dict[str, Any]]:
        """Return what was last seen, in the API's form."""
        return self._found

    def look(self) -> None:
        """Look once."""
        rooms = {name: room(folder) for name, folder in self._folders.items()}
        self._found = [
            {"name": name, **asdict(left), "low": left.low}
            for name, left in rooms.items()
            if left is not None
        ]

    def _loop(self) -> None:
        while True:
            self.look()
            if self._stopped.wait(LOOK_SECONDS):
                return
