"""Workers and queues as people see them."""

from __future__ import annotations

from typing import Any

import redis
from sqlalchemy import func, select

from adapters import known_frameworks, wire
from webapp.extensions import db
from webapp.models import Job, JobStatus
from webapp.services import broker
from webapp.services.errors import NotFound, Unavailable
from webapp.services.waiting import serving


def queues() -> list[dict[str, Any]]:
    """Return every framework's queue: what waits in it, what runs of it, who serves it.

    What waits is what the database says, not the broker, which may have forgotten a message or
    have one twice. Raises Unavailable where the broker, who knows the workers, is away.
    """
    workers = broker.workers()
    active = (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.CANCELLING)
    rows = db.session.execute(
        select(Job.queue, Job.status, func.count())
        .where(Job.status.in_(active))
        .group_by(Job.queue, Job.status)
    )
    counts = {(queue, status): count for queue, status, count in rows}
    frameworks = {*known_frameworks(), *(queue for queue, _ in counts)}
    return [_queue(name, counts, workers) for name in sorted(frameworks)]


def set_draining(name: str, *, draining: bool) -> dict[str, Any]:
    """Let a worker take no new job, or take them again; return it. Raises NotFound."""
    known = {worker["name"] for worker in broker.workers()}
    if name not in known:
        listed = ", ".join(sorted(known)) or "none is up"
        raise NotFound(f"There is no worker of this name; known are: {listed}")
    client, key = broker.redis_client(), wire.drain_key(name)
    try:
        if draining:
            client.set(key, "1")
        else:
            client.delete(key)
    except redis.RedisError as error:
        raise Unavailable(f"The broker cannot be reached ({type(error).__name__})") from error
    for worker in broker.workers():
        if worker["name"] == name:
            return worker
    raise NotFound("The worker has just gone")


def _queue(
    name: str, counts: dict[tuple[str, str], int], workers: list[dict[str, Any]]
) -> dict[str, Any]:
    queue = wire.queue_name(name)
    running = (JobStatus.RUNNING, JobStatus.CANCELLING)
    names = [worker["name"] for worker in serving(workers, queue)]
    return {
        "name": queue,
        "framework": name,
        "depth": counts.get((queue, JobStatus.QUEUED), 0),
        "running": sum(counts.get((queue, status), 0) for status in running),
        "workers": len(names),
        "worker_names": names,
    }
