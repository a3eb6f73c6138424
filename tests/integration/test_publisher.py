"""From the journal to the stream, through outages of a real Redis."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from adapters import wire
from adapters.wire import Event, EventType
from tests.integration.test_lease import JOB
from tests.services import PATIENCE_SECONDS, RedisService, wait_for
from workers.journal import Journal
from workers.lease import Lease
from workers.publisher import Publisher
from workers.runtime import connect


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    placed = JOB.placed(output_dir=tmp_path, weights_dir=tmp_path, compute_device="cpu")
    journal = Journal(placed)
    yield journal
    journal.close()


def held(service: RedisService) -> Lease:
    lease = Lease(connect(service.url), JOB, worker="w1")
    lease.hold()
    return lease


def published(service: RedisService) -> list[int]:
    with service.client() as client:
        entries = client.xrange(wire.EVENT_STREAM)
    return [Event.from_json(fields["event"]).seq for _, fields in entries]


def test_events_are_published_in_order_and_only_those_of_this_attempt(
    redis_service: RedisService, journal: Journal
) -> None:
    journal.append(EventType.LOG, {"lines": ["of an earlier attempt"]})
    start = journal.path.stat().st_size
    publisher = Publisher(held(redis_service), journal.path, start_offset=start)
    for _ in range(500):
        journal.append(EventType.LOG, {"lines": ["손글씨"]})
        publisher.notify()
    assert publisher.flush(wait_seconds=PATIENCE_SECONDS)
    assert published(redis_service) == list(range(2, 502))


def test_events_wait_in_the_file_while_redis_is_away(
    redis_service: RedisService, journal: Journal
) -> None:
    lease = held(redis_service)
    publisher = Publisher(lease, journal.path, start_offset=0)
    journal.append(EventType.LOG, {"lines": ["before"]})
    publisher.notify()
    wait_for(lambda: published(redis_service) == [1], what="the first event")
    redis_service.kill()
    for _ in range(50):
        journal.append(EventType.LOG, {"lines": ["meanwhile"]})
        publisher.notify()
    assert not publisher.flush(wait_seconds=0.5)
    redis_service.start()
    assert lease.hold()  # which Redis may have lost, and its worker renews at once
    assert publisher.flush(wait_seconds=PATIENCE_SECONDS)
    # The append-only log is synced each second: the first may be gone, the rest is in order.
    assert [seq for seq in published(redis_service) if seq > 1] == list(range(2, 52))


def test_a_disk_that_refuses_a_read_is_asked_again(
    redis_service: RedisService, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Publisher._next_lines
    answers = iter([OSError(errno.EIO, "Input/output error")])

    def refuse_once(publisher: Publisher, file: BinaryIO) -> list[bytes]:
        for error in answers:
            raise error
        return read(publisher, file)

    monkeypatch.setattr(Publisher, "_next_lines", refuse_once)
    journal.append(EventType.LOG, {"lines": ["on a shared disk"]})
    publisher = Publisher(held(redis_service), journal.path, start_offset=0)
    assert publisher.flush(wait_seconds=PATIENCE_SECONDS)
    assert published(redis_service) == [1]


def test_a_publisher_that_gives_up_ends_at_once(
    redis_service: RedisService, journal: Journal
) -> None:
    lease = held(redis_service)
    redis_service.kill()
    publisher = Publisher(lease, journal.path, start_offset=0)
    journal.append(EventType.LOG, {"lines": ["kept in the file"]})
    publisher.notify()
    assert not publisher.flush(wait_seconds=0.2)
    publisher.give_up()
    assert publisher.flush(wait_seconds=PATIENCE_SECONDS)
    assert "kept in the file" in journal.path.read_text()


def test_what_the_recorder_misses_is_published_again_on_request(
    redis_service: RedisService, journal: Journal
) -> None:
    journal.append(EventType.LOG, {"lines": ["of an earlier attempt"]})
    start = journal.path.stat().st_size
    for _ in range(4):
        journal.append(EventType.LOG, {"lines": ["of this one"]})
    publisher = Publisher(held(redis_service), journal.path, start_offset=start)
    wait_for(lambda: published(redis_service) == [2, 3, 4, 5], what="the events")
    publisher.publish_again(4)
    wait_for(lambda: published(redis_service) == [2, 3, 4, 5, 4, 5], what="the last two again")
    assert publisher.flush(wait_seconds=PATIENCE_SECONDS)


def test_a_worker_that_has_lost_its_lease_says_nothing_more(
    redis_service: RedisService, journal: Journal
) -> None:
    lease = held(redis_service)
    with redis_service.client() as client:
        client.set(wire.lease_key(JOB.id), "3:w2:token")
    publisher = Publisher(lease, journal.path, start_offset=0)
    journal.append(EventType.LOG, {"lines": ["too late"]})
    publisher.notify()
    assert not publisher.flush(wait_seconds=1)
    publisher.give_up()
    assert published(redis_service) == []


def test_an_event_for_which_there_is_no_space_leaves_no_gap_and_its_place_to_the_last_word(
    journal: Journal,
) -> None:
    journal.append(EventType.LOG, {"lines": ["fits"]})
    file = journal._file.fileno()
    kept, full = os.dup(file), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, file)
    with pytest.raises(OSError, match="No space left"):
        journal.append(EventType.LOG, {"lines": ["does not fit"]})
    os.dup2(kept, file)  # the space that the journal had kept
    journal.append(EventType.FINISHED, {"outcome": "failed"})
    for each in (kept, full):
        os.close(each)
    events = [Event.from_json(line) for line in journal.path.read_text().splitlines()]
    assert [(event.seq, event.type) for event in events] == [
        (1, EventType.LOG), (2, EventType.FINISHED),
    ]  # fmt: skip
    assert journal._reserve.closed
