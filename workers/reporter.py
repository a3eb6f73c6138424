"""The child's side of the pipe: what an adapter reports becomes messages to the supervisor."""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from adapters.contract import StopReason, TrainingJob
from adapters.wire import EventType
from modelyard.gpus import device_indices
from workers.pace import Pace

PROGRESS_INTERVAL_SECONDS = 0.25


class PipeReporter:
    """A Reporter that writes to the supervisor's pipe and hears its requests to stop."""

    def __init__(
        self,
        job: TrainingJob,
        events: Connection,
        *,
        wait_until_kept: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Report a job's events; ``wait_until_kept`` waits until the last metrics are on disk."""
        self._job = job
        self._events = events
        self._wait_until_kept = wait_until_kept
        self._clock = clock
        self._send_lock = threading.Lock()
        self._stop: StopReason | None = None
        self._last_sent = -math.inf
        self._images_per_second: float | None = None
        self._pace = Pace(job.epochs, clock=clock)

    def progress(
        self,
        *,
        epoch: int,
        step: int,
        steps: int,
        images_per_second: float | None = None,
        phase: str = "train",
    ) -> None:
        done = (epoch - 1) + (1.0 if phase != "train" else step / max(steps, 1))
        self._pace.update(epoch=epoch, step=step, steps=steps, phase=phase)
        now = self._clock()
        if now - self._last_sent < PROGRESS_INTERVAL_SECONDS and step < steps:
            return
        self._last_sent = now
        if images_per_second is not None:
            self._images_per_second = round(images_per_second, 1)
        self._send(
            EventType.PROGRESS,
            {
                "epoch": epoch,
                "epochs": self._job.epochs,
                "step": step,
                "steps": steps,
                "phase": phase,
                "percent": round(100 * min(done / self._job.epochs, 1.0), 2),
                "eta_seconds": self._pace.eta_seconds(),
                "images_per_second": self._images_per_second,  # validation keeps the last
                "device_memory_bytes": self._device_memory(),
            },
        )

    def _device_memory(self) -> int | None:
        """Return the most that this process has held of its GPUs so far, None on a CPU."""
        torch = sys.modules.get("torch")  # never imported here: an adapter may do without
        if torch is None or not torch.cuda.is_initialized():
            return None
        indices = device_indices(self._job.compute_device)
        # The child of one of several ranks sees them all, and holds only its own.
        return sum(torch.cuda.max_memory_reserved(index) for index in indices) or None

    def metrics(self, *, epoch: int, values: Mapping[str, float], step: int | None = None) -> None:
        finite = {}
        for name, value in values.items():
            if math.isfinite(value):
                finite[name] = float(value)
            else:
                self.log(f"epoch {epoch}: {name} is {value} and is left out")
        self._send(EventType.METRICS, {"epoch": epoch, "step": step, "values": finite})
        # The checkpoint that follows tells the next attempt to skip this epoch: its metrics must
        # not be lost in the pipe, should the supervisor be killed or stopped just now.
        self._wait_until_kept()

    def decided(self, name: str, value: float | str, *, why: str) -> None:
        self.log(f"{name} is {value}: {why}")
        self._send(EventType.DECIDED, {"name": name, "value": value, "why": why})

    def artifact(self, path: Path, *, kind: str) -> None:
        self._send(EventType.ARTIFACT, {"path": str(path), "kind": kind})

    def log(self, line: str) -> None:
        sys.stdout.write(f"{line}\n")  # stdout is the log, so the library's lines keep their order

    def should_stop(self) -> StopReason | None:
        return self._stop

    def request_stop(self, reason: StopReason) -> None:
        """Remember why to stop; called by the thread that hears the supervisor."""
        self._stop = reason

    def finish(self, message: Mapping[str, Any]) -> None:
        """Send how training ended; only files that follow from it are told of after this."""
        self._send(EventType.FINISHED, message)

    def _send(self, type: EventType, data: Mapping[str, Any]) -> None:
        text = json.dumps({"type": str(type), "data": data}, allow_nan=False)
        with self._send_lock:
            self._events.send_bytes(text.encode())
