"""Keeps jobs off GPUs that somebody else fills or that another worker of the host trains on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import psutil

from modelyard.gpu_holders import Holder, find_holder
from modelyard.gpu_locks import GpuLocks
from modelyard.gpus import GpuView, device_indices, view_gpus

logger = logging.getLogger(__name__)

LOOK_SECONDS = 3.0


class GpuGuard:
    """Looks at a worker's GPUs every few seconds; without GPUs it does nothing."""

    def __init__(
        self,
        devices: Sequence[str],
        *,
        locks: GpuLocks,
        trains_on: Callable[[], Iterable[str]],
        view: Callable[[], GpuView] = view_gpus,
    ) -> None:
        """Guard some devices; ``trains_on`` tells on which of them attempts of ours train."""
        self._indices = frozenset(index for device in devices for index in device_indices(device))
        self._locks = locks
        self._trains_on = trains_on
        self._view = view
        # Processes that outlived their attempt. They are the same where the time of their start is,
        # too: the kernel gives a number out again.
        self._left: frozenset[psutil.Process] = frozenset()
        self._holders: dict[int, Holder] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="gpu-guard", daemon=True)

    def start(self) -> None:
        """Look at once, so that no job is taken blindly, and then go on looking."""
        if self._indices:
            self.look()
            self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def look(self) -> None:
        """Find out who else has which GPU."""
        view = self._view()
        mine = _descendants() - self._left if view.processes else frozenset()
        ours = frozenset(process.pid for process in mine)
        training = {index for device in self._trains_on() for index in device_indices(device)}
        found = {
            gpu.index: holder
            for gpu in view.gpus
            if gpu.index in self._indices
            and (holder := find_holder(gpu, view.of(gpu), ours=ours, trains=gpu.index in training))
        }
        if view.gpus:  # where nvidia-smi shows none at all, it may be nvidia-smi that failed
            shown = {gpu.index for gpu in view.gpus}
            found |= dict.fromkeys(self._indices - shown, Holder("is shown by nvidia-smi no more"))
        for index in sorted(self._indices):
            _tell(index, before=self._holders.get(index), now=found.get(index))
        self._holders = found

    def disown(self, pids: Iterable[int]) -> None:
        """Take processes for somebody else's: they are left of an attempt that has ended."""
        for pid in pids:
            with suppress(psutil.NoSuchProcess):  # it has gone meanwhile
                self._left |= {psutil.Process(pid)}
        self._left = frozenset(process for process in self._left if process.is_running())
        self.look()

    def holder(self, index: int) -> Holder | None:
        """Return who else has a GPU now, another worker or a process."""
        return self._locks.holder(index) or self._holders.get(index)

    def usable(self, device: str) -> bool:
        return not any(self.holder(index) for index in device_indices(device))

    def take(self, device: str, *, job_id: int) -> bool:
        return self._locks.take(device, job_id=job_id)

    def give_back(self, device: str) -> None:
        self._locks.give_back(device)

    def _loop(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            try:
                self.look()
            except Exception:  # else what was seen last would hold for ever
                logger.exception("a look at the GPUs failed")


def _tell(index: int, *, before: Holder | None, now: Holder | None) -> None:
    if now is not None and (before is None or before.pid != now.pid):
        logger.warning("GPU %s %s: no job is taken for it", index, now.text)
    elif before is not None and now is None:
        logger.info("GPU %s is free again", index)


def _descendants() -> frozenset[psutil.Process]:
    """Return this process and all below it."""
    here = psutil.Process()
    return frozenset({here, *here.children(recursive=True)})
