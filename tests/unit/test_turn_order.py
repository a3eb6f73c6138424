"""In `subprocess` mode the recorder takes jobs by priority, then by age, as people see it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.wire import EventType
from tests.factories import FINISHED, STARTED, application, environment, make_events, make_job
from webapp.extensions import db
from webapp.models import Job, User
from webapp.services import job_actions, jobs
from webapp.services.local_runner import _next_queued
from webapp.services.recorder import record
from webapp.services.waiting import waits

NOBODY = User(id=0, is_admin=True)


@pytest.fixture(autouse=True)
def _instance(tmp_path: Path) -> Iterator[None]:
    with application(environment(tmp_path, database_url=f"sqlite:///{tmp_path / 'db'}")):
        yield


def started(*, priority: int = 4, framework: str = "timm") -> Job:
    job = make_job(priority=priority, framework=framework, queue=framework)
    job_actions.start(job, actor="test")
    return job


def begin(job: Job) -> None:
    record(make_events(job, (EventType.STARTED, STARTED)))
    db.session.expire_all()


def taken() -> list[int]:
    """Return the jobs in the order in which the recorder takes them, each with its place first."""
    found = []
    while (job := _next_queued(gpu=False, but=[])) is not None:
        assert waits([job])[job.id].position == 1
        found.append(job.id)
        begin(job)
    return found


def test_the_most_urgent_goes_first_and_of_equals_the_oldest_of_whichever_framework() -> None:
    low, first, high = started(priority=1), started(), started(priority=9)
    second, third = started(framework="ultralytics"), started()
    assert taken() == [high.id, first.id, second.id, third.id, low.id]


def test_a_new_priority_counts_at_once() -> None:
    first, second, third = (started() for _ in range(3))
    jobs.change(third, {"priority": 5}, user=NOBODY)
    jobs.change(first, {"priority": 3}, user=NOBODY)
    assert taken() == [third.id, second.id, first.id]


@pytest.mark.parametrize("outcome", ["handed_back", "preempted"])
def test_a_job_that_comes_back_goes_before_those_that_came_later(outcome: str) -> None:
    first = started()
    begin(first)
    second = started()
    record(make_events(first, (EventType.FINISHED, {**FINISHED, "outcome": outcome}), first=2))
    db.session.expire_all()
    assert first.status == "queued"
    assert taken() == [first.id, second.id]
