"""Exports: a person's wish for a job's model in another form, until it is a file or a reason.

The database says what is wanted. In `celery` mode a message goes to the framework's workers, and
the recorder looks for its answer (:func:`follow`), sends it again where Redis lost it, and ends
one whose worker is gone. In `subprocess` mode the recorder of this host exports itself.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from adapters import wire
from adapters.contract import ErrorKind
from adapters.wire import AskKind, ExportFormat
from webapp.extensions import db
from webapp.models import Artifact, Export, Job
from webapp.models.columns import utc_now
from webapp.services import broker, event_log, tools
from webapp.services.errors import Unavailable
from webapp.services.statements import affected

logger = logging.getLogger(__name__)

REQUESTED, RUNNING, COMPLETED, FAILED = "requested", "running", "completed", "failed"
_ACTIVE = (REQUESTED, RUNNING)
_MOST_WAITING = timedelta(hours=1)
_WIRE_SECONDS = 2 * 3600.0  # for how long a message is good; the database judges before


def request_export(job: Job, *, format: ExportFormat, actor: str) -> Export:
    """Ask for an export and commit; one that is on its way already is returned as it is.

    Raises Conflict where the job has no model, Unavailable where nobody could export it.
    """
    tools.require_model(job)
    if broker.uses_broker():
        tools.require_worker(job.framework)
    session = db.session()
    event_log.lock_order(session)  # of two who ask at once, the second finds the first's
    session.refresh(job)
    active = session.scalar(
        select(Export).where(
            Export.job_id == job.id, Export.format == format, Export.status.in_(_ACTIVE)
        )
    )
    if active is not None:
        session.rollback()
        session.refresh(active)
        return active
    export = Export(job_id=job.id, format=str(format), status=REQUESTED, requested_by=actor)
    session.add(export)
    session.flush()
    _tell(session, job, export)
    session.commit()
    if broker.uses_broker():
        try:
            tools.send(job.framework, export_request(job, export))
        except Unavailable as error:
            end(export.id, error={"kind": "broker", "message": error.detail, "hint": "Try again."})
            raise
    return export


def list_exports(job: Job) -> list[Export]:
    """Return a job's exports, the newest first."""
    return list(
        db.session.scalars(select(Export).where(Export.job_id == job.id).order_by(Export.id.desc()))
    )


def active(*statuses: str) -> Sequence[tuple[Export, Job]]:
    """Return the exports that are on their way, the oldest first, with their jobs."""
    rows = db.session.execute(
        select(Export, Job)
        .join(Job, Job.id == Export.job_id)
        .where(Export.status.in_(statuses or _ACTIVE))
        .order_by(Export.id),
        execution_options={"populate_existing": True},
    )
    return [(export, job) for export, job in rows.all()]


def export_request(job: Job, export: Export) -> dict[str, Any]:
    """Return what is asked of a tool process."""
    request = tools.ask(job, AskKind.EXPORT, seconds=_WIRE_SECONDS, request_id=request_id(export))
    return {**request, "format": export.format}


def request_id(export: Export) -> str:
    """Return what Redis knows an export by; a number alone may be given again.

    So it is on SQLite after the newest one went with its job, and after a backup was restored.
    """
    return f"export-{export.id}-{export.requested_at:%Y%m%dT%H%M%S%f}"


def begin(export_id: int) -> bool:
    """Note that an export has begun and commit; tell whether it had not before."""
    return _change(export_id, only_from=(REQUESTED,), status=RUNNING)


def end(
    export_id: int,
    *,
    answer: dict[str, Any] | None = None,
    error: dict[str, str] | None = None,
) -> None:
    """Record how an export ended and commit: its artifact, or what went wrong."""
    if answer is not None:
        error = answer.get("error")
    values: dict[str, Any] = {"completed_at": utc_now(), "error": error, "status": FAILED}
    artifact = None
    if error is None and answer is not None:
        artifact = answer["artifact"]
        values |= {
            "status": COMPLETED,
            "artifact": artifact["name"],
            "largest_difference": answer["largest_difference"],
        }
    _change(export_id, only_from=_ACTIVE, artifact_row=artifact, **values)


def follow() -> None:
    """Bring the exports that workers are at up to date. Raises RedisError, Unavailable."""
    for export, job in active():
        _follow(export, job)


def _follow(export: Export, job: Job) -> None:
    client = broker.redis_client()
    name = request_id(export)
    answer = cast("str | None", client.lindex(wire.answer_key(name), 0))
    if answer is not None:
        end(export.id, answer=json.loads(answer))
        client.delete(wire.answer_key(name))
        return
    if client.exists(wire.asked_key(name)):
        if export.status == REQUESTED:
            begin(export.id)
        return
    if export.status == RUNNING:
        # The answer is written before the claim ends: look once more, for it may have come now.
        if not client.exists(wire.answer_key(name)):
            end(export.id, error=_lost("Its worker was lost"))
        return
    if export.requested_at < utc_now() - _MOST_WAITING:
        end(export.id, error=_lost(f"No worker of the framework '{job.framework}' took it"))
    elif not _waits_in_redis(job.framework, name):
        logger.warning("export %s is requested and Redis does not have it: sent", export.id)
        tools.send(job.framework, export_request(job, export))


def _waits_in_redis(framework: str, name: str) -> bool:
    """Tell whether a request is in the list, or was just taken from it."""
    client = broker.redis_client()
    key = wire.ask_key(framework, AskKind.EXPORT)
    waiting = cast("list[str]", client.lrange(key, 0, -1))
    return any(json.loads(text).get("id") == name for text in waiting) or bool(
        client.exists(wire.asked_key(name)) or client.exists(wire.answer_key(name))
    )


def _change(
    export_id: int,
    *,
    only_from: Sequence[str],
    artifact_row: dict[str, Any] | None = None,
    **values: Any,
) -> bool:
    session = db.session()
    event_log.lock_order(session)
    statement = update(Export).where(Export.id == export_id, Export.status.in_(only_from))
    if affected(statement.values(**values), session=session) != 1:
        session.rollback()
        return False
    export = session.get(Export, export_id, populate_existing=True)
    assert export is not None
    job = session.get(Job, export.job_id, populate_existing=True)
    assert job is not None
    if artifact_row is not None:
        _keep(session, job, artifact_row)
    _tell(session, job, export)
    session.commit()
    return True


def _keep(session: Session, job: Job, artifact: dict[str, Any]) -> None:
    now = utc_now()
    earlier = delete(Artifact).where(Artifact.job_id == job.id, Artifact.name == artifact["name"])
    session.execute(earlier)
    session.add(Artifact(job_id=job.id, attempt=job.attempt, created_at=now, **artifact))
    told = {"name": artifact["name"], "kind": artifact["kind"]}
    _append(session, job, "artifact", told, time=now)


def _tell(session: Session, job: Job, export: Export) -> None:
    told = {
        "export_id": export.id,
        "format": export.format,
        "status": export.status,
        "artifact": export.artifact,
        "largest_difference": export.largest_difference,
    }
    _append(session, job, "export", told, time=utc_now())


def _append(session: Session, job: Job, type: str, data: dict[str, Any], *, time: datetime) -> None:
    event_log.append(
        session,
        job_id=job.id,
        project_id=job.project_id,
        attempt=job.attempt,
        type=type,
        time=time,
        data=data,
    )


def _lost(message: str) -> dict[str, str]:
    return {"kind": str(ErrorKind.WORKER_LOST), "message": message, "hint": "Ask for it again."}
