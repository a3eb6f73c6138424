"""Carries an attempt's events from its journal to Redis, however long Redis is away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import redis

from adapters.wire import Event
from workers.lease import Lease

logger = logging.getLogger(__name__)

BATCH_EVENTS = 200
BATCH_BYTES = 1024 * 1024
FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 5.0


class _NotOurs(Exception):
    """The lease is another's, or cannot be renewed."""


class Publisher:
    """Follows a journal from an offset and appends what is new to the event stream.

    The file is the buffer: training never waits for Redis, and nothing is held in memory. An
    outage in the middle of a batch publishes it twice; the recorder knows by the sequence
    numbers. What Redis took and then lost is published again when the recorder asks.
    """

    def __init__(
        self,
        lease: Lease,
        journal: Path,
        *,
        start_offset: int,
        on_published: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self._lease = lease
        self._journal = journal
        self._start_offset = start_offset
        self._offset = start_offset
        self._again_from: int | None = None
        self._on_published = on_published
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._gave_up = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="publisher", daemon=True)
        self._thread.start()

    def notify(self) -> None:
        """Say that the journal has grown."""
        self._changed.set()

    def publish_again(self, seq: int) -> None:
        """Publish from this number of the attempt on once more: Redis has lost it."""
        self._again_from = seq
        self._changed.set()

    def flush(self, *, wait_seconds: float) -> bool:
        """Say that nothing more will come, and wait; tell whether all is published."""
        self._closing.set()
        self._changed.set()
        self._thread.join(wait_seconds)
        return not self._thread.is_alive()

    def give_up(self) -> None:
        """Leave what is not published to the file."""
        self._gave_up.set()
        self._thread.join()

    def _follow(self) -> None:
        retry_seconds = FIRST_RETRY_SECONDS
        with self._journal.open("rb") as file:
            while not self._gave_up.is_set():
                try:
                    if not self._publish_next(file):
                        return
                    retry_seconds = FIRST_RETRY_SECONDS
                # A shared disk may refuse a read for a while, too.
                except (_NotOurs, redis.RedisError, OSError) as error:
                    logger.warning("events wait in %s: %s", self._journal, error)
                    self._gave_up.wait(retry_seconds)
                    retry_seconds = min(2 * retry_seconds, LAST_RETRY_SECONDS)

    def _publish_next(self, file: BinaryIO) -> bool:
        """Publish what is there, or wait a little for more; False where all is published."""
        # Cleared before reading: what is appended meanwhile sets it again.
        closing = self._closing.is_set()
        self._changed.clear()
        self._go_back(file)
        lines = self._next_lines(file)
        if lines:
            self._publish(lines)
        elif closing:
            return False
        else:
            self._changed.wait(1.0)
        return True

    def _go_back(self, file: BinaryIO) -> None:
        seq, self._again_from = self._again_from, None
        if seq is None:
            return
        file.seek(self._start_offset)
        offset = self._start_offset
        for line in file:
            if not line.endswith(b"\n") or Event.from_json(line).seq >= seq:
                break
            offset += len(line)
        self._offset = min(offset, self._offset)

    def _next_lines(self, file: BinaryIO) -> list[bytes]:
        file.seek(self._offset)
        lines: list[bytes] = []
        size = 0
        for line in file:
            if not line.endswith(b"\n"):
                break  # being written
            lines.append(line)
            size += len(line)
            if len(lines) == BATCH_EVENTS or size > BATCH_BYTES:
                break
        return lines

    def _publish(self, lines: list[bytes]) -> None:
        if not self._lease.publish([line.rstrip(b"\n") for line in lines]):
            raise _NotOurs("the lease is not ours just now")
        self._offset += sum(len(line) for line in lines)
        for line in lines:
            self._on_published(Event.from_json(line))
