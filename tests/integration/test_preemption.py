"""The recorder asks for places through Redis, and takes back what is needed no more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters import wire
from adapters.wire import EventType
from tests.factories import FINISHED, STARTED, application, environment, make_events, make_job
from tests.services import RedisService
from webapp.extensions import db
from webapp.models import Attempt, Job, User
from webapp.services import job_actions, jobs, preemption
from webapp.services.broker import redis_client
from webapp.services.job_actions import CancelMode
from webapp.services.message_order import task_ids
from webapp.services.recorder import record

HEARD_TO_THE_END = -3600.0  # of the test, however long it takes
NOBODY = User(id=0, is_admin=True)


@pytest.fixture(autouse=True)
def _instance(tmp_path: Path, database_url: str, redis_service: RedisService) -> Iterator[None]:
    with application(environment(tmp_path, database_url=database_url, redis_url=redis_service.url)):
        publish("w1")
        yield


def publish(name: str, *, silent_seconds: float = HEARD_TO_THE_END, **fields: Any) -> None:
    told = {"name": name, "frameworks": ["timm"], "gpu": [], "slots": 1, "status": "online"}
    left = round(1000 * (wire.WORKER_TTL_SECONDS - silent_seconds))
    redis_client().set(wire.worker_key(name), json.dumps({**told, **fields}), px=left)
    redis_client().zadd(wire.WORKERS_KEY, {name: 1.0})


def running(*, worker: str = "w1", priority: int = 2) -> Job:
    job = make_job(priority=priority)
    job_actions.start(job, actor="test")
    redis_client().delete(wire.priority_list("timm", wire.broker_priority(priority)))
    record(make_events(job, (EventType.STARTED, {**STARTED, "worker": worker})))
    return job


def urgent(**fields: Any) -> Job:
    job = make_job(**{"priority": 9, "preempt": True, **fields})
    job_actions.start(job, actor="test")
    return job


def end(job: Job, outcome: str) -> None:
    data = {**FINISHED, "outcome": outcome}
    record(make_events(job, (EventType.FINISHED, data), first=2))


def asked(job: Job) -> tuple[int | None, str | None]:
    """Return whom the job is to give its place to, in the database and as its worker hears it."""
    preemption.follow()
    db.session.expire_all()
    told: Any = redis_client().get(wire.preempt_key(job.id))
    return job.displaced_by, told


def test_a_worker_is_told_again_until_the_job_has_given_its_place() -> None:
    job, first = running(), urgent()
    for _ in range(2):
        assert asked(job) == (first.id, f"1:{first.id}")
        redis_client().delete(wire.preempt_key(job.id))
    end(job, "preempted")
    db.session.expire_all()
    assert (job.status, job.attempt, job.displaced_by) == ("queued", 2, first.id)
    attempt = db.session.get_one(Attempt, (job.id, 1))
    told = f"gave its place to job {first.id} (priority 9)"
    assert (attempt.outcome, attempt.reason) == ("preempted", told)
    assert asked(job) == (first.id, None)
    begun = (EventType.STARTED, STARTED)
    record(make_events(job, begun))
    db.session.expire_all()
    assert (job.status, job.displaced_by) == ("running", None)


@pytest.mark.parametrize("changes", [{"preempt": False}, {"priority": 2, "preempt": False}])
def test_an_urgent_job_that_is_urgent_no_more_takes_its_wish_back(changes: dict[str, Any]) -> None:
    job, first = running(), urgent()
    assert asked(job)[0] == first.id
    jobs.change(first, changes, user=NOBODY)
    assert asked(job) == (None, None)


def test_an_urgent_job_that_is_cancelled_takes_its_wish_back() -> None:
    job, first = running(), urgent()
    assert asked(job)[0] == first.id
    job_actions.cancel(first, mode=CancelMode.NOW, actor="test")
    assert asked(job) == (None, None)
    end(job, "preempted")  # it had heard already
    db.session.expire_all()
    assert (job.status, job.attempt) == ("queued", 2)


def test_a_job_that_completes_meanwhile_is_completed_and_its_slot_is_the_urgent_ones() -> None:
    job, first = running(), urgent()
    assert asked(job)[0] == first.id
    end(job, "completed")
    assert asked(job)[0] is None
    assert (job.status, first.status) == ("completed", "queued")


def test_a_job_cancelled_while_it_makes_place_ends_cancelled() -> None:
    job, first = running(), urgent()
    assert asked(job)[0] == first.id
    job_actions.cancel(job, mode=CancelMode.AFTER_EPOCH, actor="test")
    end(job, "preempted")
    assert asked(job)[0] is None
    assert job.status == "cancelled"


def test_workers_that_drain_or_are_silent_are_not_asked() -> None:
    job = running()
    publish("w1", status="draining")
    first = urgent()
    assert asked(job) == (None, None)
    publish("w1", silent_seconds=20)
    assert asked(job) == (None, None)
    publish("w1", silent_seconds=5)
    assert asked(job) == (first.id, f"1:{first.id}")


def test_a_place_on_a_worker_that_fell_silent_is_looked_for_elsewhere() -> None:
    publish("w2")
    job, other = running(worker="w1", priority=1), running(worker="w2", priority=2)
    first = urgent()
    assert asked(job)[0] == first.id
    publish("w1", silent_seconds=20)
    assert asked(other)[0] == first.id


def test_an_urgent_job_whose_message_is_gone_displaces_nobody() -> None:
    job, first = running(), urgent()
    redis_client().delete("timm")
    assert asked(job) == (None, None)  # a worker may just have taken it
    assert first.status == "queued"


def test_a_message_that_is_lost_once_a_place_is_being_made_is_sent_at_once() -> None:
    job, first = running(), urgent()
    assert asked(job)[0] == first.id
    redis_client().delete("timm")
    preemption.follow()
    assert task_ids("timm") == {wire.task_id(first.id, 1)}
