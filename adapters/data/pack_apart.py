"""Packing a data set in a process of its own, which has none of the store's secrets.

The child writes shards into a folder and waits while two of them lie there; the caller sends them
to the store and removes them, so that a large data set never needs its own size in free space.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from adapters.contract import DatasetFormat, TaskType
from adapters.data import child
from adapters.data.content import SplitRule
from adapters.data.description import DatasetError
from adapters.data.manifest import Manifest
from adapters.data.roots import printable
from adapters.data.shards import READY, SHARD_BYTES

Progress = Callable[[int, int], None]  # images packed, and in all

_MEMORY_BYTES = 8 * 1024**3
_TIMEOUT_SECONDS = 24 * 3600.0
_MOST_READY = 2
_POLL_SECONDS = 0.05


def pack_apart(
    path: Path,
    into: Path,
    *,
    fingerprint: str,
    format: DatasetFormat,
    task_type: TaskType,
    split_rule: SplitRule,
    send: Callable[[Path], None],
    progress: Progress,
    shard_bytes: int = SHARD_BYTES,
    timeout_seconds: float = _TIMEOUT_SECONDS,
) -> Manifest:
    """Do what pack() does, in a child process; ``send`` is given each shard, and removes it.

    An exception of ``send`` or ``progress`` ends the child and is raised.
    """

    def hear(done: int, total: int) -> None:
        for shard in ready(into):
            send(shard)
        progress(done, total)

    from adapters.data.pack import DatasetChanged  # it reads images: not for every importer

    answer = child.ask(
        __name__,
        {
            "path": os.fspath(path),
            "into": os.fspath(into),
            "fingerprint": fingerprint,
            "format": format,
            "task_type": task_type,
            "split_rule": dataclasses.asdict(split_rule),
            "shard_bytes": shard_bytes,
        },
        doing=f"packing '{printable(str(path))}'",
        timeout_seconds=timeout_seconds,
        progress=hear,
    )
    if "error" in answer:
        raise (DatasetChanged if answer["changed"] else DatasetError)(answer["error"])
    for shard in ready(into):
        send(shard)
    return Manifest.from_json(answer["manifest"].encode())


def ready(folder: Path) -> list[Path]:
    """Return the shards of a folder that are whole."""
    return sorted(folder.glob(f"*{READY}"))


def main() -> None:
    """Pack what the question on standard input names."""
    from adapters.data.pack import DatasetChanged, pack

    asked = child.question(memory_bytes=_MEMORY_BYTES)
    into = Path(asked["into"])
    teller = _Teller()
    try:
        manifest = pack(
            Path(asked["path"]), into, before_shard=lambda: teller.wait(into), progress=teller,
            **_how(asked),
        )  # fmt: skip
        child.say({"manifest": manifest.to_json().decode()})
    except DatasetError as error:
        child.say({"error": str(error), "changed": isinstance(error, DatasetChanged)})
    except MemoryError:
        child.say({"error": "it takes too much memory to read", "changed": False})


class _Teller(child.Teller):
    """Tells how far packing is, also while it waits for the caller to take shards away."""

    def __init__(self) -> None:
        super().__init__()
        self._last = (0, 0)

    def __call__(self, done: int, total: int) -> None:
        self._last = (done, total)
        super().__call__(done, total)

    def wait(self, folder: Path) -> None:
        while len(ready(folder)) >= _MOST_READY:
            super().__call__(*self._last)
            time.sleep(_POLL_SECONDS)


def _how(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "fingerprint": asked["fingerprint"],
        "format": DatasetFormat(asked["format"]),
        "task_type": TaskType(asked["task_type"]),
        "split_rule": SplitRule(**asked["split_rule"]),
        "shard_bytes": asked["shard_bytes"],
    }


if __name__ == "__main__":
    main()
