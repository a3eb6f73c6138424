"""Slots on the devices of this host, and how a device is called."""

from __future__ import annotations

import platform
import queue
from collections.abc import Sequence
from pathlib import Path

from modelyard.gpus import Gpu, GpuWatch, device_indices

# One for the worker's presence and for all its children's load.
gpu_watch = GpuWatch(max_age_seconds=2.5)


def device_title(device: str, gpus: Sequence[Gpu]) -> str:
    """Return a device's name for people: 'cuda:0 NVIDIA A100', 'cuda:0,1 2 × NVIDIA A100'."""
    indices = device_indices(device)
    names = [gpu.name for gpu in gpus if gpu.index in indices]
    if names:
        kinds = [f"{names.count(name)} × {name}" for name in dict.fromkeys(names)]
        return f"{device} {names[0] if len(names) == 1 else ', '.join(kinds)}"
    return f"cpu {_cpu_name()}" if device == "cpu" else device


class Slots:
    """The free devices of a worker; a task takes one and gives it back."""

    def __init__(self, devices: Sequence[str]) -> None:
        self.size = len(devices)
        self._free: queue.SimpleQueue[str] = queue.SimpleQueue()
        for device in devices:
            self._free.put(device)

    def take(self) -> str:
        """Return a free device; waits for one, though Celery takes no more tasks than slots."""
        return self._free.get()

    def give_back(self, device: str) -> None:
        self._free.put(device)


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
