"""Workers that do not see a data set's folder fetch it from a real S3 server, once."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from sqlalchemy import select

from adapters.data.manifest import Manifest, dataset_prefix, manifest_key
from modelyard.storage import Store, open_store
from tests.factories import application, make_job
from tests.faults.conftest import _look_again
from tests.faults.proxy import Narrow
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

    recorder_process: subprocess.Popen[bytes]

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
            "FAULTS_LEASE_SECONDS": "15",
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
        wait_for(lambda: " ready." in log.read_text(), what=f"worker {name}")
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

    def cancel(self, job: Job) -> None:
        job_actions.cancel(job, mode=job_actions.CancelMode.NOW, actor="test")
        self.wait(job, ended)

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


@pytest.fixture(scope="module")
def whole_site(tmp_path_factory: pytest.TempPathFactory, s3: S3Service) -> Iterator[Site]:
    """A recorder, and a worker w1 whose cache holds two small data sets."""
    folder = tmp_path_factory.mktemp("site")
    redis = RedisService(folder / "redis")
    redis.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PLUGIN))
        for name, value in s3.environ.items():
            patch.setenv(name, value)
        _look_again()
        there = Site(folder / "web", redis=redis, s3=s3)
        with application(there.environ):
            try:
                there.recorder_process = there.recorder()
                there.elsewhere("w1", MODELYARD_DATA_CACHE_SIZE="250 kB")  # a set takes 95 kB
                yield there
            finally:
                there.stop()
                redis.stop()
    _look_again()


@pytest.fixture
def site(whole_site: Site) -> Iterator[Site]:
    db.session.rollback()
    yield whole_site
    whole_site.s3.thaw()


def test_a_job_waits_for_its_data_set_trains_on_what_was_fetched_and_the_next_fetches_nothing(
    site: Site,
):
    site.s3.freeze()
    dataset = site.register("first")
    first = site.job(dataset, hyperparameters={"reads": True})
    with redis_client(site) as client:
        assert client.llen("quick") == 0  # no worker hears of it before it can be trained
    site.wait(first, lambda job: "put into the store" in view(job)["waiting_reason"])
    site.s3.thaw()
    site.wait(first, completed)
    assert (first.attempt, site.shards_read(dataset)) == (1, 1)
    assert "it is fetched from the store" in site.said(first)
    assert "opened 16 images of 2 classes" in site.said(first)
    kept = site.cache("w1") / dataset.fingerprint / "data"
    assert len(list(kept.rglob("*.png"))) == 16
    second = site.job(dataset)
    site.wait(second, completed)
    assert site.shards_read(dataset) == 1
    assert "fetched" not in site.said(second)


def redis_client(site: Site) -> redis.Redis:
    return redis.Redis.from_url(site.environ["REDIS_URL"])


def test_two_workers_of_a_host_that_need_it_at_once_fetch_it_once(site: Site):
    dataset = site.register("for two")
    wait_for(lambda: is_stored(dataset), what="the copy")
    other = site.elsewhere("w1b", host="w1", MODELYARD_DATA_CACHE_SIZE="250 kB")
    jobs = [site.job(dataset, epochs=10_000) for _ in range(2)]
    for job in jobs:
        site.wait(job, lambda job: job.status == "running" and job.progress)
    assert len({job.worker for job in jobs}) == 2
    assert site.shards_read(dataset) == 1
    for job in jobs:
        site.cancel(job)
    other.terminate()
    other.wait(120)


def test_a_worker_killed_in_mid_fetch_leaves_nothing_and_another_fetches_anew(site: Site):
    busy = site.job(site.register("small"), epochs=10_000)
    site.wait(busy, lambda job: job.status == "running" and job.progress)  # w1 takes no more
    make_imagefolder(site.data / "large", images=1)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            write_image(site.data / "large" / split / name / "large.bmp", size=(2500, 2000))
    dataset = site.register("large", make=False)
    wait_for(lambda: is_stored(dataset), what="the copy")
    with Narrow(to_port=site.s3.port, most=20_000_000) as proxy:  # a third of it
        w2 = site.elsewhere("w2", AWS_ENDPOINT_URL=f"http://127.0.0.1:{proxy.port}")
        job = site.job(dataset)
        part = site.cache("w2") / f"{dataset.fingerprint}.part"
        wait_for(lambda: proxy.left < 0, what="half a data set")
        fetching = [p for p in psutil.Process(w2.pid).children(recursive=True) if fetches(p)]
        assert len(fetching) == 1
        w2.kill()
        w2.wait()
        assert psutil.wait_procs(fetching, timeout=120)[1] == []
    assert part.is_dir()
    w3 = site.elsewhere("w3")
    site.wait(job, completed)
    assert (job.attempt, job.worker) == (2, "w3")
    w3.terminate()
    w2_again = site.elsewhere("w2")
    wait_for(lambda: not part.exists(), what="a swept cache")
    site.cancel(busy)
    for worker in (w3, w2_again):
        worker.terminate()
        worker.wait(120)


def fetches(process: psutil.Process) -> bool:
    return runs(process, "workers.fetch")


def runs(process: psutil.Process, module: str) -> bool:
    try:
        return module in process.cmdline()
    except psutil.Error:  # whatever it was, it has just ended
        return False


def test_a_cancel_ends_a_fetch_at_once(site: Site):
    dataset = site.register("cancelled")
    wait_for(lambda: is_stored(dataset), what="the copy")
    site.s3.freeze()
    job = site.job(dataset)
    site.wait(job, lambda job: "fetched from the store" in site.said(job))
    job_actions.cancel(job, mode=job_actions.CancelMode.AFTER_EPOCH, actor="test")
    site.wait(job, ended)
    assert job.status == "cancelled"
    assert not [p for p in psutil.process_iter(["cmdline"]) if fetches(p) and here(p, site)]
    site.s3.thaw()
    again = site.job(dataset)
    site.wait(again, completed)


def here(process: psutil.Process, site: Site) -> bool:
    try:
        return process.environ().get("MODELYARD_STORE") == site.url
    except psutil.Error:  # another test's, it has just ended
        return False


def test_the_cache_keeps_its_bound_and_refuses_what_cannot_fit(site: Site):
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


def test_a_torn_copy_is_packed_again_and_the_job_tried_again(site: Site):
    dataset = site.register("torn")
    wait_for(lambda: is_stored(dataset), what="the copy")
    store = site.store()
    manifest = Manifest.from_json(store.read(manifest_key(dataset.fingerprint)))
    key = f"{dataset_prefix(dataset.fingerprint)}/{manifest.shards[0].name}"
    store.write(key, store.read(key)[:-20_000] + bytes(20_000))
    job = site.job(dataset)
    site.wait(job, completed)
    assert job.attempt == 2
    assert copy_of(dataset).damaged is False  # type: ignore[union-attr]


def test_a_packer_that_is_killed_is_followed_by_another(site: Site):
    site.s3.freeze()
    dataset = site.register("interrupted")
    job = site.job(dataset)
    wait_for(
        lambda: copy_of(dataset).status == CopyStatus.PACKING,  # type: ignore[union-attr]
        what="a claim",
    )
    (found,) = packers(site)  # the one that holds it waits for the store
    found.kill()
    psutil.wait_procs([found], timeout=120)
    site.s3.thaw()
    copy = copy_of(dataset)
    assert copy is not None
    copy.updated_at -= timedelta(seconds=40)  # as if it had been silent for so long
    db.session.commit()
    site.wait(job, completed)


def packers(site: Site) -> list[psutil.Process]:
    below = psutil.Process(site.recorder_process.pid).children()
    return [p for p in below if runs(p, "webapp.packer")]
