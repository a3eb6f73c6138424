"""The priority of a queued job is changed by two at once: its message has that of its row."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask

from adapters import wire
from tests.factories import application, environment, make_job
from tests.services import RedisService
from webapp.extensions import db
from webapp.models import Job, User
from webapp.services import job_actions, jobs
from webapp.services.executors import CeleryExecutor
from webapp.services.message_order import task_ids

NOBODY = User(id=0, is_admin=True)


@pytest.fixture
def app(tmp_path: Path, database_url: str, redis_service: RedisService) -> Iterator[Flask]:
    environ = environment(tmp_path, database_url=database_url, redis_url=redis_service.url)
    with application(environ) as app:
        yield app


def another(app: Flask, job_id: int, *, priority: int) -> None:
    """Change the priority as another process does, from the first look at the job to the end."""

    def change() -> None:
        with app.app_context():
            job = db.session.get_one(Job, job_id)
            jobs.change(job, {"priority": priority}, user=NOBODY)

    thread = threading.Thread(target=change)
    thread.start()
    thread.join()


def once(act: Callable[[], None]) -> Callable[[], None]:
    left = [act]
    return lambda: left.pop()() if left else None


@pytest.mark.parametrize("theirs", [9, 4, 2])
@pytest.mark.parametrize("moment", ["read", "committed", "sent", "forgotten"])
def test_the_message_follows_the_row_whoever_is_in_between(
    app: Flask, monkeypatch: pytest.MonkeyPatch, moment: str, theirs: int
) -> None:
    job = make_job(priority=4)
    job_actions.start(job, actor="test")
    db.session.refresh(job)
    # What another does in the middle of a change of ours from 4 to 7.
    act = once(lambda: another(app, job.id, priority=theirs))
    start, forget = CeleryExecutor.start, CeleryExecutor.forget

    def starting(self: CeleryExecutor, job: Job) -> None:
        if moment == "committed":
            act()
        start(self, job)
        if moment == "sent":
            act()

    def forgetting(self: CeleryExecutor, job: Job, *, priority: int) -> None:
        forget(self, job, priority=priority)
        if moment == "forgotten":
            act()

    if moment == "read":
        act()
    monkeypatch.setattr(CeleryExecutor, "start", starting)
    monkeypatch.setattr(CeleryExecutor, "forget", forgetting)
    jobs.change(job, {"priority": 7}, user=NOBODY)

    db.session.rollback()
    db.session.refresh(job)
    assert job.priority == (7 if moment == "read" else theirs)
    at = [step for step in range(wire.PRIORITY_STEPS) if task_ids("timm", priorities=[step])]
    assert at == [job.priority]
