"""Who keeps a GPU from being given a job: a process of somebody else, or another worker.

Jobs need the memory, so memory decides. A process that computes there and is not ours keeps a GPU
from us when such processes hold more than a tenth of its memory, or more than 2 GiB. Memory that
the driver ascribes to nobody (a desktop, a process in another container) gets the benefit of the
doubt up to a quarter. What the driver does not tell at all keeps no GPU from anyone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from modelyard.gpus import Gpu, GpuProcess

MOST_SHARE = 0.1
MOST_MIB = 2048
MOST_NAMELESS_SHARE = 0.25


@dataclass(frozen=True)
class Holder:
    """Who has a GPU; ``text`` is what follows 'GPU 1' in a sentence."""

    text: str
    pid: int | None = None
    process: str | None = None
    memory: int | None = None  # MiB
    worker: str | None = None
    job_id: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def process_name(pid: int) -> str | None:
    """Return the name of a process of this host, None where there is none to be seen."""
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return None


def find_holder(
    gpu: Gpu,
    processes: Sequence[GpuProcess],
    *,
    ours: frozenset[int],
    trains: bool = False,
    name_of: Callable[[int], str | None] = process_name,
) -> Holder | None:
    """Return who else fills a GPU with memory, None where a job may have it.

    ``ours`` are the processes of this worker, ``trains``: an attempt of ours is on this GPU, so
    that memory which nobody is named for is its own.
    """
    others = [process for process in processes if process.pid not in ours]
    named = {p: name for p in others if (name := name_of(p.pid)) is not None}
    known = sum(p.memory or 0 for p in processes if p.pid in ours or p in named)
    rest = 0 if trains else max(0, gpu.memory_used - known)
    theirs = sum(p.memory or 0 for p in named)
    if any(p.memory is None for p in named):
        theirs, rest = theirs + rest, 0  # the driver names them and not what they hold
    if theirs > min(gpu.memory * MOST_SHARE, MOST_MIB):
        return _process_holder(named, memory=theirs)
    if rest > gpu.memory * MOST_NAMELESS_SHARE:
        text = f"has {gigabytes(rest)} held by processes that nvidia-smi does not name"
        return Holder(text, memory=rest)
    return None


def _process_holder(named: dict[GpuProcess, str], *, memory: int) -> Holder:
    largest = max(named, key=lambda process: process.memory or 0)
    more = len(named) - 1
    who = f"process {largest.pid} ({named[largest]}, {gigabytes(largest.memory or memory)})"
    whose = f" and {more} more, which are not ours" if more else ", which is not ours"
    text = f"is held by {who}{whose}"
    return Holder(text, pid=largest.pid, process=named[largest], memory=memory)


def gigabytes(mebibytes: int) -> str:
    """Return memory as nvidia-smi's readers say it: 18637 MiB are '18.2 GB'."""
    return f"{mebibytes / 1024:.1f} GB"
