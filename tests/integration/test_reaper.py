"""What the queue forgot is found: lost attempts, messages that were never sent or lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, update

from adapters import wire
from adapters.wire import EventType
from tests.factories import STARTED, make_events, make_job
from tests.services import RedisService
from webapp.extensions import db
from webapp.models import Attempt, Job
from webapp.models.columns import utc_now
from webapp.services import event_log, executors, job_actions
from webapp.services.job_actions import CancelMode
from webapp.services.reaper import RESEND_AFTER_SECONDS, Reaper, forgotten, give_up_attempt
from webapp.services.recorder import record


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def reaper() -> Reaper:
    clock = Clock()
    reaper = Reaper(clock=clock)
    clock.now += wire.LEASE_SECONDS + 1
    return reaper


def begin(job: Job) -> None:
    """Let a worker take the job: its message is gone, its attempt has started."""
    executors.broker.redis_client().delete(wire.priority_list("timm", 5))
    record(make_events(job, (EventType.STARTED, STARTED)))


def fresh(job: Job) -> Job:
    db.session.rollback()
    db.session.refresh(job)
    return job


@contextmanager
def statements() -> Iterator[list[str]]:
    """Give a list that fills with what the database is asked meanwhile."""
    found: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        found.append(statement)

    event.listen(db.engine, "before_cursor_execute", note)
    yield found
    event.remove(db.engine, "before_cursor_execute", note)


def messages() -> int:
    client = executors.broker.redis_client()
    return sum(int(client.llen(wire.priority_list("timm", step))) for step in range(10))


def test_a_job_whose_lease_died_is_queued_again_from_its_checkpoint(
    job: Job, reaper: Reaper
) -> None:
    begin(job)
    reaper.give_up(reaper.suspects())
    job = fresh(job)
    assert (job.status, job.attempt, job.resume, job.lost_attempts) == ("queued", 2, True, 1)
    assert messages() == 1
    lost = db.session.get_one(Attempt, (job.id, 1))
    assert (lost.outcome, lost.reason) == ("lost", "worker w1 was lost")


def test_a_job_whose_lease_lives_is_left_alone(job: Job, reaper: Reaper) -> None:
    begin(job)
    executors.broker.redis_client().set(wire.lease_key(job.id), "1:w1:token")
    assert reaper.suspects() == []


def test_a_lease_that_came_back_saves_a_suspect(job: Job, reaper: Reaper) -> None:
    begin(job)
    suspects = reaper.suspects()
    executors.broker.redis_client().set(wire.lease_key(job.id), "1:w1:token")
    reaper.give_up(suspects)
    assert fresh(job).status == "running"


def test_nothing_is_judged_within_a_lease_time_of_redis_return(job: Job, reaper: Reaper) -> None:
    begin(job)
    reaper.redis_was_away()
    assert reaper.suspects() == []


def test_a_server_that_has_just_started_is_not_trusted(
    job: Job, reaper: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(job)
    monkeypatch.undo()
    assert reaper.suspects() == []


def test_too_many_lost_attempts_fail_the_job_with_the_reason(job: Job, reaper: Reaper) -> None:
    for attempt in (1, 2, 3):
        begin(job)
        assert job.attempt == attempt
        reaper.give_up(reaper.suspects())
        job = fresh(job)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["kind"] == "worker_lost"
    assert "3 attempts were lost" in job.error["message"]


def test_a_cancelling_job_whose_worker_is_lost_is_cancelled(job: Job, reaper: Reaper) -> None:
    begin(job)
    job_actions.cancel(job, mode=CancelMode.NOW, actor="test")
    reaper.give_up(reaper.suspects())
    assert fresh(job).status == "cancelled"


def test_a_queued_job_that_the_broker_lost_is_sent_again_once(job: Job, reaper: Reaper) -> None:
    executors.broker.redis_client().flushall()
    reaper.send_again()
    assert messages() == 0  # it may be in a worker's hands: not yet
    age = utc_now() - timedelta(seconds=RESEND_AFTER_SECONDS + 1)
    db.session.execute(update(Attempt).values(queued_at=age))
    db.session.commit()
    reaper.send_again()
    reaper.send_again()
    assert messages() == 1
    assert fresh(job).attempt == 1


def test_that_many_jobs_wait_costs_the_database_no_more_than_one(job: Job, reaper: Reaper) -> None:
    def look() -> None:
        reaper.suspects()
        reaper.follow_workers()
        reaper.send_again()

    jobs = [make_job(device_choice=device) for device in ("auto", "gpu", "auto", "gpu")]
    db.session.execute(update(Attempt).values(queued_at=utc_now() - timedelta(hours=1)))
    db.session.commit()
    with statements() as of_one:
        look()
    for other in jobs:
        job_actions.start(other, actor="test")
    db.session.execute(update(Attempt).values(queued_at=utc_now() - timedelta(hours=1)))
    db.session.commit()
    with statements() as of_many:
        look()
    assert len(of_many) == len(of_one)
    assert [fresh(each).attempt for each in (job, *jobs)] == [1] * 5


def test_suspects_that_take_long_are_given_up_one_look_after_the_other(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_job()
    job_actions.start(other, actor="test")
    begin(job)
    begin(other)
    clock = Clock()
    reaper = Reaper(clock=clock)
    clock.now += wire.LEASE_SECONDS + 1

    def wait_for_the_store(job: Job, *, reason: str) -> None:
        clock.now += 20
        give_up_attempt(job, reason=reason)

    monkeypatch.setattr("webapp.services.reaper.give_up_or_conclude", wait_for_the_store)
    reaper.give_up(reaper.suspects())
    assert [fresh(each).status for each in (job, other)] == ["queued", "running"]
    reaper.give_up(reaper.suspects())
    assert fresh(other).status == "queued"


def test_a_queued_job_that_needs_a_gpu_is_looked_for_where_it_waits(
    job: Job, reaper: Reaper
) -> None:
    needs_gpu = make_job(device_choice="gpu")
    job_actions.start(needs_gpu, actor="test")
    client = executors.broker.redis_client()
    waiting = wire.priority_list(wire.gpu_queue_name("timm"), 5)
    assert client.llen(waiting) == 1
    age = utc_now() - timedelta(seconds=RESEND_AFTER_SECONDS + 1)
    db.session.execute(update(Attempt).values(queued_at=age))
    db.session.commit()
    reaper.send_again()
    assert client.llen(waiting) == 1


def test_a_cancel_that_redis_did_not_hear_is_repeated(
    job: Job, reaper: Reaper, redis: RedisService
) -> None:
    begin(job)
    redis.kill()
    job_actions.cancel(job, mode=CancelMode.KILL, actor="test")
    assert fresh(job).status == "cancelling"
    redis.start()
    reaper.repeat_cancels()
    with redis.client() as client:
        assert client.get(wire.cancel_key(job.id)) == "1:kill"


def test_what_happens_meanwhile_wins_over_giving_up(job: Job) -> None:
    begin(job)
    data = {"outcome": "completed", "result": None, "error": None, "exit_code": 0}
    record(make_events(job, (EventType.FINISHED, data), first=2))
    give_up_attempt(job, reason="late")
    job = fresh(job)
    assert (job.status, job.attempt) == ("completed", 1)
    assert db.session.get_one(Attempt, (job.id, 1)).outcome == "completed"


def test_the_next_attempt_is_not_given_up_in_the_place_of_one_that_another_recorder_did(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(job)
    wait_for_turn = event_log.lock_order

    def be_late(session: Any) -> None:
        monkeypatch.setattr(event_log, "lock_order", wait_for_turn)
        give_up_attempt(job, reason="another was faster")
        begin(job)
        wait_for_turn(session)

    monkeypatch.setattr(event_log, "lock_order", be_late)
    give_up_attempt(job, reason="late")
    assert (fresh(job).status, job.attempt, job.lost_attempts) == ("running", 2, 1)


@pytest.mark.parametrize("fast_by", [timedelta(hours=-1), timedelta(hours=1)])
def test_a_worker_whose_clock_is_wrong_delays_no_job_that_it_hands_back(
    job: Job, fast_by: timedelta
) -> None:
    begin(job)
    data = {"outcome": "handed_back", "result": None, "error": None, "exit_code": 0}
    (event,) = make_events(job, (EventType.FINISHED, data), first=2)
    record([dataclasses.replace(event, time=utc_now() + fast_by)])
    assert (fresh(job).status, job.attempt) == ("queued", 2)
    assert forgotten() == [job.id]  # whoever recorded it died before it was sent


def test_a_start_while_the_broker_is_down_leaves_the_job_pending(
    job: Job, redis: RedisService
) -> None:
    other = make_job()
    redis.kill()
    with pytest.raises(job_actions.Unavailable, match="The broker cannot be reached"):
        job_actions.start(other, actor="test")
    assert fresh(other).status == "pending"
