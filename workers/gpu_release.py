"""An attempt is over when its GPUs have let go of its memory, which is seen, not taken for granted.

The driver frees what a process held only after the process has gone, and a process in a wedged
driver does not go at all. So at an attempt's end nvidia-smi is asked until it lists none of the
attempt's processes and shows no more memory that it ascribes to nobody than there was before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from modelyard.gpu_holders import gigabytes, process_name
from modelyard.gpus import Gpu, GpuView, device_indices, view_gpus

RELEASE_SECONDS = 30.0  # so long is waited
LEAVING_SECONDS = 3.0  # by a worker that shuts down
LOOK_SECONDS = 0.2
SLACK_MIB = 512  # what a driver may keep, or a desktop take meanwhile


@dataclass(frozen=True)
class Held:
    """What an attempt has left on its GPUs; ``text`` is a sentence."""

    text: str
    pids: frozenset[int]


class GpuRelease:
    """Watches the GPUs of one attempt, on a CPU nothing."""

    def __init__(
        self,
        device: str,
        *,
        alone: bool = True,
        view: Callable[[], GpuView] = view_gpus,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Look how a slot's GPUs are before the attempt; ``alone``: no other slot is on them."""
        self._indices = device_indices(device)
        self._alone = alone
        self._view = view
        self._clock = clock
        self._before = self._nameless(view()) if self._indices and alone else {}

    def wait(self, pids: Iterable[int], *, at_most: Callable[[], float]) -> Held | None:
        """Wait until nothing of the attempt is left; return what still is after so many seconds.

        ``at_most()`` may grow shorter meanwhile.
        """
        if not self._indices:
            return None
        began, mine = self._clock(), frozenset(pids)
        while (held := self._held(mine)) and self._clock() - began < at_most():
            time.sleep(LOOK_SECONDS)
        return held

    def _held(self, mine: frozenset[int]) -> Held | None:
        view = self._view()
        nameless = self._nameless(view)
        for gpu in self._gpus(view):
            listed = [process for process in view.of(gpu) if process.pid in mine]
            if listed:
                who = ", ".join(f"{p.pid} ({process_name(p.pid) or 'gone'})" for p in listed)
                memory = sum(process.memory or 0 for process in listed)
                what = gigabytes(memory) if memory else "memory"
                text = f"GPU {gpu.index} still has {what} held by process {who} of this attempt"
                return Held(text, frozenset(p.pid for p in listed))
            more = nameless[gpu.index] - self._before.get(gpu.index, gpu.memory_used)
            if more > SLACK_MIB:
                text = f"GPU {gpu.index} has {gigabytes(more)} more in use than before this attempt"
                return Held(f"{text}, held by nobody that nvidia-smi names", frozenset())
        return None

    def _gpus(self, view: GpuView) -> list[Gpu]:
        return [gpu for gpu in view.gpus if gpu.index in self._indices]

    def _nameless(self, view: GpuView) -> dict[int, int]:
        """Return the MiB in use on each GPU that no listed process is said to hold."""
        return {
            gpu.index: gpu.memory_used - sum(p.memory or 0 for p in view.of(gpu))
            for gpu in self._gpus(view)
        }
