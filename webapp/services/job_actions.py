"""Start, cancel and resume: a change of status, then a word to the executor."""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from modelyard.counting import counted
from webapp.config import settings
from webapp.extensions import db
from webapp.models import Attempt, Job, JobStatus, LastCheckpoint
from webapp.models.columns import utc_now
from webapp.services import event_log
from webapp.services.errors import Refused, Unavailable
from webapp.services.executors import get_executor
from webapp.services.lifecycle import transition

logger = logging.getLogger(__name__)

S = JobStatus


class CancelMode(StrEnum):
    """The three honest stops."""

    AFTER_EPOCH = "after_epoch"
    NOW = "now"
    KILL = "kill"

    def stronger_than(self, other: str | None) -> bool:
        order = list(CancelMode)
        return other is None or order.index(self) > order.index(CancelMode(other))


def start(job: Job, *, actor: str) -> None:
    """Put a pending job on its queue and commit.

    Raises Refused where it is not pending (of two at once, one is refused) and Unavailable,
    the job still pending, where the broker cannot be reached.
    """
    if job.status != S.PENDING:
        raise Refused(f"Cannot start job with status '{job.status}'")
    _enqueue(job, only_from=S.PENDING, actor=actor, reason="started", resume=False)


def resume(job: Job, *, actor: str) -> None:
    """Let a failed or cancelled job go on from its last checkpoint as its next attempt."""
    if job.status not in (S.FAILED, S.CANCELLED):
        raise Refused(f"Cannot resume job with status '{job.status}'")
    if job.attempt == 0:
        raise Refused(f"Job {job.id} was cancelled before it started; clone it instead")
    _require_last(job)
    _enqueue(job, only_from=S(job.status), actor=actor, reason="resumed", resume=True)


def cancel(job: Job, *, mode: CancelMode, actor: str) -> None:
    """Cancel a job and commit: at once where it waits, through its worker where it runs.

    Raises Refused where it has ended, or already stops at least as hard.
    """
    session = db.session()
    now = utc_now()
    reason = f"cancelled ({mode})"
    if transition(
        session, job, to=S.CANCELLED, only_from=frozenset({S.PENDING, S.QUEUED}),
        actor=actor, reason=reason, completed_at=now, cancel_mode=str(mode),
    ):  # fmt: skip
        close_attempt(session, job, outcome="cancelled", reason=reason)
    elif not transition(
        session, job, to=S.CANCELLING, only_from=frozenset({S.RUNNING}),
        actor=actor, reason=reason, cancel_mode=str(mode),
    ) and not _harden(session, job, mode, actor=actor, reason=reason):  # fmt: skip
        session.rollback()
        raise Refused(f"Cannot cancel job with status '{job.status}'")
    session.commit()
    try:
        get_executor().cancel(job)
    except Unavailable:
        # The database has it: the recorder refuses the attempt and tells its worker again.
        logger.warning("job %s: cancel is recorded, but Redis does not answer", job.id)


def close_attempt(session: Session, job: Job, *, outcome: str, reason: str) -> None:
    """Write how the job's present attempt ended, where it never reached a worker."""
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == job.id, Attempt.number == job.attempt)
        .values(ended_at=utc_now(), outcome=outcome, reason=reason)
    )


def _require_last(job: Job) -> None:
    """Raise Refused, with nothing changed, where what a job would go on from is removed."""
    if job.last_checkpoint != LastCheckpoint.KEPT:
        job_id = job.id
        db.session.rollback()
        raise Refused(
            f"The last checkpoint of job {job_id} is gone: after a job's end it is kept for "
            f"{counted(settings().keep_last_days, 'day')} (MODELYARD_KEEP_LAST_DAYS). Clone the "
            "job; the clone trains from the beginning, or from this one's best weights"
        )


def _harden(session: Session, job: Job, mode: CancelMode, *, actor: str, reason: str) -> bool:
    """Let a job that is already cancelling stop harder; of two at once the harder one holds."""
    event_log.lock_order(session)
    session.refresh(job)
    return mode.stronger_than(job.cancel_mode) and transition(
        session, job, to=S.CANCELLING, only_from=frozenset({S.CANCELLING}),
        actor=actor, reason=reason, cancel_mode=str(mode),
    )  # fmt: skip


def _enqueue(job: Job, *, only_from: JobStatus, actor: str, reason: str, resume: bool) -> None:
    executor = get_executor()
    executor.healthy()
    session = db.session()
    kept = ("error", "completed_at", "queued_at")
    before: dict[str, Any] = {name: getattr(job, name) for name in kept}
    changed = transition(
        session, job, to=S.QUEUED, only_from=frozenset({only_from}), next_attempt=True,
        actor=actor, reason=reason, queued_at=utc_now(), completed_at=None, error=None,
        cancel_mode=None, lost_attempts=0, resume=resume, worker=None, device=None,
    )  # fmt: skip
    if not changed:
        session.rollback()
        verb = "resume" if resume else "start"
        raise Refused(f"Cannot {verb} job with status '{job.status}'")
    if resume:
        _require_last(job)  # under the lock: none is removed from now on
    session.commit()
    try:
        executor.start(job)
    except Unavailable:
        # Back to where it was, also where a message got through after all: its attempt is over,
        # and the attempt's number stays used.
        reason = "the broker could not be reached"
        if transition(session, job, to=only_from, actor="web", reason=reason, **before):
            close_attempt(session, job, outcome="not_sent", reason=reason)
        session.commit()
        raise


def send_handed_back(job_id: int) -> None:
    """Send a job that its worker handed back; where Redis is away, the reaper sends it later."""
    job = db.session.get(Job, job_id, populate_existing=True)
    if job is None or job.status != S.QUEUED:
        return
    try:
        get_executor().start(job)
    except Unavailable:
        logger.warning("job %s waits for the broker's return", job_id)
