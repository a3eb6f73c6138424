"""A real worker process trains a real model for real epochs, and is interrupted for real."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery.result import AsyncResult
from sqlalchemy import select

from adapters import wire
from tests.factories import make_job
from tests.services import PATIENCE_SECONDS, RedisService, wait_for
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
    shared.environ["MODELYARD_CANCEL_GRACE_SECONDS"] = "60"  # for the checkpoint, on any machine
    return shared.worker("w1")


def digits_job(there: Instance, *, epochs: int, **fields: Any) -> Job:
    return make_job(dataset_path=str(there.data / "digits"), epochs=epochs, **TINY, **fields)


def start(job: Job) -> None:
    job_actions.start(job, actor="test")


def wait_until(there: Instance, job: Job, condition: Any) -> None:
    try:
        wait_for(job_is(job, condition), timeout_seconds=300, what=f"job {job.id}")
    except TimeoutError as error:
        state = (job.status, job.progress, job.error)
        raise AssertionError(f"{error}; it is {state}\n{there.logs()}") from None


def wait_for_epochs(there: Instance, job: Job, count: int, *, attempt: int = 1) -> None:
    """Wait until an attempt's file tells of so many epochs: at once, the database hears later."""
    path = there.home / "outputs" / wire.job_folder(job.id) / wire.JOURNAL_NAME
    mark = f'"attempt":{attempt},'

    def told() -> bool:
        lines = path.read_text().splitlines() if path.exists() else []
        return sum(mark in line and '"type":"metrics"' in line for line in lines) >= count

    try:
        wait_for(told, what=f"{count} epochs of job {job.id}, attempt {attempt}")
    except TimeoutError as error:
        raise AssertionError(f"{error}\n{there.logs()}") from None


def training(job: Job) -> object:
    return job.status == "running" and job.progress


def ended(job: Job) -> bool:
    return job.status in ("completed", "failed", "cancelled")


def children_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return the processes that train: all below the worker but its template and helpers."""
    found = []
    for below in psutil.Process(process.pid).children(recursive=True):
        with suppress(ProcessLookupError):  # it ended while it was looked at
            if os.getpgid(below.pid) != os.getpgid(process.pid):
                found.append(below)
    return found


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended between the two
        return False


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
        # Both come after the end is recorded.
        wait_for(lambda: client.xlen(wire.EVENT_STREAM) == 0, what="an empty stream")
        wait_for(lambda: client.exists(wire.lease_key(job.id)) == 0, what="the lease's end")


@pytest.mark.usefixtures("worker")
def test_any_celery_client_sees_the_progress_and_the_result(
    shared: Instance, shared_redis: RedisService
) -> None:
    from celery import Celery

    onlooker = Celery(broker=shared_redis.url, backend=shared_redis.url)
    long, short = digits_job(shared, epochs=500), digits_job(shared, epochs=1)
    start(long)
    wait_until(shared, long, training)
    answers = onlooker.control.inspect(timeout=PATIENCE_SECONDS, limit=1).active()
    [task] = [t for t in chain(*answers.values()) if t["id"] == f"job-{long.id}-attempt-1"]
    assert task["progress"]["epochs"] == 500
    start(short)
    job_actions.cancel(long, mode=CancelMode.KILL, actor="test")
    wait_until(shared, short, ended)
    result = AsyncResult(f"job-{short.id}-attempt-1", app=onlooker)
    wait_for(lambda: result.state == "SUCCESS", what="Celery's SUCCESS")
    assert result.result["best_model_path"] == short.best_model_path


@pytest.mark.parametrize("mode", CancelMode)
def test_a_running_job_is_cancelled_and_no_process_of_it_lives(
    shared: Instance, worker: subprocess.Popen[bytes], mode: CancelMode
) -> None:
    job = digits_job(shared, epochs=500, hyperparameters={"workers": 1})
    start(job)
    wait_until(shared, job, training)
    # The child and its loader process, which need not be there between two epochs.
    group = wait_for(
        lambda: len(found := children_of(worker)) >= 2 and found, what="the loader process"
    )
    job_actions.cancel(job, mode=mode, actor="test")
    wait_until(shared, job, ended)
    assert job.status == "cancelled"
    assert not [p for p in group if lives(p)]
    last = shared.home / "outputs" / wire.job_folder(job.id) / "checkpoints/last.pth"
    assert last.exists() or mode == CancelMode.KILL


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
    job = digits_job(there, epochs=16)
    start(job)
    wait_for_epochs(there, job, 1)
    worker.send_signal(signal.SIGTERM)
    worker.wait(PATIENCE_SECONDS)
    wait_until(there, job, lambda j: j.status == "queued" and j.attempt == 2)
    there.worker("w2")
    wait_until(there, job, ended)
    assert (job.status, job.attempt, job.worker) == ("completed", 2, "w2")
    epochs = [m.epoch for m in db.session.scalars(select(Metric).filter_by(name="top1"))]
    assert sorted(epochs) == list(range(1, 17))
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
    wait_for(lambda: not [p for p in group if lives(p)], what="the end of the child")


def test_a_child_that_is_killed_is_followed_by_one_that_goes_on(
    shared: Instance, worker: subprocess.Popen[bytes]
) -> None:
    job = digits_job(shared, epochs=16)
    start(job)
    wait_for_epochs(shared, job, 1)
    children_of(worker)[0].kill()
    wait_until(shared, job, ended)
    assert (job.status, job.attempt, job.lost_attempts) == ("completed", 2, 1)
    first = db.session.get_one(Attempt, (job.id, 1))
    assert first.reason is not None
    assert "SIGKILL" in first.reason
    epochs = [
        m.epoch for m in db.session.scalars(select(Metric).filter_by(job_id=job.id, name="top1"))
    ]
    assert sorted(epochs) == list(range(1, 17))


@pytest.mark.usefixtures("worker")
def test_a_revoke_from_any_celery_client_stops_the_training(
    shared: Instance, shared_redis: RedisService
) -> None:
    from celery import Celery

    job = digits_job(shared, epochs=500)
    start(job)
    wait_until(shared, job, training)
    Celery(broker=shared_redis.url).control.revoke(wire.task_id(job.id, 1))
    wait_until(shared, job, ended)
    assert job.status == "cancelled"


def test_training_outlives_an_outage_of_redis(
    on_sqlite: Instance, redis_service: RedisService
) -> None:
    there = on_sqlite
    there.worker("w1")
    job = digits_job(there, epochs=16)
    start(job)
    wait_for_epochs(there, job, 1)
    redis_service.kill()
    wait_for_epochs(there, job, 4)
    redis_service.start()
    wait_until(there, job, ended)
    assert (job.status, job.attempt) == ("completed", 1)
    epochs = [m.epoch for m in db.session.scalars(select(Metric).filter_by(name="top1"))]
    assert sorted(epochs) == list(range(1, 17))


def test_subprocess_mode_trains_cancels_and_resumes_with_no_broker(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with instance(tmp_path, database_url=url, redis=None) as there:
        recorder = there.recorder()
        job = digits_job(there, epochs=24)
        start(job)
        wait_until(there, job, training)
        job_actions.cancel(job, mode=CancelMode.NOW, actor="test")
        wait_until(there, job, ended)
        assert job.status == "cancelled"
        job_actions.resume(job, actor="test")
        wait_for_epochs(there, job, 1, attempt=2)
        recorder.terminate()
        recorder.wait(PATIENCE_SECONDS)
        wait_until(there, job, lambda j: j.status == "queued" and j.attempt == 3)
        there.recorder()
        wait_until(there, job, ended)
        assert job.status == "completed"
        epochs = [m.epoch for m in db.session.scalars(select(Metric).filter_by(name="top1"))]
        assert sorted(epochs) == list(range(1, 25))


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
