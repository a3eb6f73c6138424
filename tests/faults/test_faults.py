"""Each fault of a bad week, on real processes; afterwards the invariants are looked at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from adapters import wire
from tests.faults.invariants import check
from tests.faults.proxy import Proxy
from tests.faults.site import Site, ended, gone, in_epoch, kill, leader, site, training
from tests.services import PATIENCE_SECONDS, PostgresService, RedisService, wait_for
from tests.worker_service import job_is
from webapp.extensions import db
from webapp.models import Attempt, Job, StatusChange
from webapp.services import broker, executors, job_actions
from webapp.services.errors import Refused
from webapp.services.job_actions import CancelMode


@pytest.fixture
def proxy(redis_service: RedisService) -> Iterator[Proxy]:
    with Proxy(to_port=redis_service.server.port) as proxy:
        yield proxy


def send_copy(job: Job, *, attempt: int) -> None:
    message = executors.training_job(job).to_message() | {"attempt": attempt}
    broker.send(message, queue=job.queue, task_id=wire.task_id(job.id, attempt), priority=4)


# Messages.


def test_copies_of_a_message_and_stale_ones_train_nothing(there: Site) -> None:
    there.quick_worker("w1")
    there.quick_worker("w2")
    job, after = there.job(epochs=6), there.job(epochs=2)
    send_copy(job, attempt=1)
    send_copy(job, attempt=1)
    there.wait(job, ended)
    send_copy(job, attempt=1)
    send_copy(job, attempt=0)
    executors.get_executor().start(job)  # a reaper that read the job before it ended
    last = there.job(epochs=2)
    there.wait(after, ended)
    there.wait(last, ended)
    assert there.journal(job.id).count('"type":"started"') == 1


def test_a_copy_that_comes_when_its_fence_has_expired_is_stopped_and_not_heard(
    there: Site,
) -> None:
    there.quick_worker("w1")
    job = there.job(epochs=40)
    there.wait(job, ended)
    with there.redis.client() as client:
        client.delete(wire.fence_key(job.id))
    copy = executors.training_job(job).to_message() | {"epochs": 4000}
    broker.send(copy, queue=job.queue, task_id=wire.task_id(job.id, 1), priority=4)
    # Its child lives for so short a time that who looks for it may miss it.
    began = '"type":"started"'
    wait_for(lambda: there.journal(job.id).count(began) == 2, what="the copy's beginning")
    with there.redis.client() as client:
        wait_for(lambda: not client.exists(wire.lease_key(job.id)), what="the copy's end")
    assert there.children() == []
    assert job_is(job, lambda j: j.status == "completed")()


def test_a_start_that_dies_between_commit_and_message_is_sent_by_the_reaper(there: Site) -> None:
    job = there.job(epochs=2, start=False)
    pid = os.fork()
    if pid == 0:
        db.engine.dispose(close=False)
        executors.CeleryExecutor.start = lambda *_: os._exit(9)  # type: ignore[method-assign]
        job_actions.start(job, actor="test")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert job_is(job, lambda j: j.status == "queued")()
    there.quick_worker("w1")
    there.wait(job, ended)
    assert job.attempt == 1


# Redis.


@pytest.mark.parametrize("runs", [True, False])
def test_a_cancel_that_dies_before_it_is_told_to_workers_is_obeyed(there: Site, runs: bool) -> None:
    if runs:
        there.quick_worker("w1")
    job = there.job(epochs=3000, becomes="cancelled")
    if runs:
        there.wait(job, training)
    pid = os.fork()
    if pid == 0:
        db.engine.dispose(close=False)
        executors.CeleryExecutor.cancel = lambda *_: os._exit(9)  # type: ignore[method-assign]
        job_actions.cancel(job, mode=CancelMode.NOW, actor="test")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    after = there.job(epochs=1)
    if not runs:
        assert job_is(job, lambda j: j.status == "cancelled")()
        there.quick_worker("w1")
    there.wait(after, ended)  # so the slot is free
    there.wait(job, ended)
    assert job.status == "cancelled"


def test_every_connection_is_killed_in_mid_job(there: Site) -> None:
    there.quick_worker("w1")
    job = there.job(epochs=20, hold_in=18)
    there.wait(job, training)
    with there.redis.client() as client:
        for _ in range(5):
            client.client_kill_filter(_type="normal", skipme=True)
            client.client_kill_filter(_type="pubsub", skipme=True)
            wait_for(lambda: len(client.client_list()) > 1, what="who connects again")
    there.let_go(job.id)
    there.wait(job, ended)
    assert job.attempt == 1
    after = there.job(epochs=1)
    there.wait(after, ended)


def test_a_redis_killed_with_jobs_queued_forgets_none(there: Site) -> None:
    jobs = [there.job(epochs=2) for _ in range(3)]
    there.redis.kill()
    there.redis.start()
    there.quick_worker("w1")
    for job in jobs:
        there.wait(job, ended)


def test_a_redis_that_comes_back_empty_gets_the_jobs_again(there: Site) -> None:
    jobs = [there.job(epochs=2) for _ in range(2)]
    there.redis.kill()
    there.redis.forget(seconds=None)
    there.redis.start()
    there.quick_worker("w1")
    for job in jobs:
        there.wait(job, ended)
        assert job.attempt == 1


def test_a_redis_frozen_and_killed_as_a_job_completes_hears_of_it_later(there: Site) -> None:
    there.quick_worker("w1")
    job = there.job(epochs=4, hold_in=4)
    there.wait(job, in_epoch(4))
    there.redis.freeze()
    there.let_go(job.id)
    wait_for(lambda: '"outcome":"completed"' in there.journal(job.id), what="the end of training")
    there.redis.kill()
    there.redis.start()
    there.wait(job, ended)
    assert (job.status, job.attempt) == ("completed", 1)


def lose_the_last_second(
    there: Site,
    job: Job,
    recorder: subprocess.Popen[bytes],
    *,
    kill_too: subprocess.Popen[bytes] | None = None,
) -> None:
    """Let Redis die with events that no recorder has read, and forget some of them.

    The job is held in its third epoch before, in its 18th after. ``kill_too`` dies with Redis.
    """
    there.wait(job, in_epoch(3))
    recorder.send_signal(signal.SIGSTOP)
    there.hold(job.id, epoch=18)
    wait_for(lambda: there.journal(job.id).count('"metrics"') == 17, what="events unread")
    there.redis.kill()
    if kill_too is not None:
        kill(kill_too)
    # By whole seconds of its clock: of "the last second" there may be next to nothing.
    assert there.redis.forget(seconds=2.0) > 0
    there.redis.start()
    recorder.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("worker_lives", [True, False])
def test_what_redis_lost_with_its_last_second_is_in_the_curve(
    there: Site, worker_lives: bool
) -> None:
    worker = there.quick_worker("w1")
    job = there.job(epochs=20, hold_in=3)
    recorder = there.first_recorder
    lose_the_last_second(there, job, recorder, kill_too=None if worker_lives else worker)
    there.let_go(job.id)
    if not worker_lives:
        there.quick_worker("w2")
    there.wait(job, ended)
    assert job.attempt == (1 if worker_lives else 2)
    assert "events were recorded from its file" in there.log_of("webapp.recorder")


def test_a_recorder_that_does_not_see_the_files_has_the_worker_say_it_again(
    tmp_path: Path, redis_service: RedisService
) -> None:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with site(tmp_path, database_url=url, redis=redis_service) as there:
        elsewhere = str(tmp_path / "not-shared")
        recorder = there.start("webapp.recorder", MODELYARD_OUTPUTS=elsewhere)
        there.quick_worker("w1")
        job = there.job(epochs=20, hold_in=3)
        lose_the_last_second(there, job, recorder)
        # A worker says again what belongs to an attempt that it trains.
        there.wait(job, in_epoch(18))
        there.let_go(job.id)
        there.wait(job, ended)
        assert (job.status, job.attempt) == ("completed", 1)
        check(there)
        assert "is missing here, its worker is asked for it" in there.log_of("webapp.recorder")


def test_training_pauses_at_the_end_of_its_lease_and_goes_on_with_redis(there: Site) -> None:
    there.quick_worker("w1")
    job = there.job(epochs=80, hold_in=2)
    there.wait(job, in_epoch(2))
    [child] = there.children()
    there.let_go(job.id)
    there.redis.kill()
    wait_for(lambda: child.status() == psutil.STATUS_STOPPED, what="the pause")
    before = there.journal(job.id).count('"metrics"')
    there.redis.start()
    there.wait(job, ended)
    assert (job.status, job.attempt) == ("completed", 1)
    assert before < 80
    assert "training is paused" in there.journal(job.id)


def test_a_worker_cut_off_alone_has_its_child_dead_before_another_trains(
    proxy: Proxy, there: Site
) -> None:
    url = there.redis.url.replace(str(there.redis.server.port), str(proxy.port))
    cut_off = there.quick_worker("w1", REDIS_URL=url)
    job = there.job(epochs=50, step_seconds=0.02, hold_in=2)
    there.wait(job, in_epoch(2))
    children = there.children()
    there.quick_worker("w2")
    there.let_go(job.id)
    proxy.swallow()
    there.wait(job, lambda j: j.attempt == 2 and j.status == "running")
    proxy.heal()
    wait_for(lambda: gone(children), what="the end of its child")
    there.wait(job, ended)
    assert job.worker == "w2"
    assert cut_off.poll() is None
    after = [there.job(epochs=1000, becomes="cancelled") for _ in range(2)]
    for each in after:
        there.wait(each, training)
    assert {each.worker for each in after} == {"w1", "w2"}  # both take jobs again
    for each in after:
        job_actions.cancel(each, mode=CancelMode.KILL, actor="test")
        there.wait(each, ended)


def test_a_full_redis_delays_what_is_told_and_pauses_nothing(there: Site) -> None:
    there.quick_worker("w1")
    job = there.job(epochs=40, step_seconds=0.02, hold_in=2)
    there.wait(job, in_epoch(2))
    with there.redis.client() as client:
        client.config_set("maxmemory", "1")
        try:
            there.let_go(job.id)  # for two lease times, even where all is quick
            wait_for(lambda: '"outcome":"completed"' in there.journal(job.id), what="its end")
        finally:
            client.config_set("maxmemory", "0")
    there.wait(job, ended)
    assert (job.status, job.attempt) == ("completed", 1)
    assert "training is paused" not in there.journal(job.id)


# Processes.


def test_the_job_of_a_killed_worker_goes_on_elsewhere(there: Site) -> None:
    worker = there.quick_worker("w1")
    job = there.job(epochs=8, loaders=1, hold_in=5)
    there.wait(job, in_epoch(5))
    children = there.children()
    assert len(children) == 2
    kill(worker)
    there.let_go(job.id)
    wait_for(lambda: gone(children), what="the end of its child")
    there.quick_worker("w2")
    there.wait(job, ended)
    assert (job.attempt, job.lost_attempts, job.worker) == (2, 1, "w2")


def template_of(worker: subprocess.Popen[bytes]) -> psutil.Process:
    """Return the process that a worker's children are forked from."""
    below = psutil.Process(worker.pid).children()
    return next(process for process in below if "forkserver" in " ".join(process.cmdline()))


def test_a_killed_child_is_followed_by_one_that_goes_on(there: Site) -> None:
    there.quick_worker("w1")
    job = there.job(epochs=8, loaders=1, hold_in=5)
    there.wait(job, in_epoch(5))
    children = there.children()
    leader(children).kill()
    there.let_go(job.id)
    there.wait(job, ended)
    assert (job.attempt, job.lost_attempts) == (2, 1)
    assert gone(children)


def test_a_killed_template_takes_its_children_along_and_another_takes_its_place(
    there: Site,
) -> None:
    there.quick_worker("w1")
    job = there.job(epochs=8, loaders=1, hold_in=3)
    there.wait(job, in_epoch(3))
    children = there.children()
    template = leader(children).parent()
    assert template is not None
    template.kill()
    there.let_go(job.id)
    wait_for(lambda: gone(children), what="the end of its children")
    there.wait(job, ended)
    assert (job.status, job.attempt, job.lost_attempts) == ("completed", 2, 1)


def test_a_child_that_always_dies_at_the_same_place_is_not_tried_for_ever(there: Site) -> None:
    there.quick_worker("w1")
    job = there.job(epochs=5, dies_at=2, becomes="failed")
    there.wait(job, ended)
    assert job.attempt == 3  # after a step, then twice before the first
    assert job.error is not None
    assert job.error["kind"] == "child_died"
    assert "the same way at the same place twice" in job.error["message"]


def test_a_child_that_hangs_is_ended_and_frees_its_slot(there: Site) -> None:
    there.quick_worker("w1", MODELYARD_STALL_SECONDS="10")
    job, after = there.job(epochs=5, hangs_at=2, becomes="failed"), there.job(epochs=2)
    there.wait(job, ended)
    assert job.error is not None
    assert job.error["kind"] == "stalled"
    there.wait(after, ended)


def test_a_child_that_hangs_when_it_is_trained_is_ended_and_its_job_is_completed(
    there: Site,
) -> None:
    there.quick_worker("w1", MODELYARD_STALL_SECONDS="10")
    job, after = there.job(epochs=2, hangs_after=True), there.job(epochs=1)
    there.wait(job, ended)
    assert (job.status, job.attempt, job.error) == ("completed", 1, None)
    assert "No step for 10 s" in there.journal(job.id)
    there.wait(after, ended)


def test_a_child_killed_half_through_a_word_is_told_as_killed(there: Site) -> None:
    there.quick_worker("w1")
    job = there.job(epochs=3, dies_in_a_word=2, becomes="failed")
    there.wait(job, ended)
    assert job.error is not None
    assert job.error["kind"] == "child_died"
    assert "was killed by SIGKILL" in job.error["message"]


def test_a_template_that_hangs_keeps_no_job_and_no_slot(there: Site) -> None:
    worker = there.quick_worker("w1", MODELYARD_STALL_SECONDS="10")
    there.wait(there.job(epochs=1), ended)
    template = template_of(worker)
    template.suspend()
    job = there.job(epochs=2)
    there.wait(job, lambda j: j.status == "running")
    job_actions.cancel(job, mode=CancelMode.NOW, actor="test")
    there.wait(job, ended)
    other = there.job(epochs=2, becomes="failed")
    there.wait(other, ended)
    assert other.error is not None
    assert other.error["kind"] == "stalled"
    template.resume()  # and forks whom nobody waits for any more
    job_actions.resume(job, actor="test")
    there.wait(job, ended)
    assert (job.status, job.attempt) == ("completed", 2)


def test_of_two_recorders_the_second_takes_over_from_one_that_is_killed(
    tmp_path: Path, redis_service: RedisService
) -> None:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with site(tmp_path, database_url=url, redis=redis_service) as there:
        first = there.recorder()
        there.quick_worker("w1")
        job = there.job(epochs=4, hold_in=2)
        there.wait(job, in_epoch(2))
        there.recorder()
        kill(first)
        there.let_go(job.id)
        there.wait(job, ended)
        check(there)


def test_a_worker_asked_to_end_hands_its_job_back_and_spends_no_attempt(there: Site) -> None:
    for number in (1, 2, 3, 4):  # more often than attempts may be lost
        if number == 1:
            job = there.job(epochs=8, hold_in=2)
        else:
            there.hold(job.id, epoch=number + 1)
        worker = there.quick_worker(f"w{number}")
        there.wait(job, in_epoch(number + 1))
        worker.terminate()
        assert worker.wait(PATIENCE_SECONDS) == 0
        there.wait(job, lambda j: j.status == "queued")
    there.let_go(job.id)
    there.quick_worker("w5")
    there.wait(job, ended)
    assert (job.status, job.attempt, job.lost_attempts) == ("completed", 5, 0)


def test_a_machine_about_to_be_taken_away_hands_its_job_back(there: Site) -> None:
    notice = there.home / "notice"
    worker = there.quick_worker("w1", MODELYARD_SPOT_NOTICE=f"test -e {notice}")
    job = there.job(epochs=4, hold_in=2)
    there.wait(job, in_epoch(2))
    notice.touch()
    assert worker.wait(PATIENCE_SECONDS) == 0
    there.let_go(job.id)
    there.quick_worker("w2")
    there.wait(job, ended)
    assert (job.status, job.attempt, job.lost_attempts) == ("completed", 2, 0)


def test_a_second_signal_ends_a_worker_at_once(there: Site) -> None:
    worker = there.quick_worker("w1", MODELYARD_SHUTDOWN_GRACE_SECONDS="3000")
    job = there.job(epochs=4, deaf=True, hold_in=2)
    there.wait(job, in_epoch(2))
    children = there.children()
    worker.terminate()
    wait_for(lambda: "Warm shutdown" in there.log_of("workers"), what="the first signal's effect")
    assert worker.poll() is None
    worker.terminate()
    worker.wait(PATIENCE_SECONDS)
    wait_for(lambda: gone(children), what="the end of its child")
    there.let_go(job.id)
    there.quick_worker("w2")
    there.wait(job, ended)
    assert (job.status, job.attempt, job.lost_attempts) == ("completed", 2, 0)


def test_a_worker_stopped_past_its_lease_wakes_to_a_dead_child_and_is_not_heard(
    there: Site,
) -> None:
    worker = there.quick_worker("w1")
    job = there.job(epochs=30, step_seconds=0.02, hold_in=2)
    there.wait(job, in_epoch(2))
    there.quick_worker("w2")
    children = there.children()
    there.let_go(job.id)
    worker.send_signal(signal.SIGSTOP)
    there.wait(job, lambda j: j.attempt == 2 and j.status == "running")
    assert [p.status() for p in children] == [psutil.STATUS_STOPPED]  # nobody told it
    worker.send_signal(signal.SIGCONT)
    wait_for(lambda: gone(children), what="the end of its child")
    there.wait(job, ended)
    assert (job.status, job.attempt, job.worker) == ("completed", 2, "w2")
    finished = [
        json.loads(line) for line in there.journal(job.id).splitlines() if "finished" in line
    ]
    assert [event["attempt"] for event in finished if event["type"] == "finished"] == [2]


def test_a_folder_that_cannot_be_written_fails_the_job_and_says_so(there: Site) -> None:
    there.quick_worker("w1")
    job = there.job(epochs=2, start=False, becomes="failed")
    folder = there.outputs_of(job.id)
    folder.parent.mkdir(parents=True)
    folder.write_text("a file is in the way")
    job_actions.start(job, actor="test")
    there.wait(job, ended)
    assert job.error is not None
    assert str(folder) in job.error["message"]
    folder.unlink()


# The database.


def test_a_database_that_is_locked_for_a_while_loses_nothing(there: Site) -> None:
    there.quick_worker("w1")
    job = there.job(epochs=4, hold_in=2)
    there.wait(job, in_epoch(2))
    engine = sa.create_engine(there.database_url)
    job_id = job.id
    db.session.remove()
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        there.let_go(job_id)
        wait_for(lambda: '"outcome":"completed"' in there.journal(job_id), what="its end")
        wait_for(
            lambda: "recording waits" in there.log_of("webapp.recorder"),
            what="a recorder that cannot write",
        )
    engine.dispose()
    job = db.session.get_one(Job, job_id)
    there.wait(job, ended)
    assert (job.status, job.attempt) == ("completed", 1)


def test_a_postgres_that_goes_away_and_comes_back_loses_nothing(
    tmp_path: Path,
    redis_service: RedisService,
    _postgres: PostgresService,  # noqa: PT019
    postgres_url: str,
) -> None:
    with site(tmp_path, database_url=postgres_url, redis=redis_service) as there:
        there.recorder()
        there.quick_worker("w1")
        job = there.job(epochs=4, hold_in=2)
        there.wait(job, in_epoch(2))
        job_id = job.id
        db.session.remove()
        db.engine.dispose()
        _postgres.refuse(postgres_url)
        there.let_go(job_id)
        wait_for(lambda: '"outcome":"completed"' in there.journal(job_id), what="its end")
        _postgres.accept(postgres_url)
        job = db.session.get_one(Job, job_id)
        there.wait(job, ended)
        assert (job.status, job.attempt) == ("completed", 1)
        check(there)


# Cancels.


def test_a_job_cancelled_while_it_waits_never_trains(there: Site) -> None:
    job, after = there.job(epochs=2, becomes="cancelled"), there.job(epochs=2)
    job_actions.cancel(job, mode=CancelMode.NOW, actor="test")
    there.quick_worker("w1")
    there.wait(after, ended)
    assert there.journal(job.id) == ""


@pytest.mark.parametrize("delay_seconds", [0.0, 0.02, 0.05, 0.1, 0.2])
def test_a_job_cancelled_while_it_starts_ends_cancelled(there: Site, delay_seconds: float) -> None:
    there.quick_worker("w1")
    job = there.job(epochs=200, becomes="cancelled")
    time.sleep(delay_seconds)
    job_actions.cancel(job, mode=CancelMode.NOW, actor="test")
    there.wait(job, ended)
    assert job.status == "cancelled"
    wait_for(lambda: not there.children(), what="no child")


def test_a_job_cancelled_while_it_writes_a_checkpoint_has_a_whole_one(there: Site) -> None:
    there.quick_worker("w1")
    job = there.job(epochs=1000, hold_in=2, becomes="cancelled")
    checkpoints = there.outputs_of(job.id) / "checkpoints"
    there.wait(job, in_epoch(2))
    there.hold_save(job.id)
    there.hold(job.id, epoch=3)
    wait_for(lambda: (checkpoints / "last.json.tmp").exists(), what="the next one's beginning")
    job_actions.cancel(job, mode=CancelMode.NOW, actor="test")
    assert json.loads((checkpoints / "last.json").read_text())["epoch"] == 2
    assert job_is(job, lambda j: j.status == "cancelling")()
    there.let_go(job.id)
    there.wait(job, ended)
    assert job.status == "cancelled"
    assert json.loads((checkpoints / "last.json").read_text())["epoch"] >= 2
    job_actions.resume(job, actor="test")
    there.wait(job, training)
    job_actions.cancel(job, mode=CancelMode.KILL, actor="test")
    there.wait(job, ended)
    assert json.loads((checkpoints / "last.json").read_text())["epoch"] >= 2


def test_a_child_that_ignores_every_signal_is_killed_after_its_grace(there: Site) -> None:
    there.quick_worker("w1", MODELYARD_CANCEL_GRACE_SECONDS="2")
    job = there.job(epochs=1000, deaf=True, loaders=2, becomes="cancelled")
    there.wait(job, training)
    children = there.children()
    job_actions.cancel(job, mode=CancelMode.NOW, actor="test")
    there.wait(job, ended)
    assert gone(children)
    after = there.job(epochs=1)
    there.wait(after, ended)


def test_each_request_to_stop_may_be_followed_by_a_harder_one(there: Site) -> None:
    there.quick_worker("w1", MODELYARD_CANCEL_GRACE_SECONDS="3000")
    job = there.job(epochs=1000, deaf=True, loaders=1, becomes="cancelled")
    there.wait(job, training)
    children = there.children()
    for mode in (CancelMode.AFTER_EPOCH, CancelMode.NOW):
        job_actions.cancel(job, mode=mode, actor=f"user:{mode}")
        with pytest.raises(Refused):
            job_actions.cancel(job, mode=CancelMode.AFTER_EPOCH, actor="user:soft")
        wait_for(lambda: there.journal(job.id).count('"log"') >= 3, what="training that goes on")
        assert not gone(children)
    job_actions.cancel(job, mode=CancelMode.KILL, actor="user:kill")
    there.wait(job, ended)
    assert gone(children)
    rows = db.session.scalars(
        sa.select(StatusChange).filter_by(job_id=job.id).order_by(StatusChange.id)
    )
    told = [(row.actor, row.reason) for row in rows if row.status == "cancelling"]
    assert told == [(f"user:{mode}", f"cancelled ({mode})") for mode in CancelMode]


def test_the_history_tells_what_happened(there: Site) -> None:
    worker = there.quick_worker("w1")
    job = there.job(epochs=4, hold_in=3)
    there.wait(job, in_epoch(3))
    kill(worker)
    there.let_go(job.id)
    there.quick_worker("w2")
    there.wait(job, ended)
    rows = db.session.scalars(sa.select(StatusChange).filter_by(job_id=job.id))
    told = [(c.status, c.actor.partition(":")[0], c.reason) for c in rows]
    assert ("queued", "reaper", "worker w1 was lost") in told
    assert db.session.get_one(Attempt, (job.id, 1)).outcome == "lost"
