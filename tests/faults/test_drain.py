"""Workers that are drained from the command line, and what their processes leave behind."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from adapters import wire
from tests.faults.site import Site, ended, in_epoch, kill
from tests.services import PATIENCE_SECONDS, Spawned, wait_for
from tests.worker_service import ROOT


def environ(there: Site) -> dict[str, str]:
    """Return the environment of a person on the host of worker w1."""
    return {"PATH": "/usr/bin:/bin", **there.environ, "MODELYARD_WORKER_NAME": "w1"}


def modelyard(there: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "modelyard", *arguments],
        cwd=ROOT,
        env=environ(there),
        capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS,
    )  # fmt: skip


def status(there: Site, name: str) -> str:
    """Return what the list of workers says of one."""
    rows = modelyard(there, "workers").stdout.splitlines()
    return next((row.split()[1] for row in rows if row.split()[0] == name), "not there")


def test_a_drain_waits_for_what_trains_and_lets_nothing_new_begin(there: Site) -> None:
    there.quick_worker("w1")
    job = there.job(epochs=4, hold_in=2)
    there.wait(job, in_epoch(2))
    with Spawned(
        [sys.executable, "-m", "modelyard", "drain", "w1", "--wait"],
        log=there.home / "drain.txt", environ=environ(there), cwd=ROOT,
    ) as drain:  # fmt: skip
        drain.wait_for(lambda: f"it still trains job {job.id}" in drain.output(), what="its word")
        there.let_go(job.id)
        assert drain.wait() == 0
    assert drain.output().endswith("worker w1 is idle\n")
    assert '"outcome":"completed"' in there.journal(job.id)
    there.wait(job, ended)
    after = there.job(epochs=1)
    there.quick_worker("w2")
    there.wait(after, ended)
    assert after.worker == "w2"


def test_a_drain_is_told_once_no_new_job_can_begin(there: Site) -> None:
    there.quick_worker("w1")
    assert modelyard(there, "drain", "w1").stdout == "worker w1 takes no new job\n"
    jobs = [there.job(epochs=1) for _ in range(3)]
    there.quick_worker("w2")
    for job in jobs:
        there.wait(job, ended)
    assert {job.worker for job in jobs} == {"w2"}


def test_from_the_moment_of_a_drain_on_no_new_job_begins_though_nobody_waited(there: Site) -> None:
    for name in ("w1", "w2"):
        there.quick_worker(name)
    with there.redis.client() as client:
        client.set(wire.drain_key("w1"), "1")  # as the page does
    jobs = [there.job(epochs=1) for _ in range(4)]
    for job in jobs:
        there.wait(job, ended)
    assert {job.worker for job in jobs} == {"w2"}


def test_a_drained_worker_stays_so_when_it_is_started_again(there: Site) -> None:
    kill_me = there.quick_worker("w1")
    assert modelyard(there, "drain").stdout == "worker w1 takes no new job\n"
    assert status(there, "w1") == "draining"  # at once, not only when the worker tells of it
    kill(kill_me)
    job = there.job(epochs=1)
    there.quick_worker("w1")
    there.quick_worker("w2")
    there.wait(job, ended)
    others = [there.job(epochs=1) for _ in range(4)]
    for other in others:
        there.wait(other, ended)
    assert {other.worker for other in [job, *others]} == {"w2"}
    assert modelyard(there, "drain", "--undo").stdout == "worker w1 takes jobs again\n"
    wait_for(lambda: status(there, "w1") == "online", what="the end of the drain")
    assert modelyard(there, "drain", "w2", "--wait").returncode == 0
    last = there.job(epochs=1)
    there.wait(last, ended)
    assert last.worker == "w1"


def test_a_drain_that_celery_did_not_hear_of_is_said_again(there: Site) -> None:
    there.quick_worker("w1")
    with there.redis.client() as client:
        client.set(wire.drain_key("w1"), "1")
        # The word travels over a subscription, which is cut at once and again.
        for _ in range(20):
            client.client_kill_filter(_type="pubsub", skipme=True)
    done = modelyard(there, "drain", "w1", "--wait")
    assert done.returncode == 0
    job = there.job(epochs=1)
    there.quick_worker("w2")
    there.wait(job, ended)
    assert job.worker == "w2"


@pytest.mark.parametrize("arguments", [("drain", "w9"), ("drain", "w9", "--undo")])
def test_a_worker_that_is_not_there_is_told_with_those_that_are(
    there: Site, arguments: tuple[str, ...]
) -> None:
    there.quick_worker("w1")
    done = modelyard(there, *arguments)
    assert done.returncode == 2
    assert done.stderr == "modelyard: there is no worker w9; up are: w1\n"


def test_without_redis_the_workers_cannot_be_listed(there: Site) -> None:
    there.redis.kill()
    done = modelyard(there, "workers")
    there.redis.start()
    assert done.returncode == 2
    assert "Redis does not answer; look at REDIS_URL" in done.stderr
    assert "Traceback" not in done.stderr


def test_jobs_leave_no_open_file_and_no_thread_in_their_worker(there: Site) -> None:
    worker = psutil.Process(there.quick_worker("w1").pid)
    for _ in range(2):
        there.wait(there.job(epochs=1), ended)
    wait_for(lambda: not there.children(), what="a free slot")
    before = worker.num_fds(), worker.num_threads()
    for _ in range(8):
        there.wait(there.job(epochs=1), ended)

    def as_before() -> bool:
        return worker.num_fds() <= before[0] and worker.num_threads() <= before[1]

    # The next heartbeat is a while ahead, and with it a collection of the garbage.
    wait_for(as_before, timeout_seconds=4, what=f"{before} open files and threads")
