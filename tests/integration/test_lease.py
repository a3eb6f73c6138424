"""The right to train, on a real Redis."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from adapters import wire
from adapters.contract import DatasetFormat, TaskType, TrainingJob
from tests.services import RedisService, wait_for
from workers.control import Control
from workers.fresh_redis import let_others_renew
from workers.lease import Lease
from workers.runtime import connect
from workers.stopping import Stop

JOB = TrainingJob(
    id=7, attempt=2, framework="timm", model_name="m", task_type=TaskType.IMAGE_CLASSIFICATION,
    dataset_path=Path("/d"), dataset_format=DatasetFormat.IMAGEFOLDER, epochs=1, batch_size=1,
    learning_rate=0.1,
)  # fmt: skip


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


def lease(client: redis.Redis, *, attempt: int = 2, worker: str = "w1") -> Lease:
    return Lease(client, dataclasses.replace(JOB, attempt=attempt), worker=worker)


def test_one_of_two_workers_gets_the_lease(client: redis.Redis) -> None:
    assert lease(client).hold()
    assert not lease(client, worker="w2").hold()


def test_a_message_delivered_twice_to_one_worker_trains_once(client: redis.Redis) -> None:
    assert lease(client).hold()
    assert not lease(client).hold()


def test_a_lease_expires_unless_it_is_renewed(client: redis.Redis) -> None:
    mine = lease(client)
    mine.hold()
    client.pexpire(wire.lease_key(JOB.id), 5)
    assert mine.hold()
    assert client.pttl(wire.lease_key(JOB.id)) > 1000 * wire.LEASE_SECONDS / 2


def test_a_lease_that_redis_lost_is_had_again(client: redis.Redis) -> None:
    mine = lease(client)
    mine.hold()
    client.flushall()
    assert mine.hold()
    assert not lease(client, worker="w2").hold()


def test_an_attempt_below_the_fence_gets_no_lease_and_keeps_none(client: redis.Redis) -> None:
    mine = lease(client)
    mine.hold()
    client.set(wire.fence_key(JOB.id), 3)
    assert not mine.hold()
    assert not lease(client).hold()


def test_after_the_end_a_second_copy_of_the_message_does_not_train(client: redis.Redis) -> None:
    mine = lease(client)
    mine.hold()
    mine.release()
    assert not lease(client).hold()
    assert lease(client, attempt=3).hold()


def test_a_lease_that_redis_lost_is_renewed_at_the_next_look(client: redis.Redis) -> None:
    control = Control(client)
    held = lease(client)
    held.hold()
    control.add(JOB, task_id="t", lease=held, device="cpu")
    client.delete(wire.lease_key(JOB.id))
    control.poll()
    assert held.is_held(client.get(wire.lease_key(JOB.id)))


def test_a_lease_that_redis_refuses_to_renew_does_not_keep_others_from_it(
    client: redis.Redis,
) -> None:
    control = Control(client)
    for number in (7, 8):
        job = dataclasses.replace(JOB, id=number)
        held = Lease(client, job, worker="w1")
        held.hold()
        control.add(job, task_id=str(number), lease=held, device="cpu")
        client.delete(wire.lease_key(number))
    client.set(wire.fence_key(7), "nothing that the script can count with")
    with pytest.raises(ValueError, match="nothing that the script"):
        control.poll()
    assert not client.exists(wire.lease_key(7))
    assert held.is_held(client.get(wire.lease_key(8)))


def test_leases_are_renewed_after_a_look_that_failed_for_whatever_reason(
    client: redis.Redis,
) -> None:
    control = Control(client)
    held = lease(client)
    held.hold()
    control.add(JOB, task_id="t", lease=held, device="cpu")
    client.set(wire.replay_key(JOB.id), "2:not a number")
    control.start()
    try:
        wait_for(lambda: not client.exists(wire.replay_key(JOB.id)), what="the look that fails")
        client.delete(wire.lease_key(JOB.id))
        wait_for(lambda: held.is_held(client.get(wire.lease_key(JOB.id))), what="a renewal")
    finally:
        control.stop()


def test_an_attempt_that_a_file_tells_of_is_not_begun_on_a_redis_that_has_just_started(
    redis_service: RedisService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "LEASE_SECONDS", 3)
    monkeypatch.setattr("workers.fresh_redis.REAPER_SECONDS", 1)
    journal = tmp_path / wire.JOURNAL_NAME
    journal.write_text('{"job_id":7,"attempt":2,"seq":1,"type":"started"}\n')
    with connect(redis_service.url) as client:
        let_others_renew(client, JOB, tmp_path)
        assert client.info("server")["uptime_in_seconds"] >= 4
        monkeypatch.setattr("workers.fresh_redis.time", None)  # it need not wait any more
        let_others_renew(client, JOB, tmp_path)


def test_what_another_holds_is_not_released(client: redis.Redis) -> None:
    late = lease(client)
    late.hold()
    client.delete(wire.lease_key(JOB.id))
    other = lease(client, worker="w2", attempt=3)
    assert other.hold()
    late.release()
    assert other.hold()


@pytest.mark.parametrize(
    ("key", "value", "stop"),
    [
        (wire.cancel_key(7), "2:now", Stop.NOW),
        (wire.cancel_key(7), "2:after_epoch", Stop.AFTER_EPOCH),
        (wire.cancel_key(7), "2:kill", Stop.KILL),
        (wire.cancel_key(7), "1:now", None),  # meant for an earlier attempt
        (wire.cancel_key(7), "2:explode", None),
        (wire.fence_key(7), "3", Stop.LOST),
        (wire.fence_key(7), "2", None),
    ],
)
def test_the_control_hears_cancels_and_fences(
    client: redis.Redis, key: str, value: str, stop: Stop | None
) -> None:
    control = Control(client)
    held = lease(client)
    held.hold()
    attempt = control.add(JOB, task_id="t", lease=held, device="cpu")
    client.set(key, value)
    control.poll()
    assert attempt.stop.current == stop


def test_the_control_renews_leases_in_time_and_notices_when_one_is_lost(
    client: redis.Redis,
) -> None:
    now = 0.0
    control = Control(client, clock=lambda: now)
    held = lease(client)
    held.hold()
    attempt = control.add(JOB, task_id="t", lease=held, device="cpu")
    client.pexpire(wire.lease_key(JOB.id), 9000)
    now = wire.LEASE_RENEWAL_SECONDS + 1
    control.poll()
    assert client.pttl(wire.lease_key(JOB.id)) > 9000
    client.set(wire.lease_key(JOB.id), "3:other:token")
    now *= 3
    control.poll()
    assert attempt.stop.current == Stop.LOST
