"""The devices of this host, and slots on them. Asks nvidia-smi, never CUDA: see the template."""

from __future__ import annotations

import logging
import platform
import queue
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_QUERY = "index,name,memory.total,memory.used,utilization.gpu"
_NVIDIA_SMI_SECONDS = 10


@dataclass(frozen=True)
class Gpu:
    index: int
    name: str
    memory: int  # MiB
    memory_used: int  # MiB
    utilisation: int | None  # percent; None where the driver does not tell

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def list_gpus() -> list[Gpu]:
    """Return the NVIDIA GPUs that the driver shows; none where there is no driver."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    arguments = [command, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(
            arguments, capture_output=True, text=True, timeout=_NVIDIA_SMI_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("nvidia-smi does not answer: %s", error)
        return []
    return [_parse(line) for line in answer.stdout.splitlines() if line.strip()]


def _parse(line: str) -> Gpu:
    index, name, memory, used, utilisation = (part.strip() for part in line.split(","))
    busy = int(utilisation) if utilisation.isdigit() else None
    return Gpu(int(index), name, int(memory), int(used), busy)


def choose_devices(wanted: Sequence[int] | None) -> list[str]:
    """Return a torch device for each slot: the wanted GPUs, all of them, or one CPU.

    Raises ValueError naming a wanted GPU that is not there.
    """
    present = [gpu.index for gpu in list_gpus()]
    for index in wanted or ():
        if index not in present:
            there = ", ".join(map(str, present)) or "none"
            raise ValueError(f"GPU {index} is not on this host; nvidia-smi shows: {there}")
    chosen = present if wanted is None else list(wanted)
    return [f"cuda:{index}" for index in chosen] or ["cpu"]


def device_title(device: str, gpus: Sequence[Gpu]) -> str:
    """Return a device's name for people."""
    for gpu in gpus:
        if device == f"cuda:{gpu.index}":
            return f"{device} {gpu.name}"
    return f"cpu {_cpu_name()}"


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
