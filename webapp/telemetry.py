"""What Prometheus is told: the requests of all web processes, the jobs, the queues, the workers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, g, request
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
    multiprocess,
    registry,
)
from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import func, select

from webapp.extensions import db
from webapp.metrics_folder import FOLDER_VARIABLE
from webapp.models import Job, JobStatus
from webapp.services import broker, disk_use, workers
from webapp.services.errors import Unavailable

_requests = CollectorRegistry(auto_describe=True)
REQUESTS = Counter(
    "modelyard_http_requests",
    "Answered requests",
    ["method", "route", "status"],
    registry=_requests,
)
SECONDS = Histogram(
    "modelyard_http_request_seconds",
    "Time until an answer began",
    ["method", "route"],
    registry=_requests,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)


def init_app(app: Flask) -> None:
    app.before_request(_begin)
    app.after_request(_count)


def exposition() -> bytes:
    """Return all metrics in Prometheus' text form."""
    gauges = CollectorRegistry()
    gauges.register(_Gauges())
    if FOLDER_VARIABLE not in os.environ:
        return generate_latest(_requests) + generate_latest(gauges)
    together = CollectorRegistry()
    multiprocess.MultiProcessCollector(together)  # type: ignore[no-untyped-call]
    return generate_latest(together) + generate_latest(gauges)


class _Gauges(registry.Collector):
    """What the database and the workers say at this moment."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield _jobs()
        yield from _queues_and_workers()
        yield from _disks()


def _jobs() -> GaugeMetricFamily:
    family = GaugeMetricFamily("modelyard_jobs", "Jobs by status", labels=["status"])
    rows = db.session.execute(select(Job.status, func.count()).group_by(Job.status))
    counts: dict[str, int] = dict(rows.all())
    deleted = select(Job.status, func.count()).where(Job.deleted_at.is_not(None))
    gone: dict[str, int] = dict(db.session.execute(deleted.group_by(Job.status)).all())
    for status in JobStatus:
        family.add_metric([status], counts.get(status, 0) - gone.get(status, 0))
    return family


def _queues_and_workers() -> Iterator[GaugeMetricFamily]:
    up = GaugeMetricFamily("modelyard_broker_up", "1 where the broker answers, or none is used")
    try:
        queues, found, waiting = workers.queues(), broker.workers(), broker.events_waiting()
    except Unavailable:
        up.add_metric([], 0)
        yield up
        return
    up.add_metric([], 1)
    yield up
    yield GaugeMetricFamily("modelyard_events_waiting", "Events not recorded yet", value=waiting)
    for name, meaning in (
        ("depth", "Jobs that wait"),
        ("running", "Jobs that are trained"),
        ("workers", "Workers that serve it"),
    ):
        family = GaugeMetricFamily(f"modelyard_queue_{name}", meaning, labels=["queue"])
        for queue in queues:
            family.add_metric([queue["name"]], queue[name])
        yield family
    yield _worker_disks(found)
    for name, meaning in (("slots", "Jobs a worker trains at once"), ("busy", "Jobs it trains")):
        family = GaugeMetricFamily(f"modelyard_worker_{name}", meaning, labels=["worker"])
        for worker in found:
            family.add_metric([worker["name"]], worker[name])
        yield family


def _worker_disks(found: list[dict[str, Any]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "modelyard_worker_free_bytes", "Left of a worker's volume", labels=["worker", "name"]
    )
    for worker in found:
        for disk in worker.get("disks", []):
            family.add_metric([worker["name"], disk["name"]], disk["free"])
    return family


def _disks() -> Iterator[GaugeMetricFamily]:
    used = GaugeMetricFamily(
        "modelyard_used_bytes", "What it takes, as last measured", labels=["name"]
    )
    for use in disk_use.uses():
        used.add_metric([use.name], use.size)
    yield used
    free = GaugeMetricFamily("modelyard_free_bytes", "Left of its volume", labels=["name"])
    total = GaugeMetricFamily("modelyard_volume_bytes", "Size of its volume", labels=["name"])
    for volume in disk_use.volumes():
        for name in volume.names:
            free.add_metric([name], volume.free)
            total.add_metric([name], volume.total)
    yield from (free, total)


def _begin() -> None:
    g.telemetry_began = time.monotonic()


def _count(response: Response) -> Response:
    # The rule, not the address: addresses hold ids, and are without number.
    route = request.url_rule.rule if request.url_rule else "unknown"
    REQUESTS.labels(request.method, route, response.status_code).inc()
    SECONDS.labels(request.method, route).observe(time.monotonic() - g.telemetry_began)
    return response
