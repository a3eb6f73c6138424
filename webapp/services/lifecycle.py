"""The one place that changes a job's status.

    pending ──▶ queued ──▶ running ──▶ completed | failed
       │          │  ▲         │  │
       │          │  └─────────┘  └──▶ cancelling ──▶ cancelled (or how the attempt ended)
       └──────────┴──▶ cancelled          a worker that is lost or shuts down: running ──▶ queued

Every change is a compare-and-set on status and attempt, so of two that happen at once exactly
one does; it writes the job's history and tells the browsers, in the same transaction.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from webapp.models import Attempt, Job, JobStatus, StatusChange
from webapp.models.columns import utc_now
from webapp.services import event_log
from webapp.services.statements import affected

S = JobStatus

TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    S.PENDING: frozenset({S.QUEUED, S.CANCELLED}),
    # To itself: where its attempt is over elsewhere (webapp.services.catching_up).
    S.QUEUED: frozenset({S.RUNNING, S.PENDING, S.CANCELLED, S.FAILED, S.QUEUED}),
    S.RUNNING: frozenset({S.COMPLETED, S.FAILED, S.CANCELLING, S.CANCELLED, S.QUEUED}),
    S.CANCELLING: frozenset({S.CANCELLED, S.COMPLETED, S.FAILED, S.CANCELLING}),  # harder
    S.COMPLETED: frozenset(),
    S.FAILED: frozenset({S.QUEUED}),  # resume
    S.CANCELLED: frozenset({S.QUEUED}),  # resume
}


def transition(
    session: Session,
    job: Job,
    *,
    to: JobStatus,
    only_from: frozenset[JobStatus] | None = None,
    attempt: int | None = None,
    next_attempt: bool = False,
    number: int | None = None,
    actor: str,
    reason: str,
    time: datetime | None = None,
    **columns: Any,
) -> bool:
    """Change a job's status if it may be; tell whether it was.

    The job must still be in a status that leads to ``to`` (narrowed by ``only_from``) and at
    ``attempt`` (by default the one it was read with). ``next_attempt`` starts a new attempt
    with the change, by default with the ``number`` after the present one. ``columns`` are set
    with it; whom the job gives its place to is forgotten unless they tell it. The caller commits;
    where False is returned nothing was changed, and ``job`` is as it now stands in the database.
    """
    expected = job.attempt if attempt is None else attempt
    sources = {status for status, targets in TRANSITIONS.items() if to in targets}
    if only_from is not None:
        sources &= only_from
    event_log.lock_order(session)
    now = time or utc_now()
    current = session.scalar(select(Job.status).where(Job.id == job.id, Job.deleted_at.is_(None)))
    if current not in sources:
        session.refresh(job)
        return False
    if not next_attempt:
        number = expected
    elif number is None:
        number = expected + 1
    changed = affected(
        update(Job)
        .where(Job.id == job.id, Job.status == current, Job.attempt == expected)
        .where(Job.deleted_at.is_(None))
        .values({"displaced_by": None, **columns, "status": to, "attempt": number}),
        session=session,
    )
    session.refresh(job)
    if changed != 1:
        return False
    previous = JobStatus(current)
    if next_attempt:
        session.add(Attempt(job_id=job.id, number=number, queued_at=now))
    session.add(
        StatusChange(
            job_id=job.id,
            attempt=number,
            previous=previous,
            status=to,
            time=now,
            actor=actor,
            reason=reason,
        )
    )
    event_log.append(
        session,
        job_id=job.id,
        project_id=job.project_id,
        attempt=number,
        type="status",
        time=now,
        data={"status": str(to), "previous": str(previous)},
    )
    return True


def record_created(session: Session, job: Job, *, actor: str, reason: str) -> None:
    """Write the first line of a new job's history. The caller has flushed and commits."""
    event_log.lock_order(session)
    session.add(
        StatusChange(
            job_id=job.id,
            attempt=0,
            previous=None,
            status=JobStatus.PENDING,
            time=job.created_at,
            actor=actor,
            reason=reason,
        )
    )
    event_log.append(
        session,
        job_id=job.id,
        project_id=job.project_id,
        attempt=0,
        type="status",
        time=job.created_at,
        data={"status": str(JobStatus.PENDING), "previous": None},
    )
