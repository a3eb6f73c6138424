"""Attempts that the database does not know of, because it is older than the world around it.

So it is after a backup was restored, and after a power cut that took its last commits. The jobs'
files tell what happened since, and Redis which attempts were begun or given up. Nothing of that
may be begun a second time under the same number: whoever has seen the number refuses it.
"""

from __future__ import annotations

import logging

from webapp.extensions import db
from webapp.models import Job, JobStatus
from webapp.models.columns import utc_now
from webapp.services import event_log, stored_files
from webapp.services.job_actions import close_attempt
from webapp.services.lifecycle import transition
from webapp.services.replay import attempts_in_file, record_rest

logger = logging.getLogger(__name__)

S = JobStatus
_ANY = frozenset(S) - {S.COMPLETED}


def catch_up(job_id: int, *, ask_store: bool = False) -> list[int]:
    """Record all that a job's file tells, of its present attempt and of later ones; commit.

    ``ask_store``: also what the store has, where workers are elsewhere. Returns the later
    attempts. Nobody is told to train: the caller or the reaper does that.
    """
    if not (ask_store and stored_files.used()):
        return _catch_up(job_id)
    db.session.rollback()  # hold no connection meanwhile
    stored_files.fetch_events(job_id)
    try:
        return _catch_up(job_id)
    finally:
        stored_files.forget_events(job_id)


def _catch_up(job_id: int) -> list[int]:
    job = _fresh(job_id)
    known = job.attempt
    if known and not S(job.status).ended:
        record_rest(job_id, known)
    later = [number for number in attempts_in_file(job_id) if number > known]
    for number in later:
        job = _fresh(job_id)
        reason = f"its files tell of attempt {number}, which the database did not know of"
        if job.attempt < number and not begin_attempt(job, number=number, reason=reason):
            break
        record_rest(job_id, number)
    return later


def begin_attempt(
    job: Job, *, number: int, reason: str, only_from: frozenset[JobStatus] = _ANY
) -> bool:
    """Let a job's attempt with this number begin and commit, whatever came before it.

    False where the job has come as far by itself, or is not in one of these statuses any more.
    """
    session = db.session()
    event_log.lock_order(session)
    session.refresh(job)
    if job.attempt >= number or job.status not in only_from:
        session.rollback()
        return False
    if job.status in (S.QUEUED, S.RUNNING, S.CANCELLING):
        close_attempt(session, job, outcome="lost", reason=reason)
    if job.status == S.CANCELLING:
        transition(
            session, job, to=S.CANCELLED, actor="recorder", reason=reason, completed_at=utc_now()
        )
    begun = transition(
        session, job, to=S.QUEUED, next_attempt=True, number=number, actor="recorder",
        reason=reason, resume=number > 1, worker=None, device=None, completed_at=None, error=None,
        cancel_mode=None, queued_at=job.queued_at or utc_now(),
    )  # fmt: skip
    session.commit()
    logger.warning("job %s is at attempt %s now: %s", job.id, job.attempt, reason)
    return begun


def _fresh(job_id: int) -> Job:
    db.session.rollback()
    return db.session.get_one(Job, job_id, populate_existing=True)
