"""GPUs that others fill, on real workers with a stand-in for the driver. No GPU is behind it."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.driver import Driver
from tests.faults.invariants import check
from tests.faults.site import Site, ended, gone, kill, site, training
from tests.services import wait_for
from tests.worker_service import job_is
from webapp.config import settings
from webapp.extensions import db
from webapp.models import Job, StatusChange
from webapp.services import broker, job_actions, waiting
from webapp.services.job_actions import CancelMode
from webapp.services.waiting import waits


@pytest.fixture
def driver(there: Site) -> Driver:
    return Driver(there.home / "bin")


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """Somebody's process that a worker has nothing to do with."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def gpu_worker(there: Site, driver: Driver, name: str, **environ: str) -> subprocess.Popen[bytes]:
    return there.quick_worker(name, PATH=driver.path, **{"MODELYARD_GPUS": "all", **environ})


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Site]:
    """A site in `subprocess` mode, where the recorder trains."""
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with site(tmp_path, database_url=url, redis=None) as there:
        yield there
        check(there)


def reason(job: Job) -> str:
    job_is(job, lambda _: True)()
    return str(waits([job])[job.id].reason) if job.status == "queued" else ""


def test_a_job_that_needs_a_gpu_waits_for_a_worker_that_has_one(
    there: Site, driver: Driver
) -> None:
    there.quick_worker("cpu")
    job, other = there.job(epochs=1, device="gpu"), there.job(epochs=1)
    there.wait(other, ended)
    assert job_is(job, lambda j: j.status == "queued")()
    assert "has a GPU" in reason(job)
    gpu_worker(there, driver, "gpu", MODELYARD_GPUS="0")
    there.wait(job, ended)
    assert (job.status, job.worker, job.attempt) == ("completed", "gpu", 1)
    assert str(job.device).startswith("cuda:0")
    for choice, device in (("gpu", "cuda:0"), ("cpu", "cpu")):
        job = there.job(epochs=1, device=choice)
        there.wait(job, ended)
        assert str(job.device).startswith(device)


def test_a_gpu_that_somebody_fills_gets_no_job_until_it_is_free(
    there: Site, driver: Driver, stranger: subprocess.Popen[bytes]
) -> None:
    driver.processes = {stranger.pid: (1, 18637)}
    driver.tell()
    gpu_worker(there, driver, "gpu")
    first, second = there.job(epochs=4, hold_in=2), there.job(epochs=2)
    there.wait(first, training)
    assert str(first.device).startswith("cuda:0")
    held = f"is held by process {stranger.pid} (sleep, 18.2 GB), which is not ours"
    wait_for(lambda: held in reason(second), what="the reason why it waits")
    # A worker tells of its jobs and of its GPUs every few seconds.
    begins = "Next in the queue quick; 1 of 2 slots is busy; GPU 1 of "
    wait_for(lambda: reason(second).startswith(begins), what="the job that trains in it")
    [worker] = broker.workers()
    assert (worker["slots"], worker["busy"], worker["held"]) == (2, 1, 1)
    assert [gpu["held_by"] and gpu["held_by"]["pid"] for gpu in worker["gpu"]] == [
        None, stranger.pid,
    ]  # fmt: skip
    driver.processes = {}
    driver.tell()
    there.wait(second, ended)
    assert str(second.device).startswith("cuda:1")
    assert (second.attempt, job_is(first, training)()) == (1, True)
    there.let_go(first.id)


def test_a_job_that_comes_just_as_somebody_takes_the_gpu_is_left_to_others(
    there: Site, driver: Driver, stranger: subprocess.Popen[bytes]
) -> None:
    gpu_worker(there, driver, "gpu", MODELYARD_GPUS="1")
    driver.processes = {stranger.pid: (1, 9000)}
    driver.tell()
    wait_for(lambda: "no job is taken for it" in there.log_of("workers"), what="the worker's look")
    jobs = [there.job(epochs=1) for _ in range(3)]
    there.quick_worker("cpu")
    for job in jobs:
        there.wait(job, ended)
    assert {job.worker for job in jobs} == {"cpu"}


def test_two_workers_of_a_host_share_its_gpu_by_turns(there: Site, driver: Driver) -> None:
    first = gpu_worker(there, driver, "a", MODELYARD_GPUS="0")
    job = there.job(epochs=4, hold_in=2)
    there.wait(job, training)
    gpu_worker(there, driver, "b", MODELYARD_GPUS="0")
    others = [there.job(epochs=2) for _ in range(3)]
    said = f"is training job {job.id} for worker a"
    wait_for(lambda: said in reason(others[0]), what="the reason")
    kill(first)  # the lock dies with it, whoever trains then
    there.let_go(job.id)
    for each in (job, *others):
        there.wait(each, ended)
    assert {each.worker for each in (job, *others)} == {"b"}


def test_a_gpu_that_is_named_twice_trains_two_jobs(there: Site, driver: Driver) -> None:
    gpu_worker(there, driver, "a", MODELYARD_GPUS="0,0")
    jobs = [there.job(epochs=2, hold_in=1) for _ in range(2)]
    for job in jobs:
        there.wait(job, training)
    for job in jobs:
        there.let_go(job.id)
        there.wait(job, ended)


def test_a_cancel_is_confirmed_when_the_memory_is_seen_free(there: Site, driver: Driver) -> None:
    gpu_worker(there, driver, "gpu", MODELYARD_GPUS="0")
    job = there.job(epochs=1000, becomes="cancelled")
    there.wait(job, training)
    [child] = there.children()
    driver.processes = {child.pid: (0, 9000)}
    driver.tell()
    job_actions.cancel(job, mode=CancelMode.NOW, actor="test")
    wait_for(lambda: gone([child]), what="the end of the child")
    calls = driver.calls
    # It looks five times a second, and gives up after half a minute.
    wait_for(lambda: driver.calls > calls + 4, what="more looks at what the driver lists")
    assert job_is(job, lambda j: j.status == "cancelling")()
    driver.processes = {}
    driver.tell()
    there.wait(job, ended)


def test_memory_that_is_not_let_go_is_said_and_its_gpu_is_no_slot(
    there: Site, driver: Driver
) -> None:
    gpu_worker(there, driver, "gpu", MODELYARD_GPUS="0", FAULTS_RELEASE_SECONDS="1")
    job = there.job(epochs=1000, becomes="cancelled")
    there.wait(job, training)
    [child] = there.children()
    driver.processes = {child.pid: (0, 9000)}
    driver.tell()
    job_actions.cancel(job, mode=CancelMode.NOW, actor="test")
    there.wait(job, ended)
    newest = sa.select(StatusChange).filter_by(job_id=job.id).order_by(StatusChange.id.desc())
    told = db.session.scalars(newest).first()
    assert told is not None
    assert "GPU 0 still has 8.8 GB" in str(told.reason)
    after = there.job(epochs=1)
    said = "has 8.8 GB held by processes that nvidia-smi does not name"
    wait_for(lambda: said in reason(after), what="the reason")
    driver.processes = {}
    driver.tell()
    there.wait(after, ended)
    assert after.attempt == 1


def test_a_recorder_that_trains_leaves_a_gpu_to_who_has_it(
    alone: Site, stranger: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(alone.home / "bin", gpus=1)
    driver.processes = {stranger.pid: (0, 9000)}
    driver.tell()
    alone.environ |= {"PATH": driver.path, "MODELYARD_GPUS": "all"}
    # This process is the web's, which has its settings already.
    monkeypatch.setenv("PATH", driver.path)
    monkeypatch.setattr(waiting, "settings", lambda: dataclasses.replace(settings(), gpus=None))
    alone.recorder()
    job = alone.job(epochs=2, device="gpu")
    held = f"GPU 0 is held by process {stranger.pid} (sleep, 8.8 GB), which is not ours"
    wait_for(lambda: "no job is taken for it" in alone.log_of("webapp.recorder"), what="its look")
    assert reason(job) == held
    driver.processes = {}
    driver.tell()
    alone.wait(job, ended)
    assert str(job.device).startswith("cuda:0")
