"""A data set that this host does not see is had from the store, before an attempt's child starts.

Of several attempts on a host that need the same one, one fetches it and the others wait; each holds
it in the cache as long as it trains.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from adapters.contract import ErrorKind, TrainingError, TrainingJob
from adapters.data.description import DatasetError
from adapters.data.roots import resolve_inside
from adapters.data.unpack import in_words
from adapters.wire import EventType
from modelyard.settings import Settings
from workers.dataset_cache import DatasetCache, cache_of
from workers.stopping import StopRequest
from workers.supervisor import EventSink

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2
LOG_EVERY_SECONDS = 5.0


class FetchStopped(Exception):
    """The attempt was asked to stop while its data set was fetched."""


@contextmanager
def dataset_at_hand(
    job: TrainingJob, *, settings: Settings, sink: EventSink, stop: StopRequest
) -> Iterator[TrainingJob]:
    """Yield the job with a data set that is here, and keep it here meanwhile.

    The one below this host's own data folders where it lies there, else one from the store, if
    there is a store. Raises TrainingError where it cannot be had, and FetchStopped.
    """
    if not settings.store or job.dataset_fingerprint is None or _lies_here(job, settings):
        yield job
        return
    path, lock = _Attempt(job, cache_of(settings), settings, sink, stop).have()
    try:
        yield dataclasses.replace(job, data_path=path)
    finally:
        os.close(lock)


def _lies_here(job: TrainingJob, settings: Settings) -> bool:
    try:
        resolve_inside(job.dataset_path, settings.dataset_roots)
    except DatasetError:
        return False
    return True


class _Attempt:
    """One attempt that needs a data set."""

    def __init__(
        self,
        job: TrainingJob,
        cache: DatasetCache,
        settings: Settings,
        sink: EventSink,
        stop: StopRequest,
    ) -> None:
        assert job.dataset_fingerprint is not None
        self._job = job
        self._fingerprint = job.dataset_fingerprint
        self._cache = cache
        self._settings = settings
        self._sink = sink
        self._stop = stop
        self._told_at = -LOG_EVERY_SECONDS
        self._moved: tuple[Any, float] = (None, time.monotonic())

    def have(self) -> tuple[Path, int]:
        """Return where the data set is, and the lock that keeps it there."""
        waited = False
        while True:
            if (found := self._cache.use(self._fingerprint)) is not None:
                return found
            if (lock := self._cache.begin(self._fingerprint)) is not None:
                try:
                    # Another may have fetched it since we looked.
                    if not self._cache.has(self._fingerprint):
                        self._fetch(lock)
                finally:
                    os.close(lock)
                continue  # between the two locks it may have been removed: then it is fetched again
            if not waited:
                waited = True
                self._log("Another job on this host is fetching the same data set: waiting for it")
            self._look_for_stop()
            time.sleep(POLL_SECONDS)

    def _fetch(self, lock: int) -> None:
        self._log("The data set does not lie on this host: it is fetched from the store")
        began = time.monotonic()
        process = self._start(lock)
        try:
            answer = self._listen(process)
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        if answer is None:
            raise TrainingError(
                ErrorKind.STORAGE,
                f"The process that fetched the data set ended with status {process.returncode}",
                hint="The worker's own log may tell more.",
            )
        if "error" in answer:
            error = answer["error"]
            raise TrainingError(ErrorKind(error["kind"]), error["message"], hint=error["hint"])
        self._log(f"The data set is here, after {time.monotonic() - began:.1f} s")

    def _start(self, lock: int) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers.fetch"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[lock],  # the lock is free only when nothing of it is left
        )
        asked = {
            "store": self._settings.store,
            "cache": os.fspath(self._cache.folder),
            "limit_bytes": self._settings.data_cache_bytes,
            "fingerprint": self._fingerprint,
        }
        assert process.stdin is not None
        try:
            with process.stdin as pipe:
                pipe.write(json.dumps(asked).encode() + b"\n")
        except BrokenPipeError:
            logger.debug("the fetching process has ended already")
        return process

    def _listen(self, process: subprocess.Popen[bytes]) -> dict[str, Any] | None:
        """Pass on what the process tells; return its answer, None where it ended without one."""
        assert process.stdout is not None
        self._moved = (None, time.monotonic())
        buffer = b""
        descriptor = process.stdout.fileno()
        while True:
            self._look_for_stop()
            self._look_for_stall()
            if not wait([descriptor], timeout=POLL_SECONDS):
                continue
            data = os.read(descriptor, 65536)
            if not data:
                return None
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                told: dict[str, Any] = json.loads(line)
                if "fetched" in told or "error" in told:
                    return told
                self._tell(told)

    def _tell(self, told: dict[str, Any]) -> None:
        if "note" in told:
            self._log(told["note"])
            return
        phase, done, total = told["phase"], told["done"], told["total"]
        now = time.monotonic()
        if (phase, done) != self._moved[0]:
            self._moved = ((phase, done), now)
        if now - self._told_at < LOG_EVERY_SECONDS or not total:
            return
        self._told_at = now
        percent = 100 * done // total
        what = f"{percent} % of {in_words(total)}" if phase == "fetching" else f"{percent} %"
        self._log(f"{phase} the data set: {what}".capitalize())

    def _look_for_stop(self) -> None:
        if self._stop.current is not None:
            raise FetchStopped

    def _look_for_stall(self) -> None:
        limit = self._settings.stall_seconds
        if 0 < limit < time.monotonic() - self._moved[1]:
            raise TrainingError(
                ErrorKind.STALLED,
                f"The fetch of the data set has not moved for {limit:g} s",
                hint="Look at the store, and at the worker's disk and network.",
            )

    def _log(self, line: str) -> None:
        self._sink(EventType.LOG, {"lines": [line]})
