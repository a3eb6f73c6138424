"""What an attempt's processes take of their machine, sampled every few seconds."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import psutil

from modelyard.gpus import Gpu, device_indices
from workers.devices import gpu_watch

logger = logging.getLogger(__name__)

SAMPLE_SECONDS = 3.0


class LoadMeter:
    """Measures a process with all below it: its loader processes, its other ranks."""

    def __init__(
        self,
        pid: int,
        *,
        device: str,
        gpus: Callable[[], Sequence[Gpu]] = gpu_watch.gpus,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pid = pid
        self._gpu_indices = device_indices(device)
        self._gpus = gpus
        self._clock = clock
        self._seen: dict[tuple[int, float], float] = {}  # CPU seconds by pid and time of birth
        self._at = clock()

    @property
    def pids(self) -> set[int]:
        """The processes that were there at the last sample."""
        return {pid for pid, _ in self._seen}

    def sample(self) -> dict[str, Any] | None:
        """Return the load since the last call, None where no process is left."""
        cpu_seconds, memory = self._processes()
        if not cpu_seconds:
            return None
        now = self._clock()
        used = sum(s - self._seen.get(process, 0.0) for process, s in cpu_seconds.items())
        elapsed, self._seen, self._at = now - self._at, cpu_seconds, now
        return {
            # A process that ended since takes its last moments with it.
            "cpu_percent": round(100 * used / elapsed, 1) if elapsed > 0 else 0.0,
            "memory_bytes": memory,
            **self._gpu_load(),
        }

    def _processes(self) -> tuple[dict[tuple[int, float], float], int]:
        """Return the CPU seconds of each process, and the bytes of memory of all."""
        try:
            child = psutil.Process(self._pid)
            group = [child, *child.children(recursive=True)]
        except psutil.Error:
            return {}, 0
        cpu_seconds, memory = {}, 0
        for process in group:
            try:
                times = process.cpu_times()
                memory += _memory(process)
                cpu_seconds[process.pid, process.create_time()] = times.user + times.system
            except psutil.Error:
                continue  # it has just ended
        return cpu_seconds, memory

    def _gpu_load(self) -> dict[str, Any]:
        """Return the load of the slot's GPUs, which are this attempt's alone."""
        known = self._gpus() if self._gpu_indices else ()
        mine = [gpu for gpu in known if gpu.index in self._gpu_indices]
        busy = [gpu.utilisation for gpu in mine if gpu.utilisation is not None]
        return {
            "gpu_percent": round(sum(busy) / len(busy), 1) if busy else None,
            "gpu_memory_bytes": sum(gpu.memory_used for gpu in mine) * 2**20 if mine else None,
        }


class LoadSampler:
    """A side thread that measures, so that a slow nvidia-smi holds nothing up."""

    def __init__(self, meter: LoadMeter, *, name: str) -> None:
        self._meter = meter
        self._samples: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def take(self) -> list[dict[str, Any]]:
        """Return the samples since the last call."""
        samples = []
        while not self._samples.empty():
            samples.append(self._samples.get())
        return samples

    def _loop(self) -> None:
        while not self._stopped.wait(SAMPLE_SECONDS):
            sample = self._meter.sample()
            if sample is not None:
                self._samples.put(sample)


def _memory(process: psutil.Process) -> int:
    """Return a process's memory; of what it shares with others, as the template's, its part."""
    info = process.memory_full_info()
    return int(getattr(info, "pss", info.rss))
