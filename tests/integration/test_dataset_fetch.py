"""Workers that do not see a data set's folder fetch it from a real S3 server, once."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import select

from adapters.data.manifest import Manifest, dataset_prefix, manifest_key
from modelyard.ports import free_port
from modelyard.storage import Store, open_store
from tests.factories import application, make_job
from tests.faults.conftest import _quick_framework  # noqa: F401  # used by each test
from tests.faults.site import PLUGIN
from tests.services import RedisService, S3Service, wait_for
from tests.unit.data_sets import make_imagefolder, write_image
from tests.worker_service import Instance, job_is
from webapp.extensions import db
from webapp.models import CopyStatus, Dataset, DatasetCopy, Job, JobEvent, Project
from webapp.services import datasets, job_actions
from webapp.services.job_view import view


class Site(Instance):
    """A recorder, and workers elsewhere: their hosts have no folder of this one."""

    def __init__(self, home: Path, *, redis: RedisService, s3: S3Service) -> None:
        home.mkdir()
        super().__init__(home, database_url=f"sqlite:///{home / 'modelyard.db'}", redis=redis)
        self.s3 = s3
        self.bucket = s3.create_bucket()
        self.url = f"s3://{self.bucket}/modelyard"
        self.environ |= s3.environ | {
            "PYTHONPATH": str(PLUGIN),
            "MODELYARD_STORE": self.url,
            "MODELYARD_THREADS": "0",
            "FAULTS_LEASE_SECONDS": "8",
        }

    def elsewhere(self, name: str, **environ: str) -> subprocess.Popen[bytes]:
        """Start a worker on a host of its own and wait until it takes jobs."""
        there = self.home.parent / environ.pop("host", name)
        there.mkdir(exist_ok=True)
        at = len(self._processes)
        process = self.start(
            "workers",
            **{
                "MODELYARD_HOME": str(there),
                "MODELYARD_DATA_ROOTS": str(there / "data"),
                "MODELYARD_UPLOADS": str(there / "uploads"),
                "MODELYARD_OUTPUTS": str(there / "outputs"),
                "MODELYARD_WORKER_NAME": name,
                "MODELYARD_FRAMEWORKS": "quick",
                **environ,
            },
        )
        log = self.home / f"workers.{at}.log"
        wait_for(lambda: " ready." in log.read_text(), timeout_seconds=90, what=f"worker {name}")
        return process

    def cache(self, name: str) -> Path:
        return self.home.parent / name / "cache" / "datasets"

    def store(self) -> Store:
        return open_store(self.url)

    def register(self, name: str = "tiny", *, images: int = 4, make: bool = True) -> Dataset:
        path = self.data / name
        if make:
            make_imagefolder(path, images=images)
        return datasets.register(project(), name=name, path=str(path))

    def job(self, dataset: Dataset, *, start: bool = True, **fields: Any) -> Job:
        values = {"framework": "quick", "queue": "quick", "model_name": "lcg", "epochs": 1}
        job = make_job(
            **{**values, **fields}, dataset_id=dataset.id, dataset_path=dataset.path,
            dataset_fingerprint=dataset.fingerprint,
        )  # fmt: skip
        if start:
            job_actions.start(job, actor="test")
        return job

    def wait(self, job: Job, condition: Any, *, seconds: float = 120) -> None:
        try:
            wait_for(job_is(job, condition), timeout_seconds=seconds, what=f"job {job.id}")
        except TimeoutError as error:
            state = (job.status, job.attempt, job.progress, job.error, view(job)["waiting_reason"])
            raise AssertionError(f"{error}; it is {state}\n{self.logs()}") from None

    def shards_read(self, dataset: Dataset) -> int:
        place = f"/{self.bucket}/modelyard/{dataset_prefix(dataset.fingerprint)}/"
        manifests = self.s3.requests("GET", f"{place}manifest.json")
        return self.s3.requests("GET", place) - manifests

    def said(self, job: Job) -> str:
        rows = select(JobEvent).where(JobEvent.job_id == job.id, JobEvent.type == "log")
        return "".join(event.data["text"] for event in db.session.scalars(rows))


def project() -> Project:
    found = db.session.scalar(select(Project).limit(1))
    if found is None:
        found = Project(name="cats")
        db.session.add(found)
        db.session.commit()
    return found


def ended(job: Job) -> bool:
    return job.status in ("completed", "failed", "cancelled")


def completed(job: Job) -> bool:
    assert job.status != "failed", job.error
    return job.status == "completed"


def copy_of(dataset: Dataset) -> DatasetCopy | None:
    db.session.rollback()
    return db.session.get(DatasetCopy, dataset.fingerprint, populate_existing=True)


def is_stored(dataset: Dataset) -> bool:
    copy = copy_of(dataset)
    return copy is not None and copy.status == CopyStatus.STORED


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


def test_a_job_waits_for_its_data_set_trains_on_what_was_fetched_and_the_next_fetches_nothing(
    site: Site, redis_service: RedisService
):
    dataset = site.register()
    first = site.job(dataset)
    with redis_service.client() as client:
        assert client.llen("quick") == 0  # no worker hears of it before it can be trained
    assert view(first)["waiting_reason"] == "Its data set waits to be put into the store"
    site.recorder()
    site.elsewhere("w1")
    site.wait(first, completed)
    assert (first.attempt, site.shards_read(dataset)) == (1, 1)
    assert "it is fetched from the store" in site.said(first)
    kept = site.cache("w1") / dataset.fingerprint / "data"
    assert len(list(kept.rglob("*.png"))) == 16
    second = site.job(dataset)
    site.wait(second, completed)
    assert site.shards_read(dataset) == 1
    assert "fetched" not in site.said(second)


def test_two_workers_of_a_host_that_need_it_at_once_fetch_it_once(site: Site):
    site.recorder()
    dataset = site.register(images=20)
    wait_for(lambda: is_stored(dataset), what="the copy")
    for name in ("w1", "w2"):
        site.elsewhere(name, host="shared")
    jobs = [site.job(dataset, epochs=40) for _ in range(2)]
    for job in jobs:
        site.wait(job, lambda job: job.status == "running" and job.progress)
    assert len({job.worker for job in jobs}) == 2
    assert site.shards_read(dataset) == 1
    for job in jobs:
        job_actions.cancel(job, mode=job_actions.CancelMode.NOW, actor="test")
        site.wait(job, ended)


def test_a_worker_killed_in_mid_fetch_leaves_nothing_and_another_fetches_anew(site: Site):
    site.recorder()
    make_imagefolder(site.data / "large", images=1)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            write_image(site.data / "large" / split / name / "large.bmp", size=(2500, 2000))
    dataset = site.register("large", make=False)
    wait_for(lambda: is_stored(dataset), timeout_seconds=90, what="the copy")
    w1 = site.elsewhere("w1")
    job = site.job(dataset)
    part = site.cache("w1") / f"{dataset.fingerprint}.part"
    wait_for(part.exists, timeout_seconds=60, what="half a data set", pause_seconds=0.002)
    site.s3.freeze()
    try:
        fetching = [p for p in psutil.Process(w1.pid).children(recursive=True) if fetches(p)]
        assert len(fetching) == 1
        w1.kill()
        w1.wait()
        assert psutil.wait_procs(fetching, timeout=10)[1] == []
    finally:
        site.s3.thaw()
    assert part.is_dir()
    site.elsewhere("w2")
    site.wait(job, completed)
    assert (job.attempt, job.worker) == (2, "w2")
    site.elsewhere("w1 again", host="w1", MODELYARD_WORKER_NAME="w1")
    wait_for(lambda: not part.exists(), what="a swept cache")


def fetches(process: psutil.Process) -> bool:
    return "workers.fetch" in process.cmdline()


def test_a_cancel_ends_a_fetch_at_once(site: Site):
    site.recorder()
    w1 = site.elsewhere("w1")
    dataset = site.register()
    wait_for(lambda: is_stored(dataset), what="the copy")
    site.s3.freeze()
    try:
        job = site.job(dataset)
        site.wait(job, lambda job: "fetched from the store" in site.said(job))
        job_actions.cancel(job, mode=job_actions.CancelMode.AFTER_EPOCH, actor="test")
        site.wait(job, ended, seconds=10)
        assert job.status == "cancelled"
        assert not [p for p in psutil.Process(w1.pid).children(recursive=True) if fetches(p)]
    finally:
        site.s3.thaw()
    again = site.job(dataset)
    site.wait(again, completed)


def test_the_cache_keeps_its_bound_and_refuses_what_cannot_fit(site: Site):
    site.recorder()
    site.elsewhere("w1", MODELYARD_DATA_CACHE_SIZE="250 kB")  # a set takes 95 kB
    sets = [site.register(f"set {i}") for i in range(3)]
    for dataset in sets:
        site.wait(site.job(dataset), completed)
    cache = site.cache("w1")
    there = {folder.name for folder in cache.iterdir() if folder.is_dir()}
    assert there == {dataset.fingerprint for dataset in sets[1:]}
    too_large = site.job(site.register("much", images=12))
    site.wait(too_large, ended)
    assert too_large.status == "failed"
    assert too_large.error is not None
    assert too_large.error["kind"] == "disk_full"
    assert "MODELYARD_DATA_CACHE_SIZE" in too_large.error["hint"]
    assert {folder.name for folder in cache.iterdir() if folder.is_dir()} == there


@pytest.mark.parametrize("harm", ["torn", "gone"])
def test_a_damaged_copy_is_packed_again_and_the_job_tried_again(site: Site, harm: str):
    site.recorder()
    dataset = site.register()
    wait_for(lambda: is_stored(dataset), what="the copy")
    store = site.store()
    manifest = Manifest.from_json(store.read(manifest_key(dataset.fingerprint)))
    if harm == "gone":
        store.delete(dataset_prefix(dataset.fingerprint))
    else:
        key = f"{dataset_prefix(dataset.fingerprint)}/{manifest.shards[0].name}"
        store.write(key, store.read(key)[:-20_000] + bytes(20_000))
    site.elsewhere("w1")
    job = site.job(dataset)
    site.wait(job, completed)
    assert job.attempt == 2
    assert copy_of(dataset).damaged is False  # type: ignore[union-attr]


def test_what_changed_since_it_was_checked_fails_its_job_until_it_is_validated_again(site: Site):
    dataset = site.register()
    job = site.job(dataset)
    write_image(site.data / "tiny" / "train" / "cat" / "one more.png")
    site.recorder()
    site.wait(job, ended)
    assert job.error is not None
    assert job.error["kind"] == "dataset_invalid"
    assert "has changed since it was checked; validate it again" in job.error["message"]
    datasets.look_again(dataset)
    job_actions.resume(job, actor="test")
    site.elsewhere("w1")
    site.wait(job, completed)
    assert job.dataset_fingerprint == dataset.fingerprint


def test_a_store_that_is_away_is_told_and_the_data_set_stored_on_its_return(site: Site):
    nobody = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}
    recorder = site.start("webapp.recorder", **nobody)
    site.elsewhere("w1")
    job = site.job(site.register())
    reason = "could not be put into the store and is tried again"
    site.wait(job, lambda job: reason in (view(job)["waiting_reason"] or ""))
    recorder.terminate()
    assert recorder.wait(20) == 0
    site.recorder()
    site.wait(job, completed)


def test_a_packer_that_is_killed_is_followed_by_another(site: Site):
    dataset = site.register()
    job = site.job(dataset)
    site.s3.freeze()
    try:
        recorder = site.recorder()
        found = wait_for(lambda: packers(recorder), what="a packer")
        wait_for(
            lambda: copy_of(dataset).status == CopyStatus.PACKING,  # type: ignore[union-attr]
            what="a claim",
        )
        found[0].kill()
        psutil.wait_procs(found, timeout=10)
    finally:
        site.s3.thaw()
    copy = copy_of(dataset)
    assert copy is not None
    copy.updated_at -= timedelta(seconds=40)  # as if it had been silent for so long
    db.session.commit()
    site.elsewhere("w1")
    site.wait(job, completed)


def packers(recorder: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return [p for p in psutil.Process(recorder.pid).children() if "webapp.packer" in p.cmdline()]
