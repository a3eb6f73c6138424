"""Finds what the queue forgot: attempts whose worker is gone, and jobs no message speaks of.

Runs inside the recorder, between two batches, so that what a worker said last is recorded
before it is judged.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import and_, or_, select

from adapters import wire
from adapters.contract import ErrorKind
from webapp.config import settings
from webapp.extensions import db
from webapp.models import Attempt, Job, JobStatus
from webapp.models.columns import utc_now
from webapp.services import dataset_copies, event_log
from webapp.services.broker import redis_client
from webapp.services.catching_up import begin_attempt, catch_up
from webapp.services.errors import Unavailable
from webapp.services.executors import get_executor, message_queue
from webapp.services.job_actions import close_attempt, send_handed_back
from webapp.services.lifecycle import transition
from webapp.services.message_order import task_ids
from webapp.services.retrying import limit_reached
from webapp.services.waiting import TURN_ORDER

logger = logging.getLogger(__name__)

S = JobStatus
_UNDER_WAY = frozenset({S.QUEUED, S.RUNNING, S.CANCELLING})
RESEND_AFTER_SECONDS = 20.0
AT_ONCE_SECONDS = 2.0  # nothing is recorded meanwhile; what is left comes at the next look

# KEYS: lease, fence. ARGV: new fence, seconds. Gives an attempt up, unless its lease lives.
_GIVE_UP = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
if tonumber(redis.call('GET', KEYS[2]) or '0') < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
end
return 1
"""


class Reaper:
    """Requeues lost attempts and sends again what the broker does not have."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._trusted_at = clock() + wire.LEASE_SECONDS
        self._seen_over: set[tuple[int, int]] = set()  # queued attempts that Redis says are over

    def redis_was_away(self) -> None:
        """Hold still for one lease time: workers first get to renew what Redis lost."""
        self._trusted_at = self._clock() + wire.LEASE_SECONDS

    def suspects(self) -> list[tuple[int, int]]:
        """Return the running attempts without a lease. Raises RedisError."""
        if self._clock() < self._trusted_at or _redis_is_fresh():
            return []
        jobs = _jobs_in(S.RUNNING, S.CANCELLING)
        leased = _leased_attempts([job.id for job in jobs])
        return [(job.id, job.attempt) for job, held in zip(jobs, leased, strict=True) if not held]

    def give_up(self, suspects: Iterable[tuple[int, int]]) -> None:
        """End the suspects that are still running, the stream's backlog now being recorded."""
        ends_at = self._clock() + AT_ONCE_SECONDS
        for job_id, attempt in suspects:
            if self._clock() > ends_at:
                return  # a store that is away lets each of them wait for its events
            job = db.session.get(Job, job_id, populate_existing=True)
            if job is None or job.attempt != attempt:
                continue
            if job.status not in (S.RUNNING, S.CANCELLING) or not _fence(job):
                continue
            give_up_or_conclude(job, reason=f"worker {job.worker} was lost")

    def send_again(self) -> None:
        """Put on the queue what the database calls queued and the broker does not have."""
        seen_over, self._seen_over = self._seen_over, set()
        lost = forgotten()
        ends_at = self._clock() + AT_ONCE_SECONDS  # from here: a look at many may take that long
        for job_id in lost:
            if self._clock() > ends_at:
                return
            # Its worker may have died right after it began: then the file tells of the attempt.
            catch_up(job_id)
            job = db.session.get_one(Job, job_id, populate_existing=True)
            if job.status == S.QUEUED and self._may_train(job, seen_over=seen_over):
                logger.warning("job %s is queued and the broker does not have it", job.id)
                get_executor().start(job)

    def _may_train(self, job: Job, *, seen_over: set[tuple[int, int]]) -> bool:
        """Tell whether a queued job's attempt may begin; let another begin where it never may.

        Redis says that the attempt is over. What was said of it may just be arriving; where it
        still is not there at the next look, the database has lost it, or is an older one.
        """
        client: Any = redis_client()
        fence = int(client.get(wire.fence_key(job.id)) or 0)
        if fence <= job.attempt:
            return True
        self._seen_over.add((job.id, job.attempt))
        if (job.id, job.attempt) not in seen_over:
            return False
        reason = f"attempt {job.attempt} was over, which the database did not know of"
        return begin_attempt(job, number=fence, reason=reason, only_from=frozenset({S.QUEUED}))

    def follow_workers(self) -> None:
        """Bring jobs to the attempt that a worker trains, where the database has an earlier one."""
        known = select(Job.id, Job.attempt).where(Job.status.in_(_UNDER_WAY))
        jobs = db.session.execute(known).all()
        leased = _leased_attempts([job_id for job_id, _ in jobs])
        ends_at = self._clock() + AT_ONCE_SECONDS
        for (job_id, attempt), number in zip(jobs, leased, strict=True):
            if number > attempt and self._clock() <= ends_at:
                catch_up(job_id, ask_store=True)
                job = db.session.get_one(Job, job_id, populate_existing=True)
                reason = f"a worker trains attempt {number}, which the database did not know of"
                begin_attempt(job, number=number, reason=reason, only_from=_UNDER_WAY)

    def repeat_cancels(self) -> None:
        """Tell workers again what is to be cancelled, in case Redis was away or lost it."""
        for job in _jobs_in(S.CANCELLING):
            get_executor().cancel(job)


def give_up_or_conclude(job: Job, *, reason: str) -> None:
    """End an attempt whose worker is gone: as its file says, where it says so, else as lost.

    The file has what was said after the last word that Redis passed on: metrics of an epoch, the
    end itself. Nobody writes to it any more, or what is written no longer counts.
    """
    attempt = job.attempt
    catch_up(job.id, ask_store=True)
    job = db.session.get_one(Job, job.id, populate_existing=True)
    if job.status == S.QUEUED and job.attempt != attempt:
        send_handed_back(job.id)
    if job.attempt == attempt and job.status in (S.RUNNING, S.CANCELLING):
        give_up_attempt(job, reason=reason)


def give_up_attempt(job: Job, *, reason: str) -> None:
    """End a lost attempt and commit: requeue its job, or fail it after too many."""
    session = db.session()
    number = job.attempt
    event_log.lock_order(session)
    session.refresh(job)
    if job.attempt != number:  # another recorder was faster, and the next attempt may train
        session.rollback()
        return
    lost = job.lost_attempts + 1
    limit = settings().max_attempts
    close_attempt(session, job, outcome="lost", reason=reason)
    if job.status == S.CANCELLING:
        done = transition(
            session, job, to=S.CANCELLED, actor="reaper", reason=reason, completed_at=utc_now()
        )
    elif lost >= limit:
        error = {
            "kind": str(ErrorKind.WORKER_LOST),
            "message": f"{reason}; {limit_reached(lost, limit)}",
            "hint": "Look at the worker's own log for why it dies, then resume the job.",
        }
        done = transition(
            session, job, to=S.FAILED, actor="reaper", reason=error["message"], error=error,
            lost_attempts=lost, completed_at=utc_now(),
        )  # fmt: skip
    else:
        done = transition(
            session, job, to=S.QUEUED, only_from=frozenset({S.RUNNING}), next_attempt=True,
            actor="reaper", reason=reason, lost_attempts=lost, resume=True, worker=None,
            device=None,
        )  # fmt: skip
    if not done:
        session.rollback()
        return
    session.commit()
    logger.warning("job %s attempt %s: %s; now %s", job.id, number, reason, job.status)
    if job.status == S.QUEUED:
        try:
            get_executor().start(job)
        except Unavailable:
            logger.warning("job %s waits for the broker's return", job.id)


def forgotten() -> list[int]:
    """Return the jobs that were to be sent a while ago, have no message, and train nowhere.

    In their order: sent so, none has to be moved before another. Thousands may wait, and this is
    asked every few seconds: nothing is asked job by job.
    """
    now, pause = utc_now(), timedelta(seconds=RESEND_AFTER_SECONDS)
    # By the clock of the worker that handed it back: one that is fast must not delay a job.
    limit, ahead = now - pause, now + pause
    statement = (
        select(Job.id, Job.attempt, Job.queue, Job.framework, Job.device_choice)
        .join(Attempt, and_(Attempt.job_id == Job.id, Attempt.number == Job.attempt))
        .where(Job.status == S.QUEUED, or_(Attempt.queued_at <= limit, Attempt.queued_at > ahead))
        .order_by(*TURN_ORDER)
    )
    if dataset_copies.needed():
        statement = statement.where(~dataset_copies.is_held_back())
    waiting = db.session.execute(statement).all()
    queues = {message_queue(job) for job in waiting}
    present = {id for queue in queues for id in task_ids(queue)}
    lost = [job.id for job in waiting if wire.task_id(job.id, job.attempt) not in present]
    return [id for id, number in zip(lost, _leased_attempts(lost), strict=True) if not number]


def _jobs_in(*statuses: JobStatus) -> list[Job]:
    statement = select(Job).where(Job.status.in_(statuses)).order_by(Job.id)
    jobs = db.session.scalars(statement, execution_options={"populate_existing": True})
    return list(jobs)


def _leased_attempts(job_ids: Sequence[int]) -> list[int]:
    """Return the attempt that each job's lease is for; 0 where it has none."""
    if not job_ids:
        return []
    values: Any = redis_client().mget([wire.lease_key(job_id) for job_id in job_ids])
    return [int(value.partition(":")[0]) if value else 0 for value in values]


def _fence(job: Job) -> bool:
    keys = [wire.lease_key(job.id), wire.fence_key(job.id)]
    script = redis_client().register_script(_GIVE_UP)
    return bool(script(keys=keys, args=[job.attempt + 1, wire.FENCE_TTL_SECONDS]))


def _redis_is_fresh() -> bool:
    """Tell whether Redis started so recently that its leases may be missing."""
    info = redis_client().info("server")
    return int(info["uptime_in_seconds"]) < wire.LEASE_SECONDS
