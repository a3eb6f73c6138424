"""Why a queued job waits, how many go before it, and when it may start."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, func, select

from adapters.contract import DeviceChoice
from modelyard.gpu_holders import find_holder
from modelyard.gpu_locks import GpuLocks
from modelyard.gpus import GpuWatch
from webapp.config import settings
from webapp.extensions import db
from webapp.models import Job, JobEvent, JobStatus
from webapp.models.columns import utc_now
from webapp.services import broker, dataset_copies, event_log
from webapp.services.errors import Unavailable

Workers = list[dict[str, Any]]


@dataclass(frozen=True)
class Wait:
    position: int | None = None  # 1: it is next
    reason: str | None = None
    expected_start: datetime | None = None


NOT_WAITING = Wait()


@dataclass(frozen=True)
class Position:
    """A job's place in its queue, and among those in it that need a GPU, or do not, like it."""

    among_all: int
    among_its_kind: int


FIRST = Position(1, 1)

# The order in which queued jobs are taken: the most urgent first, of those the oldest.
TURN_ORDER = (Job.priority.desc(), Job.queued_at, Job.id)

_this_host = GpuWatch(max_age_seconds=5)


def waits(jobs: Sequence[Job]) -> dict[int, Wait]:
    """Return how each of the jobs that are queued waits, by its id."""
    queued = [job for job in jobs if job.status == JobStatus.QUEUED]
    if not queued:
        return {}
    positions = _positions(queued)
    makers = _makers_of_place(queued)
    try:
        workers: Workers | None = broker.workers()
    except Unavailable:
        workers = None
    remaining = _remaining_seconds() if workers else {}
    found = {job.id: _wait(job, positions.get(job.id, FIRST), workers, remaining) for job in queued}
    for id, reason in dataset_copies.waiting_reasons(queued).items():
        found[id] = Wait(found[id].position, reason)  # no worker has heard of the job yet
    return {job.id: _with_displacement(job, found[job.id], makers.get(job.id)) for job in queued}


def serving(workers: Workers, queue: str) -> Workers:
    """Return the workers that read a queue; each framework has exactly one."""
    return [worker for worker in workers if queue in worker["frameworks"]]


def can_take(worker: dict[str, Any], job: Job | Row[*tuple[Any, ...]]) -> bool:
    """Tell whether a job may go to a worker, once that has a free slot."""
    return (
        job.queue in worker["frameworks"]
        and (job.device_choice != DeviceChoice.GPU or bool(worker["gpu"]))
        and _has_model(worker, job)
        and _takes_jobs(worker)
    )


def free_slots(worker: dict[str, Any]) -> int:
    """Return how many jobs a worker can take now: GPUs that somebody else has take none."""
    free: int = worker["slots"] - worker["busy"] - worker.get("held", 0)
    return max(0, free)


def _with_displacement(job: Job, wait: Wait, maker: Job | None) -> Wait:
    """Add to a reason that another makes place for the job, or that it made place for another."""
    if maker is not None:
        reason = (
            f"Job {maker.id} (priority {maker.priority}) on {maker.worker} is writing its "
            "checkpoint to make place"
        )
        return replace(wait, reason=reason)
    if job.displaced_by is not None and wait.reason is not None:
        rest = wait.reason[0].lower() + wait.reason[1:]
        return replace(wait, reason=f"Gave its place to job {job.displaced_by}; {rest}")
    return wait


def _makers_of_place(queued: Sequence[Job]) -> dict[int | None, Job]:
    """Return the running jobs that give their places, by whom they give them to."""
    urgent = [job.id for job in queued if job.preempt]
    if not urgent:
        return {}
    statement = select(Job).where(Job.status == JobStatus.RUNNING, Job.displaced_by.in_(urgent))
    return {job.displaced_by: job for job in db.session.scalars(statement)}


def _wait(
    job: Job, place: Position, workers: Workers | None, remaining: dict[str, list[float]]
) -> Wait:
    position = place.among_all
    if not broker.uses_broker():
        if job.device_choice == DeviceChoice.GPU and not _this_host.gpus():
            return Wait(position, "This host has no GPU, and in `subprocess` mode no other trains")
        reason = _ahead(job, position) or _held_here() or "This host's recorder is about to take it"
        return Wait(position, reason)
    if workers is None:
        return Wait(position, "The broker does not answer; the job keeps its place until it does")
    able = serving(workers, job.queue)
    if not able:
        return Wait(
            position,
            f"No worker serves the queue {job.queue}; start one with: "
            f"modelyard worker --frameworks {job.framework}",
        )
    if job.device_choice == DeviceChoice.GPU:
        able = [worker for worker in able if worker["gpu"]]
        if not able:
            return Wait(
                position,
                f"No worker of the queue {job.queue} has a GPU; start one on a GPU host, or clone "
                "the job with device 'auto'",
            )
    elif not any(worker["gpu"] for worker in able):
        position = place.among_its_kind  # those that need a GPU do not hold it up
    having = [worker for worker in able if _has_model(worker, job)]
    if not having:
        there = ", ".join(f"{w['name']} has {_version(w, job.queue)}" for w in able)
        return Wait(position, f"No worker has the model {job.model_name}: {there}")
    active = [worker for worker in having if _takes_jobs(worker)]
    if not active:
        names = ", ".join(worker["name"] for worker in able)
        return Wait(position, f"Every worker of the queue {job.queue} takes no new job: {names}")
    ahead = _ahead(job, position)
    free = sum(free_slots(worker) for worker in active)
    if free >= position:
        return Wait(position, ahead or "A worker is about to take it")
    reason = "; ".join([ahead or f"Next in the queue {job.queue}{_busy(active)}", *_held(active)])
    return Wait(position, reason, _expected_start(position - free, active, job.queue, remaining))


def _busy(active: Workers) -> str:
    """Return what follows 'next in the queue': how many slots train."""
    slots, busy = (sum(worker[name] for worker in active) for name in ("slots", "busy"))
    if not busy:
        return ""
    if busy < slots:
        return f"; {busy} of {slots} slots {'is' if busy == 1 else 'are'} busy"
    return "; its one slot is busy" if slots == 1 else f"; all {slots} slots are busy"


def _held_here() -> str | None:
    """Return who has the GPUs of this host, where somebody has each that it may use."""
    wanted, view = settings().gpus, _this_host.view()
    gpus = [gpu for gpu in view.gpus if wanted is None or gpu.index in wanted]
    locks = GpuLocks(settings().home / "gpus", gpus=gpus, worker="")
    holders = [
        (gpu, locks.holder(gpu.index) or find_holder(gpu, view.of(gpu), ours=frozenset()))
        for gpu in gpus
    ]
    if not all(holder for _, holder in holders):
        return None
    return "; ".join(f"GPU {gpu.index} {holder.text}" for gpu, holder in holders if holder) or None


def _held(active: Workers) -> list[str]:
    """Return who else has the GPUs of workers that would otherwise take a job."""
    return [
        f"GPU {gpu['index']} of {worker['host']} {gpu['held_by']['text']}"
        for worker in active
        if worker.get("held")
        for gpu in worker["gpu"]
        if gpu.get("held_by")
    ]


def _has_model(worker: dict[str, Any], job: Job | Row[*tuple[Any, ...]]) -> bool:
    """Tell whether a worker has a job's model, as far as it has told."""
    told = worker.get("models", {}).get(job.framework, {})
    return job.model_name not in told.get("missing", [])


def _takes_jobs(worker: dict[str, Any]) -> bool:
    return bool(worker["status"] != "draining")


def _version(worker: dict[str, Any], framework: str) -> str:
    return f"{framework} {worker['versions'].get(framework, 'of an unknown version')}"


def _ahead(job: Job, position: int) -> str | None:
    if position <= 1:
        return None
    jobs = "1 job is" if position == 2 else f"{position - 1} jobs are"
    return f"{jobs} ahead in the queue {job.queue}"


def _expected_start(
    nth: int, active: Workers, queue: str, remaining: dict[str, list[float]]
) -> datetime | None:
    """Return when the nth slot falls free, where that can honestly be told.

    It cannot where a slot may go to another queue's job, or where the slots that are busy now
    do not suffice: how long a job that waits will take is not known.
    """
    if any(worker["frameworks"] != [queue] for worker in active):
        return None
    known = [seconds for worker in active for seconds in remaining.get(worker["name"], [])]
    if nth > len(known) or len(known) < sum(worker["busy"] for worker in active):
        return None
    return utc_now() + timedelta(seconds=heapq.nsmallest(nth, known)[-1])


def _remaining_seconds() -> dict[str, list[float]]:
    """Return the seconds left of running jobs by worker; at least none."""
    workers = select(Job.id, Job.worker).where(Job.status == JobStatus.RUNNING)
    left = seconds_left()
    remaining: dict[str, list[float]] = {}
    for job_id, worker in db.session.execute(workers):
        if worker is not None and job_id in left:
            remaining.setdefault(worker, []).append(max(0.0, left[job_id]))
    return remaining


def seconds_left() -> dict[int, float]:
    """Return the seconds left of running jobs by id, from their last progress.

    Less than none of a job that was to have ended.
    """
    told = (
        select(JobEvent.time)
        .where(JobEvent.job_id == Job.id, event_log.IS_PROGRESS)
        .order_by(JobEvent.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    rows = db.session.execute(
        select(Job.id, Job.progress, told).where(Job.status == JobStatus.RUNNING)
    )
    now = utc_now()
    left: dict[int, float] = {}
    for job_id, progress, time in rows:
        eta = (progress or {}).get("eta_seconds")
        if time is not None and eta is not None:
            left[job_id] = eta - (now - time).total_seconds()
    return left


def _positions(queued: Sequence[Job]) -> dict[int, Position]:
    """Return the places of jobs, in the order in which they will be taken."""
    # In subprocess mode this host's recorder takes from all queues in one order.
    queue = [Job.queue] if settings().execution_mode != "subprocess" else []
    kind = Job.device_choice == DeviceChoice.GPU
    place = func.row_number()
    ranked = (
        select(
            Job.id,
            place.over(partition_by=queue or None, order_by=TURN_ORDER).label("among_all"),
            place.over(partition_by=[*queue, kind], order_by=TURN_ORDER).label("among_its_kind"),
        )
        .where(Job.status == JobStatus.QUEUED)
        .subquery()
    )
    rows = db.session.execute(select(ranked).where(ranked.c.id.in_([j.id for j in queued])))
    return {row.id: Position(row.among_all, row.among_its_kind) for row in rows}
