"""A job's curves, thinned so that what stands out in them still does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import select

from webapp.extensions import db
from webapp.models import Job, Metric


class Point(Protocol):
    value: Any


def curves(
    job: Job, *, names: Sequence[str] | None = None, points: int | None = None
) -> dict[str, list[Metric]]:
    """Return the metrics of a job by name, in the order of epochs, each with at most ``points``.

    A name that is asked for and was never reported has no points.
    """
    query = select(Metric).where(Metric.job_id == job.id)
    if names is not None:
        query = query.where(Metric.name.in_(names))
    found: dict[str, list[Metric]] = {name: [] for name in names or ()}
    for metric in db.session.scalars(query.order_by(Metric.name, Metric.epoch)):
        found.setdefault(metric.name, []).append(metric)
    if points is None:
        return found
    return {name: thin(curve, points) for name, curve in found.items()}


def thin(curve: list[Any], points: int) -> list[Any]:
    """Return at most ``points`` (2 or more) of a curve, in their order.

    The first and the last stay, and of each of as many equal stretches the lowest and the
    highest: every peak is as high as it was. (Largest-triangle thinning would lose some.)
    """
    if len(curve) <= points:
        return curve
    inner = curve[1:-1]
    stretches = (points - 2) // 2
    kept = [curve[0]]
    for i in range(stretches):
        stretch = inner[i * len(inner) // stretches : (i + 1) * len(inner) // stretches]
        low = min(range(len(stretch)), key=lambda k: stretch[k].value)
        high = max(range(len(stretch)), key=lambda k: stretch[k].value)
        kept += [stretch[k] for k in sorted({low, high})]
    return [*kept, curve[-1]]
