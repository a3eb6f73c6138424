"""Carries an attempt's events from its journal to Redis, however long Redis is away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import redis

from adapters import wire
from adapters.wire import Event

logger = logging.getLogger(__name__)

BATCH_EVENTS = 200
FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 5.0


class Publisher:
    """Follows a journal from an offset and appends what is new to the event stream.

    The file is the buffer: training never waits for Redis, and nothing is held in memory. An
    outage in the middle of a batch publishes its beginning twice; the recorder knows by the
    sequence numbers.
    """

    def __init__(
        self,
        client: redis.Redis,
        journal: Path,
        *,
        start_offset: int,
        on_published: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self._client = client
        self._journal = journal
        self._offset = start_offset
        self._on_published = on_published
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._gave_up = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="publisher", daemon=True)
        self._thread.start()

    def notify(self) -> None:
        """Say that the journal has grown."""
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
                # Cleared before reading: what is appended meanwhile sets it again.
                closing = self._closing.is_set()
                self._changed.clear()
                lines = self._next_lines(file)
                if not lines:
                    if closing:
                        return
                    self._changed.wait(1.0)
                    continue
                try:
                    self._publish(lines)
                    retry_seconds = FIRST_RETRY_SECONDS
                except redis.RedisError as error:
                    logger.warning("events wait in %s: %s", self._journal, error)
                    self._gave_up.wait(retry_seconds)
                    retry_seconds = min(2 * retry_seconds, LAST_RETRY_SECONDS)

    def _next_lines(self, file: BinaryIO) -> list[bytes]:
        file.seek(self._offset)
        lines = []
        for line in file:
            if not line.endswith(b"\n"):
                break  # being written
            lines.append(line)
            if len(lines) == BATCH_EVENTS:
                break
        return lines

    def _publish(self, lines: list[bytes]) -> None:
        pipe = self._client.pipeline(transaction=False)
        for line in lines:
            pipe.xadd(wire.EVENT_STREAM, {"event": line.rstrip(b"\n")})
        pipe.execute()
        self._offset += sum(len(line) for line in lines)
        for line in lines:
            self._on_published(Event.from_json(line))
