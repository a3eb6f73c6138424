"""What a lost worker elsewhere had not published is recorded from what it had stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from adapters.wire import Event, EventType
from modelyard.storage import open_store
from modelyard.stored_copies import put_events
from modelyard.stored_outputs import StoredOutputs
from tests.factories import FINISHED, application, environment, make_events, make_job
from tests.integration.test_replay import (
    attempt_of,
    fresh,
    recorded_epochs,
    suspicious_reaper,
)
from tests.services import RedisService
from webapp.models import Job
from webapp.services import job_actions
from webapp.services.outputs import output_dir
from webapp.services.recorder import record


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/store"


@pytest.fixture
def job(
    tmp_path: Path, url: str, redis_service: RedisService, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Job]:
    monkeypatch.setattr("webapp.services.reaper._redis_is_fresh", lambda: False)
    database_url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    environ = environment(
        tmp_path, database_url=database_url, redis_url=redis_service.url, MODELYARD_STORE=url
    )
    with application(environ):
        job = make_job()
        job_actions.start(job, actor="test")
        yield job


def store(job: Job, events: Sequence[Event], *, url: str, scratch: Path) -> None:
    """Store an attempt's events as its worker does, from a file that holds an earlier one's."""
    earlier = b'{"of":"an earlier attempt"}\n'
    lines = b"".join(event.to_json().encode() + b"\n" for event in events)
    path = scratch / "events.jsonl"
    path.write_bytes(earlier + lines + b'{"job_id":1,"attempt":1,"se')
    outputs = StoredOutputs(open_store(url), job.id)
    end = put_events(
        outputs.store, outputs.events_key(job.attempt), path, start=len(earlier),
        scratch=scratch / "packed",
    )  # fmt: skip
    assert end == len(earlier) + len(lines)


def test_metrics_that_a_lost_worker_had_stored_are_recorded_before_its_attempt_is_given_up(
    job: Job, url: str, tmp_path: Path
) -> None:
    events = attempt_of(job, epochs=5)
    record(events[:2])
    store(job, events, url=url, scratch=tmp_path)
    reaper = suspicious_reaper()
    reaper.give_up(reaper.suspects())
    assert recorded_epochs(job) == [1, 2, 3, 4, 5]
    assert (fresh(job).status, job.attempt, job.lost_attempts) == ("queued", 2, 1)
    assert not list(output_dir(job.id).rglob("*.jsonl"))


def test_an_attempt_whose_end_was_stored_and_never_arrived_ends_as_it_says(
    job: Job, url: str, tmp_path: Path
) -> None:
    record(attempt_of(job, epochs=1))
    last = make_events(job, (EventType.FINISHED, FINISHED), first=3)
    store(job, [*attempt_of(job, epochs=1), *last], url=url, scratch=tmp_path)
    reaper = suspicious_reaper()
    reaper.give_up(reaper.suspects())
    assert (fresh(job).status, job.attempt) == ("completed", 1)


def test_damaged_events_do_not_keep_a_lost_attempt_running(
    job: Job, url: str, tmp_path: Path
) -> None:
    events = attempt_of(job, epochs=3)
    record(events[:2])
    store(job, events, url=url, scratch=tmp_path)
    outputs = StoredOutputs(open_store(url), job.id)
    packed = bytearray(outputs.store.read(outputs.events_key(1)))
    packed[-6] ^= 1
    outputs.store.write(outputs.events_key(1), bytes(packed))
    reaper = suspicious_reaper()
    reaper.give_up(reaper.suspects())
    assert recorded_epochs(job) == [1]
    assert (fresh(job).status, job.attempt) == ("queued", 2)
