"""Urgent jobs that take another's place: who gives it, and to whom.

A queued job with ``preempt`` for which no slot is free or about to be has the least urgent of the
jobs that run on the workers it can go to asked for its place. That one writes a checkpoint and is
queued again; the message of the urgent one, which goes first, is what its worker reads next.

Runs in the recorder, which has its turn; what was decided is in the database (``displaced_by``),
so another recorder goes on from there and asks for no second place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

from sqlalchemy import Row, and_, func, or_, select
from sqlalchemy.orm import Session

from adapters import wire
from webapp.extensions import db
from webapp.models import Job, JobStatus
from webapp.models.columns import utc_now
from webapp.services import broker, event_log
from webapp.services.executors import message_queue
from webapp.services.job_actions import CancelMode, send_handed_back
from webapp.services.message_order import Sent, task_ids
from webapp.services.waiting import TURN_ORDER, Workers, can_take, seconds_left

logger = logging.getLogger(__name__)

S = JobStatus
EVERY_SECONDS = 1.0  # a recorder looks
# To write a checkpoint and to go on from it may take as long: who ends sooner is not displaced.
ABOUT_TO_END_SECONDS = 5.0
# A worker that is silent for longer may be dead.
HEARD_SECONDS = 2.5 * wire.WORKER_HEARTBEAT_SECONDS
_PREEMPT_TTL_SECONDS = 60  # it is told again every second
# A look may take this share of a processor: with thousands of jobs ahead of an urgent one it is
# longer, and what was decided holds until the next. Not of the time that passes: on a busy machine
# places would be asked for late.
SHARE_OF_TIME = 0.1
# Of jobs that wait, here and in can_take.
_LOOKED_AT = (
    Job.id, Job.attempt, Job.priority, Job.preempt, Job.queue, Job.framework, Job.model_name,
    Job.device_choice,
)  # fmt: skip
_READ_AT_ONCE = 200

Waiting = Job | Row[*tuple[Any, ...]]


def follow() -> None:
    """Ask for places that urgent jobs need. Raises RedisError and Unavailable."""
    if not wanted():
        return
    before = _asked()
    workers = _heard(broker.workers())
    sent = Sent()
    known: dict[int, bool] = {}

    def is_sent(job: Waiting) -> bool:
        task_id = wire.task_id(job.id, job.attempt)
        known[job.id] = sent.has(message_queue(job), task_id=task_id, priority=job.priority)
        return known[job.id]

    # Redis is asked before the lock is held; who comes in between has to wait for the next look.
    _look(db.session(), workers, is_sent=is_sent)
    db.session.rollback()
    asked = decide(workers, is_sent=lambda job: known.get(job.id, False))
    client = broker.redis_client()
    for job in asked:
        told = f"{job.attempt}:{job.displaced_by}"
        client.set(wire.preempt_key(job.id), told, ex=_PREEMPT_TTL_SECONDS)
    for job_id in before - {job.id for job in asked}:
        client.delete(wire.preempt_key(job_id))
    # What is lost is sent again now, not by the reaper: the place would be another's by then.
    for urgent in _queued_among({job.displaced_by for job in asked}):
        if not is_sent(urgent) and wire.task_id(urgent.id, urgent.attempt) not in task_ids(
            message_queue(urgent), priorities=[urgent.priority]
        ):
            send_handed_back(urgent.id)


def pause_after(processor_seconds: float) -> float:
    """Return the seconds until the next look, after one that took so much of a processor."""
    return max(EVERY_SECONDS, processor_seconds / SHARE_OF_TIME)


def wanted() -> bool:
    """Tell whether a queued job may take another's place, or a running one was asked for its."""
    is_urgent = and_(Job.status == S.QUEUED, Job.preempt)
    is_asked = and_(Job.status == S.RUNNING, Job.displaced_by.is_not(None))
    return db.session.scalar(select(Job.id).where(or_(is_urgent, is_asked)).limit(1)) is not None


def decide(workers: Workers, *, is_sent: Callable[[Waiting], bool]) -> list[Job]:
    """Decide who gives its place to whom, commit, and return all that are asked for theirs.

    ``is_sent`` tells whether a queued job's message waits to be taken. A job that need not give its
    place any more, and may not have heard that it should, is asked no more.
    """
    session = db.session()
    event_log.lock_order(session)  # no change of status passes in between
    running = _running(session)
    waiting = _queued_among({job.displaced_by for job in running})
    for job in running:
        if job.displaced_by is not None and not _is_needed(job, waiting):
            logger.info("job %s may keep its place", job.id)
            _set(session, job, displaced_by=None)
    session.flush()
    for job, urgent in _look(session, workers, is_sent=is_sent):
        logger.info("job %s is to give its place to job %s", job.id, urgent.id)
        _set(session, job, displaced_by=urgent.id)
    session.commit()
    return [job for job in running if job.displaced_by is not None]


def _look(
    session: Session, workers: Workers, *, is_sent: Callable[[Waiting], bool]
) -> list[tuple[Job, Waiting]]:
    with closing(_queued(session)) as queued:
        running, left = _running(session), seconds_left()
        return choose(queued, running, workers, left=left, is_sent=is_sent)


def _set(session: Session, job: Job, *, displaced_by: int | None) -> None:
    """Write whom a job gives its place to, and let browsers look at the job again."""
    job.displaced_by = displaced_by
    event_log.append(
        session, job_id=job.id, project_id=job.project_id, attempt=job.attempt, type="status",
        time=utc_now(), data={"status": str(job.status), "previous": str(job.status)},
    )  # fmt: skip


def choose(
    queued: Iterable[Waiting],
    running: Sequence[Job],
    workers: Workers,
    *,
    left: Mapping[int, float],
    is_sent: Callable[[Waiting], bool],
) -> list[tuple[Job, Waiting]]:
    """Return pairs: a running job and the queued one that it is to give its place to.

    ``queued`` come in the order in which they will be taken. Each takes a place that is free or
    about to be, if there is one; only who is next, and urgent, has one made. No more of them are
    read than can matter. ``left`` are the seconds left of running jobs by id, where they are known.
    """
    places = {worker["name"]: _places(worker, running, left) for worker in workers}
    served = {job.displaced_by for job in running if job.worker in places}
    chosen: list[tuple[Job, Waiting]] = []
    behind: set[str] = set()  # workers whose next place is for someone who goes before
    for job in queued:
        fitting = [worker["name"] for worker in workers if can_take(worker, job)]
        if not any(places[name] > 0 or name not in behind for name in fitting):
            if not any(places[name] > 0 or name not in behind for name in places):
                break  # for whoever comes, all of them are spoken for
            continue
        if job.id in served or not is_sent(job):
            continue  # or it is being taken just now, or it is not to be taken yet
        free = next((name for name in fitting if places[name] > 0), None)
        if free is not None:
            places[free] -= 1
        elif not job.preempt:
            behind.update(fitting)
        else:
            there = [name for name in fitting if name not in behind]
            taken = [given for given, _ in chosen]
            victim = _least_urgent(running, there, below=job.priority, but=taken, left=left)
            if victim is not None:
                chosen.append((victim, job))
            else:
                behind.update(fitting)
    return chosen


def _least_urgent(
    running: Sequence[Job],
    names: Sequence[str],
    *,
    below: int,
    but: Sequence[Job],
    left: Mapping[int, float],
) -> Job | None:
    """Return the job that would be taken last if all that run waited.

    So who runs are always those that the order of the queue puts first, and it is not the same
    old job that has to make place again and again.
    """
    able = [
        job
        for job in running
        if job.worker in names
        and job.status == S.RUNNING
        and job.priority < below
        and job.displaced_by is None
        and job not in but
        and not _is_trained(job)
        and not _about_to_end(job, left)
    ]
    return max(able, key=lambda job: (-job.priority, job.queued_at, job.id), default=None)


def _places(worker: Mapping[str, Any], running: Sequence[Job], left: Mapping[int, float]) -> int:
    """Return how many slots of a worker are free or about to be, and not promised."""
    here = [job for job in running if job.worker == worker["name"]]
    coming = [job for job in here if job.displaced_by is None and _about_to_end(job, left)]
    return max(0, int(worker["slots"]) - worker.get("held", 0) - len(here)) + len(coming)


def _about_to_end(job: Job, left: Mapping[int, float]) -> bool:
    if job.status == S.CANCELLING:
        return job.cancel_mode != CancelMode.AFTER_EPOCH
    return abs(left.get(job.id, float("inf"))) < ABOUT_TO_END_SECONDS  # not: overdue for long


def _is_needed(job: Job, waiting: Sequence[Waiting]) -> bool:
    """Tell whether the urgent job that is to have a running one's place still waits for it."""
    return not _is_trained(job) and any(
        urgent.id == job.displaced_by and urgent.preempt and urgent.priority > job.priority
        for urgent in waiting
    )


def _is_trained(job: Job) -> bool:
    """Tell whether only its evaluation is left, which cannot go on elsewhere."""
    return (job.progress or {}).get("phase") == "evaluate"


def _queued(session: Session) -> Generator[Waiting, None, None]:
    """Yield, in their order, what is queued and at least as urgent as some job that preempts."""
    is_queued = Job.status == S.QUEUED
    least = select(func.min(Job.priority)).where(is_queued, Job.preempt).scalar_subquery()
    statement = select(*_LOOKED_AT).where(is_queued, Job.priority >= least).order_by(*TURN_ORDER)
    # Thousands may wait, and this is asked every second: only what is looked at is read, and no
    # more rows than are wanted.
    rows = session.execute(statement, execution_options={"yield_per": _READ_AT_ONCE})
    try:
        yield from rows
    finally:
        rows.close()


def _queued_among(ids: Iterable[int | None]) -> list[Waiting]:
    """Return which of some jobs are queued."""
    wanted = [id for id in ids if id is not None]
    statement = select(*_LOOKED_AT).where(Job.id.in_(wanted), Job.status == S.QUEUED)
    return list(db.session.execute(statement)) if wanted else []


def _running(session: Session) -> list[Job]:
    statement = select(Job).where(Job.status.in_([S.RUNNING, S.CANCELLING]))
    return list(session.scalars(statement, execution_options={"populate_existing": True}))


def _asked() -> set[int]:
    asked = select(Job.id).where(Job.status == S.RUNNING, Job.displaced_by.is_not(None))
    return set(db.session.scalars(asked))


def _heard(workers: Workers) -> Workers:
    """Return the workers that told of themselves just now, by the clock of Redis."""
    client = broker.redis_client()
    left = [client.pttl(wire.worker_key(worker["name"])) for worker in workers]
    least = 1000 * (wire.WORKER_TTL_SECONDS - HEARD_SECONDS)
    return [worker for worker, ms in zip(workers, left, strict=True) if ms > least]
