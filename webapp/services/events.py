"""The event log, read once a process and fanned out to everybody who follows it.

While there are followers, one thread (a greenlet under gevent) asks the database every 150 ms
for what is new. A follower holds a queue in memory and no database connection; one that is too
slow for its queue is dropped, reconnects with Last-Event-ID and gets the rest from the table.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flask import current_app
from sqlalchemy import ColumnElement, Engine, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from adapters.wire import format_time
from webapp.extensions import db
from webapp.models import JobEvent, JobStatus

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.15
_RETRY_SECONDS = 2.0
_BATCH = 500
_QUEUE_SIZE = 2000
_START = threading.Lock()


@dataclass(frozen=True)
class Event:
    """A row of the event log, already in the form in which it goes to each follower."""

    id: int
    job_id: int
    project_id: int
    status: JobStatus | None  # of an event that tells a status
    frame: bytes

    @classmethod
    def of(cls, row: JobEvent) -> Event:
        data = {"job_id": row.job_id, "attempt": row.attempt, "time": format_time(row.time)}
        return cls(
            id=row.id,
            job_id=row.job_id,
            project_id=row.project_id,
            status=JobStatus(row.data["status"]) if row.type == "status" else None,
            frame=frame(row.id, row.type, {**data, **_told(row)}),
        )


@dataclass(frozen=True)
class Topic:
    """What is followed: a job, or a whole project."""

    job_id: int | None = None
    project_id: int | None = None

    def has(self, event: Event) -> bool:
        if self.job_id is not None:
            return event.job_id == self.job_id
        return event.project_id == self.project_id

    def condition(self) -> ColumnElement[bool]:
        if self.job_id is not None:
            return JobEvent.job_id == self.job_id
        return JobEvent.project_id == self.project_id


class Subscription:
    """One follower's queue."""

    def __init__(self, hub: EventHub, topic: Topic) -> None:
        self.topic = topic
        self.lost = False  # too slow: some events are not in the queue
        self._hub = hub
        self._queue: queue.Queue[Event] = queue.Queue(_QUEUE_SIZE)

    def offer(self, event: Event) -> None:
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self.lost = True

    def take(self, timeout_seconds: float) -> Event | None:
        """Return the next event, or None where none came in time."""
        try:
            return self._queue.get(timeout=timeout_seconds)
        except queue.Empty:
            return None

    def close(self) -> None:
        self._hub.forget(self)


class EventHub:
    """Polls the event log while somebody follows."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._lock = threading.Lock()
        self._followers: list[Subscription] = []
        self._last_id: int | None = None  # None: nobody follows, the poller is not running

    def follow(self, topic: Topic) -> Subscription:
        """Return a queue that gets every event of the topic that is stored from here on."""
        subscription = Subscription(self, topic)
        with self._lock:
            if self._last_id is None:
                self._last_id = newest_id(self.engine)
                threading.Thread(target=self._poll, name="event-hub", daemon=True).start()
            # Replaced, never changed: the poller goes through it without the lock.
            self._followers = [*self._followers, subscription]
        return subscription

    def forget(self, subscription: Subscription) -> None:
        with self._lock:
            self._followers = [other for other in self._followers if other is not subscription]

    @property
    def followers(self) -> int:
        return len(self._followers)

    def _poll(self) -> None:
        while True:
            with self._lock:
                if not self._followers:
                    self._last_id = None
                    return
            try:
                pause = 0.0 if self._step() else POLL_SECONDS
            except SQLAlchemyError as error:
                logger.warning("events wait: the database does not answer: %r", error)
                pause = _RETRY_SECONDS
            time.sleep(pause)

    def _step(self) -> bool:
        """Hand out what is new; tell whether there may be more at once."""
        assert self._last_id is not None
        events = read_after(self.engine, self._last_id)
        followers = self._followers
        for event in events:
            for follower in followers:
                if follower.topic.has(event):
                    follower.offer(event)
        if events:
            self._last_id = events[-1].id
        return len(events) == _BATCH


def hub() -> EventHub:
    """Return the hub of this process."""
    with _START:
        found: EventHub | None = current_app.extensions.get("modelyard_event_hub")
        if found is None:
            found = current_app.extensions["modelyard_event_hub"] = EventHub(db.engine)
    return found


def frame(id: int, event: str, data: Mapping[str, Any]) -> bytes:
    """Return an event in the form of `text/event-stream`."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return f"id: {id}\nevent: {event}\ndata: {text}\n\n".encode()


def newest_id(engine: Engine) -> int:
    with Session(engine) as session:
        return session.scalar(select(func.max(JobEvent.id))) or 0


def read_after(engine: Engine, last_id: int, *, topic: Topic | None = None) -> list[Event]:
    """Return the next stored events after an id, in their order."""
    query = select(JobEvent).where(JobEvent.id > last_id).order_by(JobEvent.id).limit(_BATCH)
    if topic is not None:
        query = query.where(topic.condition())
    with Session(engine) as session:
        return [Event.of(row) for row in session.scalars(query)]


def replay(engine: Engine, last_id: int, topic: Topic) -> Iterator[Event]:
    """Yield every stored event of a topic after an id; no connection is held meanwhile."""
    while events := read_after(engine, last_id, topic=topic):
        yield from events
        last_id = events[-1].id


def _told(row: JobEvent) -> dict[str, Any]:
    """Return an event's data as browsers get it: a log as lines, and where it begins."""
    if row.type != "log":
        return row.data
    return {"lines": row.data["text"].removesuffix("\n").split("\n"), "offset": row.log_start}
