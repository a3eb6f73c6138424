"""What jobs take of their machines, in samples that grow sparser as an attempt grows longer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from webapp.extensions import db
from webapp.models import Job, LoadSample
from webapp.services.metrics import thin

MOST_SAMPLES = 1000  # of an attempt: at one each three seconds, the first 50 minutes in full

NAMES = ("cpu_percent", "memory_bytes", "gpu_percent", "gpu_memory_bytes")


@dataclass(frozen=True)
class LoadPoint:
    time: datetime
    attempt: int
    value: float


def keep(
    session: Session, *, job_id: int, attempt: int, time: datetime, data: Mapping[str, Any]
) -> None:
    """Add a sample, unless the attempt's are spaced wider by now. The caller commits."""
    mine = (LoadSample.job_id == job_id, LoadSample.attempt == attempt)
    count, first, last = session.execute(
        select(func.count(), func.min(LoadSample.time), func.max(LoadSample.time)).where(*mine)
    ).one()
    # Of an attempt that was halved, new samples come closer than the old ones lie: to be even
    # over its whole length, only every second (then every fourth, …) is kept.
    if count > MOST_SAMPLES // 4 and time - last < 0.9 * (last - first) / (count - 1):
        return
    if count >= MOST_SAMPLES:
        _halve(session, mine)
    values = {name: data.get(name) for name in NAMES}
    session.add(LoadSample(job_id=job_id, attempt=attempt, time=time, **values))
    session.flush()


def curves(job: Job, *, points: int | None = None) -> dict[str, list[LoadPoint]]:
    """Return a job's load by name in the order of time, each with at most ``points``.

    A load that was never measured (that of a GPU, on a CPU) has no points.
    """
    query = select(LoadSample).where(LoadSample.job_id == job.id).order_by(LoadSample.id)
    samples = list(db.session.scalars(query))
    found = {name: _curve(samples, name) for name in NAMES}
    if points is None:
        return found
    return {name: thin(curve, points) for name, curve in found.items()}


def _curve(samples: Sequence[LoadSample], name: str) -> list[LoadPoint]:
    return [
        LoadPoint(time=sample.time, attempt=sample.attempt, value=value)
        for sample in samples
        if (value := getattr(sample, name)) is not None
    ]


def _halve(session: Session, mine: tuple[Any, ...]) -> None:
    """Delete every second sample, the first staying."""
    row = func.row_number().over(order_by=LoadSample.id).label("row")
    numbered = select(LoadSample.id, row).where(*mine).subquery()
    second = select(numbered.c.id).where(numbered.c.row % 2 == 0)
    session.execute(
        delete(LoadSample).where(LoadSample.id.in_(second)),
        execution_options={"synchronize_session": False},
    )
