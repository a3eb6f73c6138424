"""Live events of a job or a project as `text/event-stream`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask import Response, request
from pydantic import Field
from sqlalchemy import Engine, func, select

from adapters.wire import format_time
from webapp.api.authentication import current_user
from webapp.api.document import problems, resource
from webapp.api.paths import JobPath, ProjectPath
from webapp.api.schemas.base import Query, dump
from webapp.api.schemas.jobs import JobOut
from webapp.extensions import db
from webapp.models import Job, JobEvent, JobStatus
from webapp.models.columns import utc_now
from webapp.services import events, job_view
from webapp.services.errors import NotFound
from webapp.services.events import Subscription, Topic, frame, hub, replay
from webapp.services.jobs import get_job
from webapp.services.projects import get_project

KEEP_ALIVE_SECONDS = 15.0
_SNAPSHOT_JOBS = 200  # the newest of a project; a page shows no more at once

blueprint = resource("events", title="Events", prefix="/api/v1")

_RESPONSES: dict[str | int, Any] = {
    200: {
        "description": (
            "A snapshot, then status, progress, metrics, decided, load, log, artifact and export "
            "events"
        ),
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    **problems(404),
}


class EventsQuery(Query):
    last_event_id: int | None = Field(
        None, ge=0, le=2**63 - 1, description="For clients that cannot send Last-Event-ID"
    )


class EventStream:
    """What one browser reads. Closing it ends the subscription, also before the first event."""

    def __init__(
        self, subscription: Subscription, *, engine: Engine, snapshot: bytes, last_id: int
    ) -> None:
        self._subscription = subscription
        self._engine = engine
        self._snapshot = snapshot
        self._last_id = last_id
        self.resumes = False  # what was stored since last_id is sent first
        self.ended = False  # the job has ended: nothing more will come
        self.ends_with_job = False

    def close(self) -> None:
        self._subscription.close()

    def __iter__(self) -> Iterator[bytes]:
        yield self._snapshot
        if self.resumes:
            yield from self._missed()
        while not (self.ends_with_job and self.ended):
            event = self._subscription.take(KEEP_ALIVE_SECONDS)
            if self._subscription.lost:
                return  # the browser reconnects and gets the rest from the table
            if event is None:
                yield b": still here\n\n"
            elif event.id > self._last_id:
                self._note(event)
                yield event.frame

    def _missed(self) -> Iterator[bytes]:
        for event in replay(self._engine, self._last_id, self._subscription.topic):
            self._note(event)
            yield event.frame

    def _note(self, event: events.Event) -> None:
        self._last_id = event.id
        if event.status is not None:
            self.ended = event.status.ended


@blueprint.get("/training/jobs/<id:job_id>/events", responses=_RESPONSES)
def job(path: JobPath, query: EventsQuery) -> Response:
    """Follow a job; the stream closes when it has ended"""
    get_job(path.job_id, user=current_user())
    if request.method == "HEAD":
        return _response(None)
    subscription = hub().follow(Topic(job_id=path.job_id))
    try:
        stream = _follow_job(subscription, path.job_id, _last_event_id(query))
    except BaseException:
        subscription.close()
        raise
    return _response(stream)


@blueprint.get("/projects/<id:project_id>/events", responses=_RESPONSES)
def project(path: ProjectPath, query: EventsQuery) -> Response:
    """Follow every job of a project"""
    get_project(path.project_id, user=current_user())
    if request.method == "HEAD":
        return _response(None)
    subscription = hub().follow(Topic(project_id=path.project_id))
    try:
        stream = _follow_project(subscription, path.project_id, _last_event_id(query))
    except BaseException:
        subscription.close()
        raise
    return _response(stream)


# One statement reads the job and the newest id: nothing lies between snapshot and stream.
_newest = select(func.max(JobEvent.id)).scalar_subquery()


def _follow_job(subscription: Subscription, job_id: int, last_id: int | None) -> EventStream:
    row = db.session.execute(
        select(Job, _newest).where(Job.id == job_id, Job.deleted_at.is_(None)),
        execution_options={"populate_existing": True},
    ).one_or_none()
    if row is None:
        raise NotFound(f"There is no job {job_id}")
    found, newest = row
    whole = dump(JobOut, job_view.view(found))
    data = {**whole, "job_id": job_id, "time": format_time(utc_now())}
    stream = _stream(subscription, data, newest=newest or 0, last_id=last_id)
    stream.ends_with_job = True
    stream.ended = JobStatus(found.status).ended
    return stream


def _follow_project(
    subscription: Subscription, project_id: int, last_id: int | None
) -> EventStream:
    rows = db.session.execute(
        select(Job, _newest)
        .where(Job.project_id == project_id, Job.is_visible())
        .order_by(Job.id.desc())
        .limit(_SNAPSHOT_JOBS),
        execution_options={"populate_existing": True},
    ).all()
    newest = rows[0][1] if rows else events.newest_id(db.engine)
    jobs = [dump(JobOut, view) for view in job_view.views([row[0] for row in rows])]
    data = {
        "project_id": project_id,
        "job_id": None,
        "attempt": None,
        "time": format_time(utc_now()),
        "jobs": jobs,
    }
    return _stream(subscription, data, newest=newest or 0, last_id=last_id)


def _stream(
    subscription: Subscription, data: dict[str, Any], *, newest: int, last_id: int | None
) -> EventStream:
    # An id from the future is not of this database: begin anew.
    resumes = last_id is not None and last_id <= newest
    start = last_id if resumes and last_id is not None else newest
    snapshot = frame(start, "snapshot", data)
    stream = EventStream(subscription, engine=db.engine, snapshot=snapshot, last_id=start)
    stream.resumes = resumes
    return stream


def _last_event_id(query: EventsQuery) -> int | None:
    text = request.headers.get("Last-Event-ID", "")
    if text.isascii() and text.isdigit() and len(text) < 19:
        return int(text)
    return query.last_event_id


def _response(stream: EventStream | None) -> Response:
    response = Response(stream, mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-cache, no-transform"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would hold the events back
    return response
