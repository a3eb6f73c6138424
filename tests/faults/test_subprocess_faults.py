"""`subprocess` mode, where this host's recorder trains with no broker: the same promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from tests.faults.invariants import check
from tests.faults.site import (
    Site,
    ended,
    gone,
    in_epoch,
    kill,
    leader,
    processes_of,
    site,
    training,
)
from tests.services import PATIENCE_SECONDS, wait_for
from webapp.extensions import db
from webapp.models import Job
from webapp.services import job_actions
from webapp.services.job_actions import CancelMode


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Site]:
    """A site in `subprocess` mode with its recorder."""
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with site(tmp_path, database_url=url, redis=None) as there:
        there.environ["MODELYARD_CANCEL_GRACE_SECONDS"] = "2"
        there.environ["MODELYARD_SHUTDOWN_GRACE_SECONDS"] = "5"
        there.first_recorder = there.recorder()
        yield there
        check(there)


def supervisor(there: Site) -> psutil.Process:
    """Return the process that the recorder has started for its job."""
    [found] = [p for p in processes_of(there.home) if "workers.train" in p.cmdline()]
    return found


def trained_by(there: Site, job: Job) -> list[int]:
    """Return the attempts that trained, in the order in which they began."""
    spans = (there.home / "outputs" / f"jobs/{job.id}" / "spans.log").read_text().splitlines()
    return list(dict.fromkeys(int(line.split()[0]) for line in spans))


def standing_by(there: Site) -> int:
    """Return how many recorders had to wait for another so far."""
    return there.log_of("webapp.recorder").count("is still there")


@pytest.mark.parametrize("deaf", [False, True])
def test_a_recorder_killed_and_started_at_once_goes_on_when_its_child_has_ended(
    alone: Site, deaf: bool
) -> None:
    job = alone.job(epochs=6, loaders=1, deaf=deaf, hold_in=3)
    alone.wait(job, in_epoch(3))
    children = alone.children()
    assert len(children) == 2
    kill(alone.first_recorder)
    alone.recorder()
    wait_for(lambda: gone(children), what="the end of its child")
    alone.let_go(job.id)
    alone.wait(job, ended)
    # The child that hears handed its job back, which is in its file and costs no attempt.
    assert (job.status, job.attempt, job.lost_attempts) == ("completed", 2, 0)
    assert trained_by(alone, job) == [1, 2]


def test_a_killed_child_and_a_killed_supervisor_are_followed_by_one_that_goes_on(
    alone: Site,
) -> None:
    job = alone.job(epochs=6, loaders=1, hold_in=3)
    alone.wait(job, in_epoch(3))
    children = alone.children()
    alone.hold(job.id, epoch=5)
    leader(children).kill()
    alone.wait(job, lambda j: j.attempt == 2 and in_epoch(5)(j))
    assert gone(children)
    children = alone.children()
    supervisor(alone).kill()
    alone.let_go(job.id)
    wait_for(lambda: gone(children), what="the end of its child")
    alone.wait(job, ended)
    assert (job.status, job.attempt, job.lost_attempts) == ("completed", 3, 2)


def test_processes_that_never_begin_are_not_started_for_ever(alone: Site) -> None:
    outputs = alone.home / "outputs"
    outputs.mkdir(exist_ok=True)
    (outputs / "jobs").write_text("a file is in the way of every job's folder")
    job = alone.job(epochs=2, becomes="failed")
    alone.wait(job, ended)
    assert job.attempt == 3
    assert job.error is not None
    assert "3 attempts were lost" in job.error["message"]
    (outputs / "jobs").unlink()


def test_a_database_that_is_away_for_a_while_delays_the_curve_and_loses_nothing(
    alone: Site,
) -> None:
    job = alone.job(epochs=12, hold_in=3)
    alone.wait(job, in_epoch(3))
    engine = sa.create_engine(alone.database_url)
    job_id = job.id
    db.session.remove()
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        alone.hold(job_id, epoch=10)
        wait_for(
            lambda: "does not answer" in alone.log_of("webapp.recorder"),
            what="a recorder that cannot write",
        )
        wait_for(lambda: alone.journal(job_id).count('"metrics"') == 9, what="more epochs")
    engine.dispose()
    job = db.session.get_one(Job, job_id)
    alone.wait(job, in_epoch(10))  # while it trains, not only at its end
    assert job.status == "running"
    alone.let_go(job_id)
    alone.wait(job, ended)
    assert (job.status, job.attempt) == ("completed", 1)


def test_a_child_that_ignores_every_signal_is_killed_after_its_grace(alone: Site) -> None:
    job = alone.job(epochs=1000, deaf=True, loaders=1, becomes="cancelled")
    alone.wait(job, training)
    children = alone.children()
    job_actions.cancel(job, mode=CancelMode.AFTER_EPOCH, actor="test")
    job_actions.cancel(job, mode=CancelMode.NOW, actor="test")
    alone.wait(job, ended)
    assert gone(children)
    alone.wait(alone.job(epochs=1), ended)


def test_of_two_recorders_the_second_trains_when_the_first_is_gone(alone: Site) -> None:
    job = alone.job(epochs=4, hold_in=2)
    alone.wait(job, in_epoch(2))
    second = alone.recorder()
    wait_for(lambda: standing_by(alone) == 1, what="a recorder standing by")
    alone.first_recorder.terminate()
    alone.first_recorder.wait(PATIENCE_SECONDS)
    alone.let_go(job.id)
    alone.wait(job, ended)
    assert (job.status, job.attempt, job.lost_attempts) == ("completed", 2, 0)
    third = alone.recorder()
    wait_for(lambda: standing_by(alone) == 2, what="another that stands by")
    third.terminate()  # it ends when it is asked to
    third.wait(PATIENCE_SECONDS)
    assert second.poll() is None
