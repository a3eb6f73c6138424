"""A real worker process trains a real model for real epochs, and is interrupted for real."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery.result import AsyncResult
from sqlalchemy import select

from adapters import wire
from tests.factories import make_job
from tests.services import RedisService, wait_for
from tests.worker_service import Instance, instance, job_is
from webapp.extensions import db
from webapp.models import Artifact, Attempt, Job, JobEvent, Metric
from webapp.services import job_actions
from webapp.services.job_actions import CancelMode

TINY = {"model_name": "test_resnet", "image_size": 32, "batch_size": 64}


@pytest.fixture
def there(tmp_path: Path, database_url: str, redis_service: RedisService) -> Iterator[Instance]:
    with instance(tmp_path, database_url=database_url, redis=redis_service) as there:
        there.recorder()
        yield there


@pytest.fixture
def on_sqlite(tmp_path: Path, redis_service: RedisService) -> Iterator[Instance]:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with instance(tmp_path, database_url=url, redis=redis_service) as there:
        there.recorder()
        yield there


@pytest.fixture(scope="module")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisService]:
    service = RedisService(tmp_path_factory.mktemp("redis"))
    service.start()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, shared_redis: RedisService
) -> Iterator[Instance]:
    """An instance for the tests that leave its recorder and its worker as they are."""
    home = tmp_path_factory.mktemp("shared")
    url = f"sqlite:///{home / 'modelyard.db'}"
    with instance(home, database_url=url, redis=shared_redis) as there:
        there.recorder()
        yield there


@pytest.fixture(scope="module")
def worker(shared: Instance) -> subprocess.Popen[bytes]:
    return shared.worker("w1")


def digits_job(there: Instance, *, epochs: int, **fields: Any) -> Job:
    return make_job(dataset_path=str(there.data / "digits"), epochs=epochs, **TINY, **fields)


def start(job: Job) -> None:
    job_actions.start(job, actor="test")


def wait_until(there: Instance, job: Job, condition: Any, *, seconds: float = 180) -> None:
    try:
        wait_for(job_is(job, condition), timeout_seconds=seconds, what=f"job {job.id}")
    except TimeoutError as error:
        state = (job.status, job.progress, job.error)
        raise AssertionError(f"{error}; it is {state}\n{there.logs()}") from None


def training(job: Job) -> object:
    return job.status == "running" and job.progress


def ended(job: Job) -> bool:
    return job.status in ("completed", "failed", "cancelled")


def children_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return the processes that train: all below the worker but its template and helpers."""
    below = psutil.Process(process.pid).children(recursive=True)
    return [p for p in below if os.getpgid(p.pid) != os.getpgid(process.pid)]


def test_a_tiny_model_is_trained_for_two_epochs(
    there: Instance, redis_service: RedisService
) -> None:
    there.worker("w1")
    job = digits_job(there, epochs=2)
    start(job)
    wait_until(there, job, ended)
    assert (job.status, job.error) == ("completed", None)
    assert job.progress is not None
    assert (job.progress["percent"], job.progress["epoch"]) == (100.0, 2)
    assert job.accuracy == job.best["value"] if job.best else False
    for name in ("train_loss", "val_loss", "top1", "top5", "learning_rate", "images_per_second"):
        rows = select(Metric).where(Metric.name == name).order_by(Metric.epoch)
        assert [m.epoch for m in db.session.scalars(rows)] == [1, 2], name
    kept = {a.name: a for a in db.session.scalars(select(Artifact))}
    folder = there.home / "outputs" / wire.job_folder(job.id)
    assert {"checkpoints/last.pth", "checkpoints/best.safetensors"} <= set(kept)
    for artifact in kept.values():
        assert (folder / artifact.name).stat().st_size == artifact.size
    assert job.best_model_path == str(folder / "checkpoints/best.safetensors")
    log = [e.data["text"] for e in db.session.scalars(select(JobEvent).filter_by(type="log"))]
    assert "test_resnet" in "".join(log)
    with redis_service.client() as client:
        assert client.xlen(wire.EVENT_STREAM) == 0
        assert client.exists(wire.lease_key(job.id)) == 0


@pytest.mark.usefixtures("worker")
def test_any_celery_client_sees_the_progress_and_the_result(
    shared: Instance, shared_redis: RedisService
) -> None:
    from celery import Celery

    job = digits_job(shared, epochs=10)
    start(job)
    wait_until(shared, job, training)
    onlooker = Celery(broker=shared_redis.url, backend=shared_redis.url)
    [[task]] = onlooker.control.inspect(timeout=30, limit=1).active().values()
    assert task["id"] == f"job-{job.id}-attempt-1"
    assert task["progress"]["epochs"] == 10
    wait_until(shared, job, ended)
    result = AsyncResult(task["id"], app=onlooker)
    wait_for(lambda: result.state == "SUCCESS", what="Celery's SUCCESS")
    assert result.result["best_model_path"] == job.best_model_path


@pytest.mark.parametrize("mode", CancelMode)
def test_a_running_job_is_cancelled_and_no_process_of_it_lives(
    shared: Instance, worker: subprocess.Popen[bytes], mode: CancelMode
) -> None:
    job = digits_job(shared, epochs=500, hyperparameters={"workers": 1})
    start(job)
    wait_until(shared, job, training)
    group = children_of(worker)
    assert len(group) >= 2  # the child and its loader process
    job_actions.cancel(job, mode=mode, actor="test")
    wait_until(shared, job, ended, seconds=60)
    assert job.status == "cancelled"
    assert not [p for p in group if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    last = shared.home / "outputs" / wire.job_folder(job.id) / "checkpoints/last.pth"
    assert last.exists() == (mode != CancelMode.KILL) or mode == CancelMode.KILL


def test_a_queued_job_that_is_cancelled_never_trains(on_sqlite: Instance) -> None:
    there = on_sqlite
    first, second = digits_job(there, epochs=1), digits_job(there, epochs=1)
    start(first)
    start(second)
    job_actions.cancel(first, mode=CancelMode.NOW, actor="test")
    assert first.status == "cancelled"
    there.worker("w1")
    wait_until(there, second, ended)
    assert second.status == "completed"
    assert db.session.get_one(Attempt, (first.id, 1)).started_at is None


def test_a_worker_that_is_terminated_hands_its_job_to_another(on_sqlite: Instance) -> None:
    there = on_sqlite
    worker = there.worker("w1")
    job = digits_job(there, epochs=12)
    start(job)
    wait_until(there, job, lambda j: j.progress and j.progress["epoch"] >= 2)
    worker.send_signal(signal.SIGTERM)
    worker.wait(60)
    wait_until(there, job, lambda j: j.status == "queued" and j.attempt == 2)
    there.worker("w2")
    wait_until(there, job, ended)
    assert (job.status, job.attempt, job.worker) == ("completed", 2, "w2")
    epochs = [m.epoch for m in db.session.scalars(select(Metric).filter_by(name="top1"))]
    assert sorted(epochs) == list(range(1, 13))
    attempts = [a.outcome for a in db.session.scalars(select(Attempt).order_by(Attempt.number))]
    assert attempts == ["handed_back", "completed"]


def test_a_worker_that_is_killed_takes_its_child_along(on_sqlite: Instance) -> None:
    there = on_sqlite
    worker = there.worker("w1")
    job = digits_job(there, epochs=500, hyperparameters={"workers": 1})
    start(job)
    wait_until(there, job, training)
    group = children_of(worker)
    assert group
    worker.kill()
    wait_for(
        lambda: not [p for p in group if p.is_running() and p.status() != psutil.STATUS_ZOMBIE],
        what="the end of the child",
    )


def test_a_child_that_is_killed_is_followed_by_one_that_goes_on(
    shared: Instance, worker: subprocess.Popen[bytes]
) -> None:
    job = digits_job(shared, epochs=12)
    start(job)
    wait_until(shared, job, lambda j: j.progress and j.progress["epoch"] >= 2)
    children_of(worker)[0].kill()
    wait_until(shared, job, ended)
    assert (job.status, job.attempt, job.lost_attempts) == ("completed", 2, 1)
    first = db.session.get_one(Attempt, (job.id, 1))
    assert first.reason is not None
    assert "SIGKILL" in first.reason
    epochs = [
        m.epoch for m in db.session.scalars(select(Metric).filter_by(job_id=job.id, name="top1"))
    ]
    assert sorted(epochs) == list(range(1, 13))


@pytest.mark.usefixtures("worker")
def test_a_revoke_from_any_celery_client_stops_the_training(
    shared: Instance, shared_redis: RedisService
) -> None:
    from celery import Celery

    job = digits_job(shared, epochs=500)
    start(job)
    wait_until(shared, job, training)
    Celery(broker=shared_redis.url).control.revoke(wire.task_id(job.id, 1))
    wait_until(shared, job, ended, seconds=60)
    assert job.status == "cancelled"


def test_training_outlives_an_outage_of_redis(
    on_sqlite: Instance, redis_service: RedisService
) -> None:
    there = on_sqlite
    there.worker("w1")
    job = digits_job(there, epochs=12)
    start(job)
    wait_until(there, job, training)
    redis_service.kill()
    folder = there.home / "outputs" / wire.job_folder(job.id)
    before = (folder / "events.jsonl").stat().st_size
    wait_for(
        lambda: (folder / "events.jsonl").stat().st_size > before + 800,
        timeout_seconds=60,
        what="training going on",
    )
    redis_service.start()
    wait_until(there, job, ended, seconds=180)
    assert (job.status, job.attempt) == ("completed", 1)
    epochs = [m.epoch for m in db.session.scalars(select(Metric).filter_by(name="top1"))]
    assert sorted(epochs) == list(range(1, 13))


def test_subprocess_mode_trains_cancels_and_resumes_with_no_broker(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with instance(tmp_path, database_url=url, redis=None) as there:
        recorder = there.recorder()
        job = digits_job(there, epochs=16)
        start(job)
        wait_until(there, job, lambda j: j.progress and j.progress["epoch"] >= 2)
        job_actions.cancel(job, mode=CancelMode.NOW, actor="test")
        wait_until(there, job, ended, seconds=30)
        assert job.status == "cancelled"
        job_actions.resume(job, actor="test")
        wait_until(there, job, lambda j: j.progress and j.progress["epoch"] >= 4)
        recorder.terminate()
        recorder.wait(60)
        wait_until(there, job, lambda j: j.status == "queued" and j.attempt == 3)
        there.recorder()
        wait_until(there, job, ended)
        assert job.status == "completed"
        epochs = [m.epoch for m in db.session.scalars(select(Metric).filter_by(name="top1"))]
        assert sorted(epochs) == list(range(1, 17))


@pytest.mark.usefixtures("worker")
def test_a_drained_worker_finishes_what_it_has_and_takes_no_more(
    shared: Instance, shared_redis: RedisService
) -> None:
    first, second = digits_job(shared, epochs=10), digits_job(shared, epochs=1)
    start(first)
    wait_until(shared, first, training)
    with shared_redis.client() as client:
        client.set(wire.drain_key("w1"), "1")
        wait_for(
            lambda: '"status": "draining"' in (client.get(wire.worker_key("w1")) or ""),
            what="the worker draining",
        )
        start(second)
        wait_until(shared, first, ended)
        assert first.status == "completed"
        wait_for(
            lambda: '"busy": 0' in (client.get(wire.worker_key("w1")) or ""), what="a free slot"
        )
        assert job_is(second, lambda j: j.status == "queued")()
        client.delete(wire.drain_key("w1"))
    wait_until(shared, second, ended)
    assert second.status == "completed"
