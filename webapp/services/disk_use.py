"""What takes how much room on the web host, for people and for Prometheus.

What has to be counted file by file is counted by the tidier, once a day and when a person runs
`modelyard gc`, and kept in the database; what a statement or one call tells is asked when it is
shown. No web request walks a folder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import redis
from sqlalchemy import func, select, text, update

from modelyard.disk import room, tree_bytes
from webapp.config import settings
from webapp.extensions import db
from webapp.models import CopyStatus, DatasetCopy, DiskMeasure, Job, Project, User
from webapp.models.columns import utc_now
from webapp.services import broker, outputs_index, schema, stored_files
from webapp.services.cpu import run_blocking
from webapp.services.outputs import output_dir
from webapp.services.projects import visible_to
from webapp.services.statements import affected

EVERY = timedelta(hours=24)
OUTPUTS = "outputs"


@dataclass(frozen=True)
class Use:
    """How much something takes, and as of when."""

    name: str
    size: int  # bytes
    measured_at: datetime


@dataclass(frozen=True)
class Volume:
    """A volume of the web host, with what lies on it."""

    names: list[str]
    path: str  # the first of those folders
    total: int  # bytes
    free: int  # bytes
    low: bool  # it is about to be full


def due() -> bool:
    """Tell whether the folders are to be measured again."""
    last = db.session.scalar(select(DiskMeasure.measured_at).where(DiskMeasure.name == OUTPUTS))
    return last is None or last < utc_now() - EVERY


def measure(*, still_wanted: Callable[[], bool] = lambda: True) -> None:
    """Count what the folders of this host hold, and each job's; commits now and then."""
    total = 0
    for job_id in outputs_index.job_ids():
        if not still_wanted():
            return
        size = tree_bytes(output_dir(job_id))
        total += size
        # A store has what the worker told at the attempt's end; here may be a part of it.
        if not stored_files.used():
            affected(update(Job).where(Job.id == job_id).values(output_bytes=size))
            db.session.commit()
    for name, folder in _folders().items():
        size = total if name == OUTPUTS else tree_bytes(folder)
        db.session.merge(DiskMeasure(name=name, size=size, measured_at=utc_now()))
        db.session.commit()


def uses() -> list[Use]:
    """Return what takes how much: the folders when they were last counted, the rest as of now."""
    measures = {m.name: m for m in db.session.scalars(select(DiskMeasure))}
    found = [
        Use(name, measures[name].size, measures[name].measured_at)
        for name in _folders()
        if name in measures
    ]
    now = utc_now()
    found += [Use(name, size, now) for name, size in _database().items()]
    if stored_files.used():
        found += [Use(name, size, now) for name, size in _store().items()]
    if broker.uses_broker():
        found += [Use(name, size, now) for name, size in _redis().items()]
    return found


def volumes() -> list[Volume]:
    """Return the volumes that this host's folders lie on, each once."""
    return run_blocking(_volumes, {**_folders(), **_database_folder()})


def of_projects(user: User) -> list[dict[str, Any]]:
    """Return what the jobs of each project take that a person may see, the largest first."""
    size = func.coalesce(func.sum(Job.output_bytes), 0)
    rows = db.session.execute(
        select(Project.id, Project.name, func.count(Job.id), size)
        .join(Job, Job.project_id == Project.id)
        .where(visible_to(user, Project.id), Project.deleted_at.is_(None), Job.is_visible())
        .group_by(Project.id, Project.name)
        .order_by(size.desc(), Project.id)
    )
    return [
        {"project_id": id, "name": name, "jobs": jobs, "size": int(total or 0)}
        for id, name, jobs, total in rows
    ]


def _folders() -> dict[str, Path]:
    found = settings()
    return {
        OUTPUTS: found.outputs,
        "uploads": found.uploads,
        "data_cache": found.data_cache,
        "weights": found.weights,
    }


def _database_folder() -> dict[str, Path]:
    file = schema.sqlite_file()
    return {} if file is None else {"database": file.parent}


def _volumes(folders: dict[str, Path]) -> list[Volume]:
    found: dict[int, Volume] = {}
    for name, folder in folders.items():
        left = room(folder)
        if left is None:
            continue
        volume = Volume([], path=str(folder), total=left.total, free=left.free, low=left.low)
        found.setdefault(left.volume, volume).names.append(name)
    return list(found.values())


def _database() -> dict[str, int]:
    file = schema.sqlite_file()
    if file is not None:
        beside = (file, file.with_name(f"{file.name}-wal"))
        return {"database": sum(path.stat().st_size for path in beside if path.exists())}
    if db.engine.dialect.name != "postgresql":
        return {}
    statement = text(
        "SELECT pg_database_size(current_database()), pg_total_relation_size('job_events')"
    )
    whole, events = db.session.execute(statement).one()
    return {"database": whole, "event_log": events}


def _store() -> dict[str, int]:
    stored = DatasetCopy.status == CopyStatus.STORED
    jobs = db.session.scalar(select(func.sum(Job.output_bytes)))
    copies = db.session.scalar(select(func.sum(DatasetCopy.size)).where(stored))
    # PostgreSQL's sums are of type Decimal.
    return {"store_jobs": int(jobs or 0), "store_datasets": int(copies or 0)}


def _redis() -> dict[str, int]:
    try:
        told: Any = broker.redis_client().info("memory")
    except redis.RedisError:
        return {}
    return {"redis_memory": int(told["used_memory"])}
