"""Applications and rows for tests that talk to the services directly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flask import Flask

from adapters.wire import Event, EventType
from modelyard.settings import load_settings
from webapp import create_app
from webapp.extensions import db
from webapp.models import Job, Project
from webapp.models.columns import utc_now
from webapp.services import lifecycle

TIME = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
STARTED = {"worker": "w1", "host": "box", "device": "cpu", "versions": {}, "pid": 1}
FINISHED = {"outcome": "completed", "result": None, "error": None, "exit_code": 0}


def environment(
    home: Path, *, database_url: str, redis_url: str | None = None, **more: str
) -> dict[str, str]:
    """Return the environment of an instance in a folder of its own."""
    environ = {"MODELYARD_HOME": str(home), "DATABASE_URL": database_url, **more}
    if redis_url:
        return {**environ, "REDIS_URL": redis_url}
    return {"TRAINING_EXECUTION_MODE": "subprocess", **environ}


@contextmanager
def application(environ: dict[str, str]) -> Iterator[Flask]:
    """Give an application with its tables made, inside its context."""
    app = create_app(load_settings(environ), RATELIMIT_ENABLED=False)
    with app.app_context():
        db.create_all()
        yield app
        db.session.remove()
        db.engine.dispose()


def make_job(**fields: Any) -> Job:
    """Add and commit a pending job in a project of its own."""
    session = db.session()
    project = Project(name="digits")
    session.add(project)
    session.flush()
    values: dict[str, Any] = {
        "project_id": project.id,
        "name": "job",
        "framework": "timm",
        "queue": "timm",
        "model_name": "test_resnet",
        "task_type": "image_classification",
        "dataset_path": "/data/digits",
        "dataset_format": "imagefolder",
        "dataset_fingerprint": "0" * 64,
        "epochs": 4,
        "batch_size": 8,
        "learning_rate": 0.01,
        "priority": 4,
        "created_at": utc_now(),
    }
    job = Job(**{**values, **fields})
    session.add(job)
    session.flush()
    lifecycle.record_created(session, job, actor="test", reason="created")
    session.commit()
    return job


def make_events(job: Job, *steps: tuple[EventType, dict[str, Any]], first: int = 1) -> list[Event]:
    """Return the events of the job's present attempt, numbered from ``first``."""
    return [
        Event(job.id, job.attempt, first + i, type, TIME + timedelta(seconds=first + i), data)
        for i, (type, data) in enumerate(steps)
    ]


def progress(epoch: int, step: int = 1) -> tuple[EventType, dict[str, Any]]:
    data = {
        "epoch": epoch, "epochs": 4, "step": step, "steps": 10, "phase": "train",
        "percent": 25.0 * (epoch - 1) + 2.5 * step, "eta_seconds": 9.0, "images_per_second": 50.0,
    }  # fmt: skip
    return EventType.PROGRESS, data


def metrics(epoch: int, **values: float) -> tuple[EventType, dict[str, Any]]:
    return EventType.METRICS, {"epoch": epoch, "step": None, "values": values}
