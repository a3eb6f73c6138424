"""The GPUs of this host and how jobs share them. Asks nvidia-smi, never CUDA: a process that forks
training children must not touch it.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

logger = logging.getLogger(__name__)

_GPU_QUERY = "index,name,memory.total,memory.used,utilization.gpu,uuid"
_COLUMNS = len(_GPU_QUERY.split(","))
_PROCESS_QUERY = "pid,used_memory,gpu_uuid"
_NVIDIA_SMI_SECONDS = 10
_unended: list[subprocess.Popen[str]] = []  # calls of nvidia-smi that took too long


@dataclass(frozen=True)
class Gpu:
    index: int
    name: str
    memory: int  # MiB
    memory_used: int  # MiB
    utilisation: int | None  # percent; None where the driver does not tell
    uuid: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class GpuProcess:
    """A process that computes on a GPU, as the driver lists it."""

    pid: int  # in a container it may be the host's number, which says nothing here
    memory: int | None  # MiB; None where the driver does not tell
    gpu_uuid: str


@dataclass(frozen=True)
class GpuView:
    """The GPUs and who computes on them, at one moment."""

    gpus: tuple[Gpu, ...] = ()
    processes: tuple[GpuProcess, ...] = ()

    def of(self, gpu: Gpu) -> list[GpuProcess]:
        return [process for process in self.processes if process.gpu_uuid == gpu.uuid]


def list_gpus() -> list[Gpu]:
    """Return the NVIDIA GPUs that the driver shows; none where there is no driver."""
    rows = _ask(f"--query-gpu={_GPU_QUERY}")
    # Of a GPU that has failed it says a sentence in place of a row.
    return [_gpu(row) for row in rows if len(row) == _COLUMNS and row[0].isdigit()]


def list_gpu_processes() -> list[GpuProcess]:
    """Return the processes that compute on a GPU, as far as the driver tells; no desktop's."""
    rows = _ask(f"--query-compute-apps={_PROCESS_QUERY}")
    return [
        GpuProcess(int(pid), int(memory) if memory.isdigit() else None, uuid)
        for pid, memory, uuid in (row for row in rows if len(row) == 3)
        if pid.isdigit()
    ]


def view_gpus() -> GpuView:
    """Look at the GPUs and, where there are any, at who computes on them."""
    gpus = list_gpus()
    return GpuView(tuple(gpus), tuple(list_gpu_processes()) if gpus else ())


def _ask(query: str) -> list[list[str]]:
    """Return the rows of nvidia-smi's answer; none where it does not answer."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    arguments = [command, query, "--format=csv,noheader,nounits"]
    if any(process.poll() is None for process in _unended):
        return []  # each one more would wait in the driver, too
    _unended.clear()
    try:
        answer = _printed(arguments)
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("nvidia-smi does not answer: %s", error)
        return []
    lines = [line for line in answer.splitlines() if line.strip()]
    return [[part.strip() for part in line.split(",")] for line in lines]


def _printed(arguments: Sequence[str]) -> str:
    """Return what a program prints. Raises OSError and SubprocessError.

    One that takes too long is killed and not waited for, as subprocess.run() would: in a driver
    that hangs, a process does not go, and with it all would wait who ask for a worker's GPUs.
    """
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace"
    )
    try:
        printed, _ = process.communicate(timeout=_NVIDIA_SMI_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        _unended.append(process)
        assert process.stdout is not None
        process.stdout.close()
        raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(arguments))
    return printed


def choose_devices(wanted: Sequence[int] | None, *, per_slot: int = 1) -> list[str]:
    """Return a device for each slot: 'cuda:0', several GPUs as 'cuda:0,1', or one 'cpu'.

    ``wanted`` are the GPUs to share out by nvidia-smi's numbers, None all of them that
    CUDA_VISIBLE_DEVICES does not exclude; what is left over stays unused. One that is named twice
    is shared by two slots. Raises ValueError naming a wanted GPU that is not there, and where
    they are too few for a slot.
    """
    gpus = list_gpus()
    present = [gpu.index for gpu in gpus]
    for index in wanted or ():
        if index not in present:
            there = ", ".join(map(str, present)) or "none"
            raise ValueError(f"GPU {index} is not on this host; nvidia-smi shows: {there}")
    chosen = _visible(gpus) if wanted is None else list(wanted)
    if not chosen:
        return ["cpu"]
    if len(chosen) < per_slot:
        raise ValueError(f"a slot is to have {per_slot} GPUs, and there are {len(chosen)} to use")
    groups = [
        chosen[i : i + per_slot] for i in range(0, len(chosen) // per_slot * per_slot, per_slot)
    ]
    for group in groups:
        if len(set(group)) < len(group):
            raise ValueError(f"a slot of {per_slot} GPUs would get one of them twice: {group}")
    return ["cuda:" + ",".join(map(str, group)) for group in groups]


def _visible(gpus: Sequence[Gpu]) -> list[int]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES names, by number or UUID; all where it is unset."""
    text = os.environ.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return [gpu.index for gpu in gpus]
    names = [name.strip() for name in text.split(",")]
    return [
        gpu.index
        for name in names
        for gpu in gpus
        if name == str(gpu.index) or (name.startswith("GPU-") and gpu.uuid.startswith(name))
    ]


def shares_gpus(wanted: Sequence[int] | None) -> bool:
    """Tell whether slots share a GPU, as one does that is named twice."""
    return wanted is not None and len(set(wanted)) < len(wanted)


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
        self._view = GpuView()
        self._asked_at: float | None = None

    def gpus(self) -> list[Gpu]:
        """Return the GPUs as they were a moment ago."""
        return list(self.view().gpus)

    def view(self) -> GpuView:
        """Return the GPUs and who computes on them, as they were a moment ago."""
        with self._lock:
            if self._asked_at is None or self._clock() - self._asked_at >= self._max_age_seconds:
                self._ask()
            return self._view

    def view_now(self) -> GpuView:
        """Look anew, for all who ask within the next moment, too."""
        with self._lock:
            self._ask()
            return self._view

    def _ask(self) -> None:
        self._view = view_gpus()
        self._asked_at = self._clock()


def _gpu(row: Sequence[str]) -> Gpu:
    index, name, memory, used, utilisation, uuid = row
    busy = int(utilisation) if utilisation.isdigit() else None
    return Gpu(int(index), name, _mebibytes(memory), _mebibytes(used), busy, uuid)


def _mebibytes(text: str) -> int:
    """Read a figure; a GPU that shares its host's memory says '[N/A]'."""
    return int(text) if text.isdigit() else 0
