"""Urgent jobs take the places of others, which lose nothing; also while parts of it die."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.faults.invariants import check
from tests.faults.site import Site, ended, gone, in_epoch, kill, site, training
from tests.services import RedisService, wait_for
from webapp.extensions import db
from webapp.models import Attempt, Job, StatusChange
from webapp.services import broker, job_actions
from webapp.services.job_actions import CancelMode
from webapp.services.waiting import waits

# Held in the middle of its second epoch: who is about to end need not make place.
HELD: dict[str, Any] = {"epochs": 4, "hold_in": 2}


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Site]:
    """A site in `subprocess` mode with its recorder."""
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with site(tmp_path, database_url=url, redis=None) as there:
        there.recorder()
        yield there
        check(there)


@pytest.fixture
def patient(tmp_path: Path, redis_service: RedisService) -> Iterator[Site]:
    """A site with a recorder, where a worker may be stopped for a while: its lease is long."""
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with site(tmp_path, database_url=url, redis=redis_service, lease_seconds=30) as there:
        there.first_recorder = there.recorder()
        yield there
        check(there)


def urgent(there: Site, *, hold_in: int | None = None) -> Job:
    return there.job(epochs=2, priority=9, preempt=True, hold_in=hold_in)


def is_asked(job: Job) -> bool:
    return job.status == "running" and job.displaced_by is not None


def history(job: Job) -> list[tuple[str, str, str]]:
    db.session.rollback()
    rows = sa.select(StatusChange).filter_by(job_id=job.id).order_by(StatusChange.id)
    return [(c.status, c.actor, c.reason) for c in db.session.scalars(rows)]


def order_of_starts() -> list[tuple[int, int]]:
    """Return all attempts (job, number) in the order in which they began."""
    db.session.rollback()
    rows = db.session.scalars(sa.select(Attempt).order_by(Attempt.started_at))
    return [(attempt.job_id, attempt.number) for attempt in rows if attempt.started_at]


def began_to_write(there: Site, job: Job) -> bool:
    """Tell whether a held job is writing its checkpoint within an epoch, as it does when asked."""
    return (there.outputs_of(job.id) / "checkpoints" / "last.json.tmp").exists()


def asked_and_writing(there: Site) -> tuple[Job, Job]:
    """Let a job be asked for its place and stay half through its checkpoint.

    Returns it and the urgent one.
    """
    slow = there.job(**HELD, priority=2)
    there.wait(slow, in_epoch(2))
    there.hold_save(slow.id)
    first = urgent(there)
    there.wait(slow, is_asked)
    wait_for(lambda: began_to_write(there, slow), what="its checkpoint")
    return slow, first


def displaced_in_order(there: Site) -> None:
    """See in which order jobs of one slot begin, of which the last but one takes the slot."""
    low = there.job(**HELD, priority=2)
    there.wait(low, in_epoch(2))
    later, middle = there.job(epochs=1, priority=2), there.job(epochs=1, priority=5)
    first = urgent(there, hold_in=1)
    there.wait(first, training)
    db.session.refresh(low)
    assert (low.status, low.attempt, low.displaced_by) == ("queued", 2, first.id)
    reason = waits([low])[low.id].reason
    assert reason is not None
    assert reason.startswith(f"Gave its place to job {first.id}; 1 job is ahead in the queue")
    for job in (low, first):
        there.let_go(job.id)
    for job in (low, later, middle):
        there.wait(job, ended)
    assert (low.lost_attempts, low.displaced_by, first.attempt) == (0, None, 1)
    assert order_of_starts() == [
        (low.id, 1), (first.id, 1), (middle.id, 1), (low.id, 2), (later.id, 1),
    ]  # fmt: skip
    told = ("queued", f"worker:{low.worker}", f"gave its place to job {first.id} (priority 9)")
    assert told in history(low)
    given = db.session.get_one(Attempt, (low.id, 1))
    assert (given.outcome, given.reason) == ("preempted", told[2])


def test_an_urgent_job_takes_a_place_and_who_gave_it_goes_on_before_its_equals(
    there: Site,
) -> None:
    there.quick_worker("w1")
    displaced_in_order(there)


def test_in_subprocess_mode_it_is_the_same(alone: Site) -> None:
    displaced_in_order(alone)


def test_a_place_given_up_spends_no_attempt(there: Site) -> None:
    there.quick_worker("w1")
    job = there.job(epochs=8, hold_in=2, priority=0)
    for number in (1, 2, 3, 4):  # more often than attempts may be lost
        there.wait(job, in_epoch(number + 1))
        first = urgent(there)
        there.wait(job, lambda j: j.attempt == number + 1)  # noqa: B023
        there.hold(job.id, epoch=number + 2)
        there.wait(first, ended)
    there.let_go(job.id)
    there.wait(job, ended)
    assert (job.status, job.attempt, job.lost_attempts) == ("completed", 5, 0)


def test_two_urgent_jobs_take_two_places_and_no_third(there: Site) -> None:
    for name in ("w1", "w2", "w3"):
        there.quick_worker(name)
    jobs = [there.job(**HELD, priority=priority) for priority in (3, 1, 2)]
    for job in jobs:
        there.wait(job, in_epoch(2))
    several = [urgent(there, hold_in=1), urgent(there, hold_in=1)]
    for each in several:
        there.wait(each, training)
    for each in (*several, *jobs):
        there.let_go(each.id)
    for each in (*several, *jobs):
        there.wait(each, ended)
    assert [job.attempt for job in jobs] == [1, 2, 2]


def test_a_child_that_does_not_listen_is_killed_and_goes_on_from_its_last_checkpoint(
    there: Site,
) -> None:
    there.quick_worker("w1", MODELYARD_CANCEL_GRACE_SECONDS="1")
    job = there.job(**HELD, priority=0, deaf=True, loaders=1)
    there.wait(job, in_epoch(2))
    children = there.children()
    first = urgent(there)
    there.wait(first, ended)
    assert gone(children)
    there.let_go(job.id)
    there.wait(job, ended)
    assert (job.status, job.attempt, job.lost_attempts) == ("completed", 2, 0)
    assert "goes on after epoch" in there.journal(job.id)


def test_a_worker_that_dies_while_a_checkpoint_is_written_loses_neither_job(there: Site) -> None:
    worker = there.quick_worker("w1")
    slow, first = asked_and_writing(there)
    kill(worker)
    there.let_go(slow.id)
    there.quick_worker("w2")
    there.wait(first, ended)
    there.wait(slow, ended)
    assert (first.attempt, slow.attempt, slow.lost_attempts) == (1, 2, 1)
    assert slow.displaced_by is None


def test_a_child_that_dies_while_it_writes_goes_on_from_the_checkpoint_before(there: Site) -> None:
    there.quick_worker("w1")
    slow, first = asked_and_writing(there)
    assert waits([first])[first.id].reason == (
        f"Job {slow.id} (priority 2) on w1 is writing its checkpoint to make place"
    )
    there.children()[0].kill()
    there.let_go(slow.id)
    there.wait(first, ended)
    there.wait(slow, ended)
    assert (slow.attempt, slow.lost_attempts) == (2, 0)
    assert "goes on after epoch 2 step 0" in there.journal(slow.id)


def test_of_a_recorder_that_dies_the_next_asks_for_no_second_place(there: Site) -> None:
    there.quick_worker("w1")
    there.quick_worker("w2")
    other = there.job(**HELD, priority=3)
    there.wait(other, in_epoch(2))
    slow, first = asked_and_writing(there)
    kill(there.first_recorder)
    there.recorder()
    records = "this recorder records"
    wait_for(
        lambda: there.log_of("webapp.recorder").count(records) == 2,
        what="the next one's turn",
    )
    there.let_save(slow.id)
    there.wait(first, ended)
    for job in (slow, other):
        there.let_go(job.id)
        there.wait(job, ended)
    assert (other.attempt, slow.attempt) == (1, 2)


def test_an_urgent_job_cancelled_meanwhile_lets_the_other_go_on(there: Site) -> None:
    there.quick_worker("w1")
    slow, first = asked_and_writing(there)
    there.expected[first.id] = "cancelled"
    job_actions.cancel(first, mode=CancelMode.NOW, actor="test")
    there.wait(slow, lambda j: j.displaced_by is None)
    there.let_go(slow.id)
    there.wait(slow, ended)
    assert (slow.attempt, slow.lost_attempts) == (2, 0)
    reasons = [reason for _, _, reason in history(slow)]
    assert "made place for a job that needed it no more" in reasons


def test_a_job_cancelled_while_it_makes_place_is_cancelled(there: Site) -> None:
    there.quick_worker("w1")
    slow, first = asked_and_writing(there)
    there.expected[slow.id] = "cancelled"
    job_actions.cancel(slow, mode=CancelMode.AFTER_EPOCH, actor="test")
    there.let_go(slow.id)
    there.wait(slow, ended)
    assert (slow.status, slow.displaced_by) == ("cancelled", None)
    there.wait(first, ended)


def test_what_redis_forgets_meanwhile_is_asked_for_again(patient: Site) -> None:
    there = patient
    worker = there.quick_worker("w1")
    job = there.job(**HELD, priority=2)
    there.wait(job, in_epoch(2))
    there.first_recorder.send_signal(signal.SIGSTOP)
    first = urgent(there)
    [before] = broker.workers()
    wait_for(lambda: broker.workers() != [before], what="the worker's next heartbeat")
    worker.send_signal(signal.SIGSTOP)  # so it does not hear before Redis dies
    there.first_recorder.send_signal(signal.SIGCONT)  # it looks while the worker is not yet silent
    there.wait(job, is_asked)
    there.redis.kill()
    there.redis.forget(seconds=None)  # the asking and the urgent job's message
    there.redis.start()
    worker.send_signal(signal.SIGCONT)
    there.wait(first, ended)
    there.let_go(job.id)
    there.wait(job, ended)
    assert job.lost_attempts == 0
    begun = [job_id for job_id, _ in order_of_starts()]
    assert begun == [job.id, first.id, job.id]
    steps = [json.loads(line) for line in there.journal(job.id).splitlines()]
    outcomes = [event["data"]["outcome"] for event in steps if event["type"] == "finished"]
    assert outcomes == ["preempted", "completed"]
