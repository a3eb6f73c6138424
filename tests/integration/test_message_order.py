"""The broker gives jobs by priority and then by age, whenever their messages were sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection
from sqlalchemy import update

from adapters import wire
from adapters.wire import EventType
from tests.factories import FINISHED, STARTED, application, environment, make_events, make_job
from tests.services import PATIENCE_SECONDS, RedisService
from webapp.extensions import db
from webapp.models import Attempt, Job, User
from webapp.models.columns import utc_now
from webapp.services import job_actions, jobs, message_order
from webapp.services.broker import redis_client
from webapp.services.job_actions import CancelMode, send_handed_back
from webapp.services.reaper import RESEND_AFTER_SECONDS, Reaper
from webapp.services.recorder import record
from webapp.services.waiting import waits
from workers import runtime
from workers.queue_order import OldestFirst

NOBODY = User(id=0, is_admin=True)


@pytest.fixture(autouse=True)
def _instance(tmp_path: Path, redis_service: RedisService) -> Iterator[None]:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with application(environment(tmp_path, database_url=url, redis_url=redis_service.url)):
        yield


def started(*, priority: int = 4, **fields: Any) -> Job:
    job = make_job(priority=priority, **fields)
    job_actions.start(job, actor="test")
    return job


def hand_back(job: Job) -> None:
    """Let a worker take the job's message and hand the job back, as it does at its shutdown."""
    redis_client().delete(wire.priority_list("timm", wire.broker_priority(job.priority)))
    handed_back = {**FINISHED, "outcome": "handed_back"}
    events = make_events(job, (EventType.STARTED, STARTED), (EventType.FINISHED, handed_back))
    recorded = record(events)
    for job_id in recorded.handed_back:
        send_handed_back(job_id)
    db.session.refresh(job)


def given(url: str, *queues: str) -> list[int]:
    """Return the jobs in the order in which a worker's channel gets their messages."""
    queues = queues or ("timm",)
    waiting = sum(
        int(redis_client().llen(wire.priority_list(queue, step)))
        for queue in queues
        for step in range(wire.PRIORITY_STEPS)
    )
    found: list[int] = []

    def take(message: Any) -> None:
        found.append(json.loads(message.body)[1]["job"]["id"])
        message.ack()

    options = {
        "priority_steps": list(range(wire.PRIORITY_STEPS)),
        "queue_order_strategy": "workers.queue_order:OldestFirst",
    }
    with Connection(url, transport_options=options) as connection, connection.channel() as channel:
        for queue in queues:
            channel.queue_declare(queue)
            channel.basic_consume(queue, no_ack=False, callback=take, consumer_tag=queue)
        while len(found) < waiting:
            connection.drain_events(timeout=PATIENCE_SECONDS)
    return found


def expected_order(*several: Job) -> list[int]:
    """Return the jobs in the order of the places that people see."""
    db.session.expire_all()
    places = waits(several)
    return sorted((job.id for job in several), key=lambda id: places[id].position or 0)


def test_jobs_come_by_priority_and_then_by_age(redis_service: RedisService) -> None:
    low, middle, high = started(priority=0), started(), started(priority=9)
    second, third = started(), started()
    wanted = [high.id, middle.id, second.id, third.id, low.id]
    assert expected_order(low, middle, high, second, third) == wanted
    assert given(redis_service.url) == wanted


def test_a_job_that_is_handed_back_goes_before_those_that_came_later(
    redis_service: RedisService,
) -> None:
    first = started()
    hand_back(first)
    assert first.attempt == 2
    later = [started() for _ in range(3)]
    redis_client().flushall()
    for job in later:  # the broker's list as it is when the job comes back
        send_handed_back(job.id)
    send_handed_back(first.id)
    wanted = [first.id, *(job.id for job in later)]
    assert expected_order(first, *later) == wanted
    assert given(redis_service.url) == wanted


def test_jobs_sent_in_any_order_come_in_that_of_their_age(redis_service: RedisService) -> None:
    several = [started() for _ in range(35)]
    redis_client().flushall()
    for job in (*several[20:], *several[9::-1], *several[10:20]):
        send_handed_back(job.id)
    assert given(redis_service.url) == [job.id for job in several]


def test_a_job_that_the_reaper_sends_again_keeps_its_place(
    redis_service: RedisService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webapp.services.reaper._redis_is_fresh", lambda: False)
    lost, *others = [started() for _ in range(3)]
    task_id = wire.task_id(lost.id, lost.attempt)
    message_order.forget("timm", task_id=task_id, priority=lost.priority)
    assert task_id not in message_order.task_ids("timm")
    past = utc_now() - timedelta(seconds=RESEND_AFTER_SECONDS + 1)
    db.session.execute(update(Attempt).values(queued_at=past))
    db.session.commit()
    Reaper().send_again()
    assert given(redis_service.url) == [lost.id, *(job.id for job in others)]


@pytest.mark.parametrize(("priority", "place"), [(9, 0), (5, 0), (3, 2), (4, 1)])
def test_a_new_priority_is_the_one_that_counts(
    redis_service: RedisService, priority: int, place: int
) -> None:
    before, job, after = started(), started(), started()
    jobs.change(job, {"priority": priority}, user=NOBODY)
    wanted = [before.id, after.id]
    wanted.insert(place, job.id)
    assert expected_order(before, job, after) == wanted
    assert len(message_order.task_ids("timm")) == 3
    assert given(redis_service.url) == wanted


def test_among_jobs_of_its_new_priority_a_job_has_the_place_of_its_age(
    redis_service: RedisService,
) -> None:
    oldest = started(priority=2)
    others = [started(priority=6) for _ in range(2)]
    jobs.change(oldest, {"priority": 6}, user=NOBODY)
    assert given(redis_service.url) == [oldest.id, *(job.id for job in others)]


def test_a_job_resumed_by_a_person_begins_to_wait_anew(redis_service: RedisService) -> None:
    job = started()
    record(make_events(job, (EventType.STARTED, STARTED)))
    job_actions.cancel(job, mode=CancelMode.NOW, actor="test")
    record(make_events(job, (EventType.FINISHED, {**FINISHED, "outcome": "cancelled"}), first=2))
    db.session.refresh(job)
    redis_client().flushall()
    waits_already = started()
    job_actions.resume(job, actor="test")
    assert given(redis_service.url) == [waits_already.id, job.id]


def test_of_two_queues_the_older_message_comes_first(
    redis_service: RedisService, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Here:
        peek = redis_service.client()

    monkeypatch.setattr(runtime, "current", Here)
    kinds = ("auto", "gpu", "gpu", "auto", "gpu", "auto")
    several = [started(device_choice=kind) for kind in kinds]
    urgent = started(device_choice="gpu", priority=9)
    wanted = [urgent.id, *(job.id for job in several)]
    assert expected_order(*several, urgent) == wanted
    assert given(redis_service.url, "timm", wire.gpu_queue_name("timm")) == wanted


def test_without_an_answer_the_queues_keep_their_order() -> None:
    order = OldestFirst()
    order.update(["b", "a"])
    assert order.consume(2) == ["b", "a"]  # this process is no worker and has nobody to ask


def test_who_needs_a_gpu_holds_up_nobody_on_hosts_without_one(redis_service: RedisService) -> None:
    needs_gpu, job = started(device_choice="gpu"), started()
    told = {
        "name": "cpu1", "frameworks": ["timm"], "versions": {}, "gpu": [], "slots": 1, "busy": 1,
        "jobs": [], "status": "online",
    }  # fmt: skip
    redis_client().set(wire.worker_key("cpu1"), json.dumps(told))
    redis_client().zadd(wire.WORKERS_KEY, {"cpu1": 1.0})
    found = waits([needs_gpu, job])
    assert found[job.id].position == 1
    assert found[job.id].reason == "Next in the queue timm; its one slot is busy"
