"""The process that does one thing with a job's outputs in the store, seen by who starts it.

Used where the store's library cannot be (a gevent process), and where a wait for it must be
ended at once. See modelyard.store_child for what can be asked.
"""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from modelyard.storage import ObjectDamaged, ObjectMissing, StorageError

logger = logging.getLogger(__name__)

_PART_BYTES = 256 * 1024
_WATCH_SECONDS = 0.1
_ERRORS = {"missing": ObjectMissing, "damaged": ObjectDamaged}

Told = dict[str, Any]


class StoreDiskError(StorageError):
    """This host's disk is full, or cannot be written."""


def ask(store: str, do: str, *, timeout_seconds: float, **request: Any) -> Told:
    """Return the answer to a request. Raises StorageError, also where none comes in time."""
    with asking(store, do, **request) as process:
        for told in process.lines(timeout_seconds=timeout_seconds):
            if "answer" in told:
                answer: Told = told["answer"]
                return answer
    raise StorageError(f"the process that was to {do} in the store {store} ended without a word")


@contextmanager
def asking(store: str, do: str, **request: Any) -> Iterator[StoreProcess]:
    """Have a request done; the process is ended with the block."""
    process = StoreProcess(store, do, **request)
    try:
        yield process
    finally:
        process.close()


class StoreProcess:
    """One request under way."""

    def __init__(self, store: str, do: str, **request: Any) -> None:
        self._what = f"the store {store}"
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "modelyard.store_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.say(json.dumps({"store": store, "do": do, **request}))

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            logger.debug("the process has ended already")

    def lines(
        self, *, timeout_seconds: float = math.inf, unwanted: Callable[[], bool] = lambda: False
    ) -> Iterator[Told]:
        """Yield what it tells, its answer last; ends early once it is ``unwanted``.

        Raises StorageError where the answer is an error, or does not come in time.
        """
        assert self._process.stdout is not None
        ended = threading.Event()
        deadline = time.monotonic() + timeout_seconds

        def watch() -> None:
            while not ended.wait(_WATCH_SECONDS):
                if unwanted() or time.monotonic() > deadline:
                    self._process.kill()
                    return

        threading.Thread(target=watch, name="store-watch", daemon=True).start()
        try:
            while line := self._process.stdout.readline():
                told: Told = json.loads(line)
                if "error" in told:
                    raise _error(told)
                yield told
                if "answer" in told:
                    return
        finally:
            ended.set()
        if time.monotonic() > deadline:
            raise StorageError(f"{self._what} has not answered for {timeout_seconds:g} s")

    def read(self, size: int = _PART_BYTES) -> bytes:
        """Return the next bytes of an object that is streamed, none at its end."""
        assert self._process.stdout is not None
        return self._process.stdout.read(size)

    def close(self) -> None:
        """End it, whatever it is at."""
        self._process.kill()
        self._process.wait()
        for end in (self._process.stdin, self._process.stdout):
            if end is not None:
                try:
                    end.close()
                except OSError:
                    logger.debug("what it was still to be told is dropped")


class ObjectStream:
    """The bytes of an object, as a response sends them: from a place on that may be set before."""

    def __init__(self, process: StoreProcess) -> None:
        self._process = process
        self._start = 0
        self._begun = False

    def seekable(self) -> bool:
        return not self._begun

    def seek(self, start: int) -> None:
        self._start = start

    def tell(self) -> int:
        return self._start

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if not self._begun:
            self._begun = True
            self._process.say(str(self._start))
        if not (part := self._process.read()):
            raise StopIteration
        return part

    def close(self) -> None:
        self._process.close()


def _error(told: Told) -> StorageError:
    if told["error"] in ("disk", "disk_full"):
        return StoreDiskError(told["message"])
    return _ERRORS.get(told["error"], StorageError)(told["message"])
