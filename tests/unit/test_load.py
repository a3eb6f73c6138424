"""What an attempt's processes take: measured, kept in bounds, and told."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

from adapters.wire import EventType
from tests.api import Api
from tests.factories import STARTED, application, environment, make_events, make_job
from tests.services import PATIENCE_SECONDS
from webapp.extensions import db
from webapp.models import Job, JobEvent, LoadSample
from webapp.services import job_actions, load
from webapp.services.recorder import record
from workers.load import LoadMeter

BEGUN = datetime(2026, 11, 4, 12, 0, tzinfo=UTC)


@pytest.fixture
def there(tmp_path: Path) -> Iterator[None]:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with application(environment(tmp_path, database_url=url)):
        yield


def sample(cpu: float, **more: float) -> dict[str, float | None]:
    return {"cpu_percent": cpu, "memory_bytes": 2**30, "gpu_percent": None, **more}


def keep(job: Job, *, seconds: float, cpu: float = 50.0, attempt: int = 1) -> None:
    load.keep(
        db.session(),
        job_id=job.id,
        attempt=attempt,
        time=BEGUN + timedelta(seconds=seconds),
        data=sample(cpu),
    )


def test_a_meter_tells_what_its_processes_burn_and_hold() -> None:
    now = 0.0
    meter = LoadMeter(os.getpid(), device="cpu", clock=lambda: now)
    context = multiprocessing.get_context("fork")
    held = context.Event()
    child = context.Process(target=_burn, args=(held,))
    first = meter.sample()
    assert first is not None
    child.start()
    try:
        assert held.wait(PATIENCE_SECONDS)
        now = 1.0
        second = meter.sample()
        assert second is not None
        assert second["cpu_percent"] > 25.0  # of a second, of which the child has burnt 0.3 s
        assert second["memory_bytes"] - first["memory_bytes"] > 50 * 2**20
    finally:
        child.kill()
        child.join()


def _burn(held: object) -> None:
    block = bytearray(os.urandom(64 * 2**20))
    end = time.process_time() + 0.3
    while time.process_time() < end:
        block[0] ^= 1
    held.set()  # type: ignore[attr-defined]
    while True:
        block[1] ^= 1


def test_nothing_is_told_of_a_process_that_is_gone() -> None:
    child = multiprocessing.get_context("fork").Process(target=int)
    child.start()
    child.join()
    assert child.pid is not None
    assert LoadMeter(child.pid, device="cpu").sample() is None


@pytest.mark.usefixtures("there")
def test_a_long_attempts_samples_stay_bounded_and_even_over_its_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load, "MOST_SAMPLES", 40)
    job = make_job()
    for number in range(1000):
        keep(job, seconds=3 * number)
    times = list(db.session.scalars(select(LoadSample.time).order_by(LoadSample.id)))
    assert 18 <= len(times) <= 40
    assert times[0] == BEGUN
    assert BEGUN + timedelta(seconds=2997) - times[-1] < timedelta(seconds=200)
    gaps = {(b - a).total_seconds() for a, b in itertools.pairwise(times)}
    assert max(gaps) <= 2 * min(gaps)


@pytest.mark.usefixtures("there")
def test_each_attempt_is_bounded_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "MOST_SAMPLES", 40)
    job = make_job()
    for attempt in (1, 2):
        for number in range(10):
            keep(job, seconds=1000 * attempt + number, attempt=attempt)
    by_attempt = select(LoadSample.attempt, func.count()).group_by(LoadSample.attempt)
    assert dict(db.session.execute(by_attempt).all()) == {1: 10, 2: 10}  # type: ignore[arg-type]


@pytest.mark.usefixtures("there")
def test_a_recorded_load_is_kept_and_only_the_newest_is_an_event() -> None:
    job = make_job()
    job_actions.start(job, actor="test")
    events = make_events(
        job,
        (EventType.STARTED, STARTED),
        (EventType.LOAD, sample(50.0)),
        (EventType.LOAD, sample(150.0, gpu_percent=80.0)),
    )
    record(events[:2])
    record(events[2:])
    assert [s.cpu_percent for s in db.session.scalars(select(LoadSample))] == [50.0, 150.0]
    [event] = db.session.scalars(select(JobEvent).filter_by(type="load"))
    assert event.data["cpu_percent"] == 150.0


def test_load_is_told_by_name_and_thinned_so_that_peaks_stay(api: Api) -> None:
    ada = api.person("ada")
    job_id = ada.job(ada.project(), api.dataset(1))["id"]
    with api.app.app_context():
        job = db.session.get(Job, job_id)
        assert job is not None
        for number in range(50):
            keep(job, seconds=3 * number, cpu=900.0 if number == 33 else 50.0)
        db.session.commit()
    whole = ada.get(f"/training/jobs/{job_id}/load").json
    assert {name: len(points) for name, points in whole.items()} == {
        "cpu_percent": 50, "memory_bytes": 50, "gpu_percent": 0, "gpu_memory_bytes": 0,
    }  # fmt: skip
    assert whole["cpu_percent"][1] == {
        "time": "2026-11-04T12:00:03.000Z", "attempt": 1, "value": 50.0,
    }  # fmt: skip
    thin = ada.get(f"/training/jobs/{job_id}/load", points=10).json["cpu_percent"]
    assert len(thin) <= 10
    assert 900.0 in [point["value"] for point in thin]
    assert api.person("stranger").get(f"/training/jobs/{job_id}/load").status_code == 404
