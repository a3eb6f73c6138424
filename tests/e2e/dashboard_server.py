"""The real application behind gunicorn, and the hand of a worker that reports to it.

What a worker would have published is written with the recorder's own :func:`record`, so a
browser sees what it would see of a real one, at the moment a test chooses.
"""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from flask import Flask
from PIL import Image
from redis import Redis
from sqlalchemy import update

from adapters import wire
from adapters.contract import DatasetFormat, TaskType
from adapters.wire import Event, EventType, format_time
from modelyard.ports import free_port
from modelyard.settings import load_settings
from tests import shapes
from tests.services import Spawned, python, wait_for
from webapp import create_app
from webapp.extensions import db
from webapp.models import Job, JobStatus, User
from webapp.services import (
    accounts,
    datasets,
    job_actions,
    job_creation,
    jobs,
    preemption,
    projects,
    schema,
)
from webapp.services.deletion import ACTIVE
from webapp.services.job_request import JobRequest
from webapp.services.recorder import record

PASSWORD = "correct horse battery staple"
EMAIL = "ada@example.org"
ADMIN_EMAIL = "root@example.org"  # with the same password


class Dashboard:
    """One instance with a database of its own, and a second application on the same database."""

    def __init__(self, home: Path, *, redis_url: str) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.redis_url = redis_url
        self.images = home / "data" / "shades"
        self._environ = {
            "MODELYARD_HOME": str(home),
            "MODELYARD_FLOWER_URL": "http://127.0.0.1:5555",
            "MODELYARD_ACCESS_TOKEN_SECONDS": "86400",  # one login is shared by all tests of a run
            "REDIS_URL": redis_url,
        }
        self._process: Spawned | None = None
        self.app: Flask = create_app(load_settings(self._environ))

    def prepare(self) -> None:
        """Make the database, a person who may log in, and a small data set on the disk."""
        with self.app.app_context():
            schema.migrate()
            accounts.create_user(email=EMAIL, password=PASSWORD, name="Ada Lovelace")
            accounts.create_user(
                email=ADMIN_EMAIL, password=PASSWORD, name="Grace Hopper", is_admin=True
            )
        for split, count, step in (("train", 4, 0), ("val", 2, 10)):
            for name, shade in (("dark", 20 + step), ("light", 230 + step)):
                place = self.images / split / name
                place.mkdir(parents=True)
                for number in range(count):
                    Image.new("RGB", (16, 16), (shade + number,) * 3).save(place / f"{number}.png")

    def start(self) -> None:
        self._process = Spawned(
            python(
                "-m", "gunicorn", "-k", "gevent", "-w", "1", "--no-control-socket",
                "--graceful-timeout", "1", "--timeout", "0",  # a test may let it stand still
                "-b", f"127.0.0.1:{self.port}", "webapp.wsgi:app",
            ),
            log=self.home / "web.log",
            environ={**os.environ, **self._environ},
        ).__enter__()  # fmt: skip
        wait_for(self._answers, timeout_seconds=120, what="an answer of the web process")

    def stop(self) -> None:
        if self._process is not None and self._process.alive():
            self._process.stop()

    def forget(self) -> None:
        """Have no worker and no job under way: which tests were here before is chance."""
        ended = update(Job).where(Job.status.in_(ACTIVE)).values(status=JobStatus.CANCELLED)
        with self.app.app_context():
            db.session.execute(ended)
            db.session.commit()
        with Redis.from_url(self.redis_url) as client:
            client.flushall()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let the web process stand still; what is sent to it waits in its sockets."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        os.kill(self._worker(), signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._worker(), signal.SIGCONT)
            os.kill(self._process.pid, signal.SIGCONT)

    def _worker(self) -> int:
        assert self._process is not None
        return psutil.Process(self._process.pid).children()[0].pid

    def project(self, name: str, description: str = "") -> int:
        """Make a project with the data set registered in it; return its id."""
        with self.app.app_context():
            project = projects.create_project(self._ada(), name=name, description=description)
            project_id = project.id
            datasets.register(
                project, name="shades", path=str(self.images), format=None, task_type=None
            )
        return project_id

    def dataset(self, project_id: int, format: DatasetFormat, task_type: TaskType) -> int:
        """Register a composed data set in a project; return its id."""
        folder = self.images.parent / f"{format}-{task_type}"
        if not folder.exists():
            shapes.compose(folder, format=format, task_type=task_type, train=8, val=4)
        return self._register(project_id, folder)

    def broken_dataset(self, project_id: int) -> int:
        """Register a data set with errors and warnings; return its id."""
        folder = self.images.parent / "broken-shapes"
        if not folder.exists():
            task = TaskType.OBJECT_DETECTION
            shapes.compose(folder, format=DatasetFormat.YOLO, task_type=task, train=8, val=4)
            first, second, *_ = sorted(folder.glob("labels/train/*.txt"))
            first.write_text("99 0.5 0.5 0.2 0.2\n0 1.5 0.5 0.2 0.2\n")
            second.unlink()
        return self._register(project_id, folder)

    def _register(self, project_id: int, folder: Path) -> int:
        with self.app.app_context():
            project = projects.get_project(project_id, user=self._ada())
            return datasets.register(project, name=folder.name, path=str(folder)).id

    def empty_project(self, name: str) -> int:
        with self.app.app_context():
            return projects.create_project(self._ada(), name=name, description="").id

    def job(self, project_id: int, name: str, *, started: bool = False, **fields: Any) -> int:
        """Make a job on the project's data set; return its id."""
        with self.app.app_context():
            ada = self._ada()
            found = datasets.list_datasets(ada, project_id=project_id, limit=1, cursor=None)
            described = {
                "project_id": project_id,
                "name": name,
                "framework": "timm",
                "model_name": "resnet18",
                "task_type": "image_classification",
                "dataset_id": found.items[0].id,
                "epochs": 12,
                "batch_size": 32,
                "learning_rate": 0.002,
            }
            request = JobRequest.model_validate({**described, **fields})
            job = job_creation.create(request, user=ada, actor=f"user:{ada.id} {ada.email}")
            if started:
                job_actions.start(job, actor=f"user:{ada.id} {ada.email}")
            return job.id

    @contextmanager
    def draining_worker(
        self, name: str, *, status: str = "draining", **told: Any
    ) -> Iterator[None]:
        """Let a worker be known, as it publishes itself, that takes no new job."""
        published = {
            "name": name, "host": f"{name}.lan", "frameworks": ["timm"], "versions": {},
            "device": "NVIDIA L4", "gpu": [], "slots": 1, "busy": 0, "jobs": [],
            "last_seen": format_time(datetime.now(UTC)), "status": status, **told,
        }  # fmt: skip
        with Redis.from_url(self.redis_url) as client:
            client.set(wire.worker_key(name), json.dumps(published), ex=60)
            client.zadd(wire.WORKERS_KEY, {name: time.time()})
            try:
                yield
            finally:
                client.delete(wire.worker_key(name))
                client.zrem(wire.WORKERS_KEY, name)

    def cancel(self, job_id: int) -> None:
        """Stop a job; who waits with ``preempt`` would take its place from a later test's job."""
        with self.app.app_context():
            job = jobs.get_job(job_id, user=self._ada())
            job_actions.cancel(job, mode=job_actions.CancelMode.NOW, actor="test")

    def look_for_places(self) -> None:
        """Do what the recorder does every second for urgent jobs."""
        with self.app.app_context():
            preemption.follow()

    def status(self, job_id: int) -> str:
        with self.app.app_context():
            return jobs.get_job(job_id, user=self._ada()).status

    def _ada(self) -> User:
        user = accounts.find_user(EMAIL)
        assert user is not None
        return user

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.alive(), self._process.output()
        try:
            with urllib.request.urlopen(f"{self.url}/login", timeout=5) as response:
                return response.status == 200
        except (urllib.error.URLError, OSError):
            return False


class Worker:
    """What a worker tells of one attempt."""

    def __init__(
        self,
        dashboard: Dashboard,
        job_id: int,
        *,
        name: str = "gpu-box-1",
        attempt: int = 1,
        seq: int = 0,
    ) -> None:
        self._dashboard = dashboard
        self._job_id = job_id
        self._name = name
        self._attempt = attempt
        self._seq = seq

    def starts(self) -> None:
        self.tells(
            EventType.STARTED,
            worker=self._name, host=f"{self._name}.lan", device="NVIDIA L4", versions={},
            resumed=False,
        )  # fmt: skip

    def is_at(self, *, epoch: int, epochs: int, percent: float, eta_seconds: float) -> None:
        self.tells(
            EventType.PROGRESS,
            epoch=epoch, epochs=epochs, step=5, steps=45, percent=percent,
            eta_seconds=eta_seconds, images_per_second=812.0, phase="train",
        )  # fmt: skip

    def measures(self, *, epoch: int, **values: float) -> None:
        self.tells(EventType.METRICS, epoch=epoch, step=epoch * 45, values=values)

    def logs(self, *lines: str) -> None:
        self.tells(EventType.LOG, lines=list(lines))

    def keeps(self, name: str) -> None:
        self.tells(
            EventType.ARTIFACT,
            name=name, kind="checkpoint", path=name, size=44_912_331, sha256="ab" * 32,
        )  # fmt: skip

    def ends(self, outcome: str, *, error: dict[str, str] | None = None) -> None:
        self.tells(EventType.FINISHED, outcome=outcome, result=None, error=error, exit_code=0)

    def tells(self, type: EventType, **data: Any) -> None:
        self._seq += 1
        event = Event(
            job_id=self._job_id,
            attempt=self._attempt,
            seq=self._seq,
            type=type,
            time=datetime.now(UTC),
            data=data,
        )
        with self._dashboard.app.app_context():
            record([event])
