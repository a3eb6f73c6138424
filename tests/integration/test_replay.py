"""What Redis lost, or a killed worker had not published, is recorded from the attempt's file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from adapters import wire
from adapters.wire import Event, EventType
from tests.factories import (
    FINISHED,
    STARTED,
    make_events,
    metrics,
)
from tests.services import RedisService
from webapp.extensions import db
from webapp.models import Attempt, Job, JobEvent, Metric
from webapp.models.columns import utc_now
from webapp.recorder import StreamRecorder
from webapp.services import event_log, recorder
from webapp.services.local_runner import StopFlag
from webapp.services.outputs import output_dir
from webapp.services.reaper import RESEND_AFTER_SECONDS, Reaper
from webapp.services.recorder import record


def attempt_of(job: Job, *, epochs: int, ends: bool = False) -> list[Event]:
    steps = [
        (EventType.STARTED, STARTED),
        *(metrics(n, top1=n / 100) for n in range(1, epochs + 1)),
    ]
    return make_events(job, *steps, *([(EventType.FINISHED, FINISHED)] if ends else []))


def write_journal(job: Job, events: Sequence[Event], *, rest: bytes = b"") -> None:
    folder = output_dir(job.id)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / wire.JOURNAL_NAME).open("ab") as file:
        file.writelines(event.to_json().encode() + b"\n" for event in events)
        file.write(rest)


def publish(redis: RedisService, events: Sequence[Event]) -> None:
    with redis.client() as client:
        for event in events:
            client.xadd(wire.EVENT_STREAM, {"event": event.to_json()})


def recorded_epochs(job: Job) -> list[int]:
    db.session.rollback()
    return list(db.session.scalars(select(Metric.epoch).filter_by(job_id=job.id).order_by("epoch")))


def fresh(job: Job) -> Job:
    db.session.rollback()
    db.session.refresh(job)
    return job


def suspicious_reaper() -> Reaper:
    now = 0.0
    reaper = Reaper(clock=lambda: now)
    now += wire.LEASE_SECONDS + 1
    return reaper


def test_what_redis_lost_is_recorded_from_the_file_in_its_order(
    job: Job, redis: RedisService
) -> None:
    events = attempt_of(job, epochs=6)
    write_journal(job, events)
    publish(redis, events[:2] + events[5:])
    StreamRecorder(StopFlag()).step()
    assert recorded_epochs(job) == [1, 2, 3, 4, 5, 6]
    told = db.session.scalars(select(JobEvent).filter_by(type="metrics").order_by(JobEvent.id))
    assert [event.data["epoch"] for event in told] == [1, 2, 3, 4, 5, 6]


def test_where_the_file_is_not_seen_the_worker_is_asked_and_nothing_is_jumped_over(
    job: Job, redis: RedisService
) -> None:
    events = attempt_of(job, epochs=4)
    publish(redis, events[:2] + events[3:])
    step = StreamRecorder(StopFlag()).step
    step()
    assert recorded_epochs(job) == [1]
    with redis.client() as client:
        assert client.get(wire.replay_key(job.id)) == "1:3"
    publish(redis, events[2:])
    step()
    assert recorded_epochs(job) == [1, 2, 3, 4]


def test_what_a_killed_worker_wrote_and_never_published_is_recorded(
    job: Job, redis: RedisService
) -> None:
    events = attempt_of(job, epochs=5)
    record(events[:2])
    write_journal(job, events, rest=b'{"job_id":1,"attempt":1,"se')
    reaper = suspicious_reaper()
    reaper.give_up(reaper.suspects())
    assert recorded_epochs(job) == [1, 2, 3, 4, 5]
    assert (fresh(job).status, job.attempt, job.lost_attempts) == ("queued", 2, 1)
    assert db.session.get_one(Attempt, (job.id, 1)).last_seq == 6


@pytest.mark.parametrize(
    ("outcome", "after"), [("completed", ("completed", 1)), ("handed_back", ("queued", 2))]
)
def test_an_attempt_whose_end_never_arrived_ends_as_its_file_says(
    job: Job, redis: RedisService, outcome: str, after: tuple[str, int]
) -> None:
    record(attempt_of(job, epochs=1))
    last = make_events(job, (EventType.FINISHED, {**FINISHED, "outcome": outcome}), first=3)
    write_journal(job, [*attempt_of(job, epochs=1), *last])
    reaper = suspicious_reaper()
    reaper.give_up(reaper.suspects())
    assert (fresh(job).status, job.attempt) == after
    assert job.lost_attempts == 0


def test_of_an_attempt_that_was_begun_twice_the_second_time_counts(
    job: Job, redis: RedisService
) -> None:
    write_journal(job, attempt_of(job, epochs=4))
    second = attempt_of(job, epochs=2)
    write_journal(job, second)
    publish(redis, second[1:])
    StreamRecorder(StopFlag()).step()
    assert recorded_epochs(job) == [1, 2]


def test_an_event_that_cannot_be_recorded_does_not_hold_up_the_next(
    job: Job, redis: RedisService
) -> None:
    events = attempt_of(job, epochs=3)
    events[2] = make_events(job, (EventType.METRICS, {"epoch": "x", "values": {}}), first=3)[0]
    publish(redis, events)
    StreamRecorder(StopFlag()).step()
    assert recorded_epochs(job) == [1, 3]


def test_what_a_dead_recorder_had_read_is_recorded_first_by_the_one_that_takes_over(
    job: Job, redis: RedisService
) -> None:
    events = attempt_of(job, epochs=4)
    first, second = StreamRecorder(StopFlag()), StreamRecorder(StopFlag())
    first.step()
    publish(redis, events[:3])
    assert first._read(block=None)  # and then it dies
    publish(redis, events[3:])
    with redis.client() as client:
        client.persist(wire.RECORDER_TURN_KEY)  # however long the next lines take
    second._stand_by = lambda: None  # type: ignore[method-assign]
    second.step()
    assert recorded_epochs(job) == []  # not its turn
    with redis.client() as client:
        client.delete(wire.RECORDER_TURN_KEY)
        second.step()
        assert recorded_epochs(job) == [1, 2, 3, 4]
        assert client.xlen(wire.EVENT_STREAM) == 0


def test_what_was_read_and_lost_on_its_way_is_recorded_all_the_same(
    job: Job, redis: RedisService
) -> None:
    one = StreamRecorder(StopFlag())
    one.step()
    publish(redis, attempt_of(job, epochs=4))
    assert one._read(block=None)  # the answer is lost, and the next one is asked for
    one._reap_at = 0.0
    one.step()
    assert recorded_epochs(job) == [1, 2, 3, 4]
    with redis.client() as client:
        assert client.xlen(wire.EVENT_STREAM) == 0


def test_what_was_read_before_the_database_failed_is_recorded_before_what_came_later(
    job: Job, redis: RedisService, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = attempt_of(job, epochs=4)
    one = StreamRecorder(StopFlag())
    publish(redis, events[:3])

    def away(session: object) -> None:
        raise recorder.OperationalError("SELECT 1", {}, Exception("the database is away"))

    monkeypatch.setattr(event_log, "lock_order", away)
    with pytest.raises(recorder.OperationalError):
        one.step()
    monkeypatch.undo()
    monkeypatch.setattr("webapp.services.reaper._redis_is_fresh", lambda: False)
    db.session.rollback()
    one._caught_up = False  # as run() does
    publish(redis, events[3:])
    one.step()
    assert recorded_epochs(job) == [1, 2, 3, 4]


def test_an_attempt_whose_worker_died_as_it_began_is_lost_and_not_begun_again(
    job: Job, redis: RedisService
) -> None:
    write_journal(job, attempt_of(job, epochs=0))
    with redis.client() as client:
        client.delete(wire.priority_list("timm", 5))
    age = utc_now() - timedelta(seconds=RESEND_AFTER_SECONDS + 1)
    db.session.execute(update(Attempt).values(queued_at=age))
    db.session.commit()
    reaper = suspicious_reaper()
    reaper.send_again()
    assert (fresh(job).status, job.attempt) == ("running", 1)
    reaper.give_up(reaper.suspects())
    assert (fresh(job).status, job.attempt) == ("queued", 2)
