"""What the quick framework cannot show: the weights of a real one, and its loader processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from adapters import wire
from tests.factories import make_job
from tests.faults.site import Site, ended, in_epoch, kill, site, training
from tests.services import RedisService, wait_for
from tests.worker_service import few_digits
from webapp.extensions import db
from webapp.models import Attempt, Job
from webapp.services import job_actions


@pytest.fixture
def there(tmp_path: Path, redis_service: RedisService) -> Iterator[Site]:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with site(tmp_path, database_url=url, redis=redis_service) as there:
        there.environ["MODELYARD_THREADS"] = "1"  # sums split among threads differ in last bits
        few_digits(there.data)
        # However fast the machine is, no job is about to end when it is to give its place.
        there.start("webapp.recorder", FAULTS_ABOUT_TO_END_SECONDS="0")
        yield there


def digits(
    there: Site, *, epochs: int, priority: int = 4, preempt: bool = False, **hyperparameters: Any
) -> Job:
    job = make_job(
        model_name="test_resnet", image_size=32, batch_size=64, epochs=epochs, seed=5,
        dataset_path=str(there.data / "digits"), hyperparameters=hyperparameters,
        priority=priority, preempt=preempt,
    )  # fmt: skip
    job_actions.start(job, actor="test")
    return job


def weights(there: Site, job: Job) -> bytes:
    folder = there.home / "outputs" / wire.job_folder(job.id)
    content = (folder / "checkpoints" / "best.safetensors").read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")  # its metadata come in any order
    return content[header:]


def test_the_job_of_a_killed_worker_ends_with_the_weights_of_an_undisturbed_one(
    there: Site,
) -> None:
    worker = there.worker("w1")
    undisturbed = digits(there, epochs=12)
    there.wait(undisturbed, ended)
    assert undisturbed.status == "completed", undisturbed.error
    job = digits(there, epochs=12)
    there.wait(job, in_epoch(2))
    kill(worker)
    there.worker("w2")
    there.wait(job, ended)
    assert (job.status, job.attempt) == ("completed", 2)
    assert job.latest_metrics["top1"] == undisturbed.latest_metrics["top1"]
    assert weights(there, job) == weights(there, undisturbed)


def test_a_job_that_gave_its_place_ends_with_the_weights_of_an_undisturbed_one(
    there: Site,
) -> None:
    there.worker("w1")
    undisturbed = digits(there, epochs=20)
    there.wait(undisturbed, ended)
    job = digits(there, epochs=20)
    there.wait(job, lambda j: training(j) and j.progress["step"] > 1)
    urgent = digits(there, epochs=1, priority=9, preempt=True)
    there.wait(urgent, ended)
    there.wait(job, ended)
    assert (job.status, job.attempt, job.lost_attempts) == ("completed", 2, 0)
    assert db.session.get_one(Attempt, (job.id, 1)).outcome == "preempted"
    assert job.latest_metrics["top1"] == undisturbed.latest_metrics["top1"]
    assert weights(there, job) == weights(there, undisturbed)


def loader_of(there: Site) -> psutil.Process | None:
    """Return a process that loads data for the child, from its first epoch to its last."""
    return next((p for p in there.children() if p.pid != os.getpgid(p.pid)), None)


def test_a_killed_loader_process_costs_an_attempt_and_not_the_job(there: Site) -> None:
    there.worker("w1")
    job = digits(there, epochs=10, workers=1)
    there.wait(job, training)
    loader = wait_for(lambda: loader_of(there), what="a loader")
    loader.kill()
    there.wait(job, ended)
    assert (job.status, job.attempt, job.lost_attempts) == ("completed", 2, 1)
