"""A worker takes no message that it has no slot for, and puts back one that came all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state
from kombu import Connection, Exchange, Producer, Queue

from tests.services import RedisService, wait_for
from workers import room, runtime
from workers.devices import Slots


class Guard:
    """Whether somebody else has the worker's GPUs, as the test says."""

    held = False

    def usable(self, device: str) -> bool:
        return not self.held

    def take(self, device: str, *, job_id: int) -> bool:
        return True

    def give_back(self, device: str) -> None: ...


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> Guard:
    guard = Guard()
    slots = Slots(["cuda:0", "cuda:1"], guard=guard)
    presence = SimpleNamespace(draining=False, notice_drain=lambda client: False)
    here = SimpleNamespace(slots=slots, presence=presence, peek=None)
    monkeypatch.setattr(runtime, "_current", here)
    return guard


@pytest.fixture
def channel(redis_service: RedisService) -> Iterator[Any]:
    """Give a worker's channel, bounded as RoomForMore bounds it, with two jobs in its queue."""
    options = {"priority_steps": list(range(10)), "queue_order_strategy": "priority"}
    url = redis_service.url
    with Connection(url, transport_options=options) as connection, connection.channel() as channel:
        queue = Queue("timm", Exchange("timm", type="direct"), routing_key="timm")
        for number in (1, 2):
            Producer(channel).publish(
                number, exchange=queue.exchange, routing_key="timm", priority=5, declare=[queue]
            )
        parent = SimpleNamespace(task_consumer=SimpleNamespace(channel=channel))
        room.RoomForMore(parent).start(parent)
        yield channel


def drain(channel: Any, take: Callable[[Any], None], *, seconds: float = 120) -> None:
    """Take the next message, or none that comes in time."""
    channel.basic_consume("timm", no_ack=False, callback=take, consumer_tag="timm")
    try:
        channel.connection.client.drain_events(timeout=seconds)
    except TimeoutError:
        pass
    channel.basic_cancel("timm")


def test_no_message_is_asked_for_while_somebody_else_has_every_device(
    guard: Guard, channel: Any
) -> None:
    taken: list[Any] = []
    guard.held = True
    drain(channel, taken.append, seconds=0.5)  # none is asked for, so none can be late
    assert taken == []
    guard.held = False
    drain(channel, taken.append)
    assert [message.payload for message in taken] == [1]


def test_a_message_that_came_all_the_same_is_the_next_for_others(
    guard: Guard, channel: Any, redis_service: RedisService, monkeypatch: pytest.MonkeyPatch
) -> None:
    handled: list[Any] = []
    monkeypatch.setattr(room, "default", lambda *_, **__: handled.append)
    take = room.strategy(None, None, None)  # type: ignore[arg-type]

    def held_just_now(message: Any) -> None:
        guard.held = True
        take(message)

    drain(channel, held_just_now)
    assert handled == []
    with redis_service.client() as client:
        wait_for(lambda: not client.hlen("unacked"), what="no message that is taken and not ended")
    guard.held = False
    drain(channel, take)
    drain(channel, take)
    assert [message.payload for message in handled] == [1, 2]


def test_room_is_what_the_tasks_leave_of_the_usable_slots(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "reserved_requests", {object()})
    assert room.has_room()
    guard.held = True
    assert not room.has_room()
    guard.held = False
    monkeypatch.setattr(state, "reserved_requests", {object(), object()})
    assert not room.has_room()
