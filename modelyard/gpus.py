"""The GPUs of this host and how jobs share them. Asks nvidia-smi, never CUDA: a process that forks
training children must not touch it.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
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


def choose_devices(wanted: Sequence[int] | None, *, per_slot: int = 1) -> list[str]:
    """Return a device for each slot: 'cuda:0', several GPUs as 'cuda:0,1', or one 'cpu'.

    ``wanted`` are the GPUs to share out, None all of them; what is left over stays unused.
    Raises ValueError naming a wanted GPU that is not there, and where they are too few for a slot.
    """
    present = [gpu.index for gpu in list_gpus()]
    for index in wanted or ():
        if index not in present:
            there = ", ".join(map(str, present)) or "none"
            raise ValueError(f"GPU {index} is not on this host; nvidia-smi shows: {there}")
    chosen = present if wanted is None else list(wanted)
    if not chosen:
        return ["cpu"]
    if len(chosen) < per_slot:
        raise ValueError(f"a slot is to have {per_slot} GPUs, and there are {len(chosen)} to use")
    groups = [
        chosen[i : i + per_slot] for i in range(0, len(chosen) // per_slot * per_slot, per_slot)
    ]
    return ["cuda:" + ",".join(map(str, group)) for group in groups]


def device_indices(device: str) -> tuple[int, ...]:
    """Return the GPUs of a slot's device: 0 and 1 of 'cuda:0,1', none of 'cpu'."""
    kind, _, indices = device.partition(":")
    return tuple(int(index) for index in indices.split(",")) if kind == "cuda" and indices else ()


class GpuWatch:
    """What nvidia-smi says, asked no more often than needed, whoever wants to know."""

    def __init__(
        self, *, max_age_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_age_seconds = max_age_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._gpus: list[Gpu] = []
        self._asked_at: float | None = None

    def gpus(self) -> list[Gpu]:
        """Return the GPUs as they were a moment ago."""
        with self._lock:
            if self._asked_at is None or self._clock() - self._asked_at >= self._max_age_seconds:
                self._gpus = list_gpus()
                self._asked_at = self._clock()
            return self._gpus


def _parse(line: str) -> Gpu:
    index, name, memory, used, utilisation = (part.strip() for part in line.split(","))
    busy = int(utilisation) if utilisation.isdigit() else None
    return Gpu(int(index), name, _mebibytes(memory), _mebibytes(used), busy)


def _mebibytes(text: str) -> int:
    """Read a figure; a GPU that shares its host's memory says '[N/A]'."""
    return int(text) if text.isdigit() else 0
