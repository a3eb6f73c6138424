"""Slots on the devices of this host, and how a device is called."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from modelyard.gpus import Gpu, GpuWatch, device_indices

# One for the worker's presence and for all its children's load.
gpu_watch = GpuWatch(max_age_seconds=2.5)

LOOK_AGAIN_SECONDS = 0.2


def device_title(device: str, gpus: Sequence[Gpu]) -> str:
    """Return a device's name for people: 'cuda:0 NVIDIA A100', 'cuda:0,1 2 × NVIDIA A100'."""
    indices = device_indices(device)
    names = [gpu.name for gpu in gpus if gpu.index in indices]
    if names:
        kinds = [f"{names.count(name)} × {name}" for name in dict.fromkeys(names)]
        return f"{device} {names[0] if len(names) == 1 else ', '.join(kinds)}"
    return f"cpu {_cpu_name()}" if device == "cpu" else device


class Guard(Protocol):
    """Tells whether a device may be given a job, whoever else is on this host."""

    def usable(self, device: str) -> bool:
        """Tell whether nobody else has it."""

    def take(self, device: str, *, job_id: int) -> bool:
        """Take it for a job; False where somebody was faster."""

    def give_back(self, device: str) -> None: ...


class Slots:
    """The free devices of a worker; a task takes one and gives it back."""

    def __init__(self, devices: Sequence[str], *, guard: Guard) -> None:
        self.size = len(devices)
        self._guard = guard
        self._free = list(devices)
        self._changed = threading.Condition()

    def unusable(self) -> int:
        """Return how many of the free slots are on devices that somebody else has."""
        with self._changed:
            return sum(not self._guard.usable(device) for device in self._free)

    def room(self, *, tasks: int) -> bool:
        """Tell whether there is a slot for a task more than those that this worker has now."""
        return tasks < self.size - self.unusable()

    def take(self, *, job_id: int, wait_seconds: float) -> str | None:
        """Return a free device; None where there is none to be had for so long.

        Celery takes no more tasks than there is room for, but somebody else may be faster.
        """
        deadline = time.monotonic() + wait_seconds
        with self._changed:
            while (device := self._try(job_id)) is None and time.monotonic() < deadline:
                self._changed.wait(LOOK_AGAIN_SECONDS)
        return device

    def give_back(self, device: str) -> None:
        with self._changed:
            self._guard.give_back(device)
            self._free.append(device)
            self._changed.notify_all()

    def _try(self, job_id: int) -> str | None:
        for device in self._free:
            if self._guard.usable(device) and self._guard.take(device, job_id=job_id):
                self._free.remove(device)
                return device
        return None


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
