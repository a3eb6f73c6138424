"""Jobs whose hosts share no outputs folder: what they make travels through a real S3 server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from adapters import wire
from modelyard.samples import make_samples
from modelyard.storage import Store, open_store
from modelyard.stored_outputs import StoredOutputs
from tests.factories import application, make_job
from tests.faults.site import ended, kill
from tests.services import RedisService, S3Service, wait_for
from tests.worker_service import Instance, job_is
from webapp.extensions import db
from webapp.models import Dataset, Job, JobEvent, Project
from webapp.services import datasets, job_actions


class Site(Instance):
    """A web host with its recorder, and workers on hosts of their own; all see the data set."""

    def __init__(self, home: Path, *, redis: RedisService, s3: S3Service) -> None:
        home.mkdir()
        super().__init__(home, database_url=f"sqlite:///{home / 'modelyard.db'}", redis=redis)
        self.s3 = s3
        self.bucket = s3.create_bucket()
        self.url = f"s3://{self.bucket}/team"
        self.environ |= s3.environ | {"MODELYARD_STORE": self.url}
        make_samples(self.data, names=["digits"])

    def host(self, name: str, **environ: str) -> subprocess.Popen[bytes]:
        """Start a worker on a host of its own and wait until it takes jobs."""
        there = self.home.parent / name
        number = len(self._processes)
        process = self.start(
            "workers",
            **{
                "MODELYARD_HOME": str(there),
                "MODELYARD_WORKER_NAME": name,
                "MODELYARD_FRAMEWORKS": "timm",
                **environ,
            },
        )
        log = self.home / f"workers.{number}.log"
        wait_for(lambda: " ready." in log.read_text(), timeout_seconds=90, what=f"worker {name}")
        return process

    def folder(self, host: str, job: Job) -> Path:
        return self.home.parent / host / "outputs" / wire.job_folder(job.id)

    def store(self) -> Store:
        return open_store(self.url)

    def stored(self, job: Job) -> StoredOutputs:
        return StoredOutputs(self.store(), job.id)

    def job(self, *, epochs: int, **fields: Any) -> Job:
        dataset = db.session.scalar(select(Dataset)) or self._register()
        job = make_job(
            project_id=dataset.project_id, model_name="test_resnet", image_size=32, batch_size=64,
            epochs=epochs, seed=5, dataset_id=dataset.id, dataset_path=dataset.path,
            dataset_fingerprint=dataset.fingerprint, **fields,
        )  # fmt: skip
        job_actions.start(job, actor="test")
        return job

    def _register(self) -> Dataset:
        project = Project(name="digits")
        db.session.add(project)
        db.session.commit()
        return datasets.register(project, name="digits", path=str(self.data / "digits"))

    def wait(self, job: Job, condition: Any, *, seconds: float = 120) -> None:
        try:
            wait_for(job_is(job, condition), timeout_seconds=seconds, what=f"job {job.id}")
        except TimeoutError as error:
            state = (job.status, job.attempt, job.progress, job.error)
            raise AssertionError(f"{error}; it is {state}\n{self.logs()}") from None

    def said(self, job: Job) -> str:
        rows = select(JobEvent).where(JobEvent.job_id == job.id, JobEvent.type == "log")
        return "".join(event.data["text"] for event in db.session.scalars(rows))


@pytest.fixture
def site(
    tmp_path: Path, redis_service: RedisService, s3: S3Service, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)
    there = Site(tmp_path / "web", redis=redis_service, s3=s3)
    with application(there.environ):
        try:
            yield there
        finally:
            there.stop()


def in_epoch(number: int) -> Any:
    return lambda job: job.progress and job.progress["epoch"] >= number


def weights(folder: Path) -> bytes:
    content = (folder / "checkpoints" / "best.safetensors").read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")  # its metadata come in any order
    return content[header:]


def test_a_job_goes_on_from_the_store_on_another_host_and_ends_with_the_same_bits(
    site: Site,
) -> None:
    site.recorder()
    first = site.host("one")
    undisturbed = site.job(epochs=6)
    site.wait(undisturbed, ended)
    assert undisturbed.status == "completed", undisturbed.error
    job = site.job(epochs=6)
    site.wait(job, in_epoch(3))
    wait_for(lambda: "checkpoints/last.pth" in site.stored(job).newest().files, what="a checkpoint")
    kill(first)
    site.host("two")
    site.wait(job, ended)
    assert (job.status, job.attempt) == ("completed", 2), site.logs()
    assert "Going on from what attempt 1 has in the store" in site.said(job)
    assert "no checkpoint" not in site.said(job)
    assert weights(site.folder("two", job)) == weights(site.folder("one", undisturbed))
    assert site.stored(job).attempts() == [2]
