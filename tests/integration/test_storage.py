"""Jobs whose hosts share no outputs folder: what they make travels through a real S3 server."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import select

from adapters import wire
from adapters.wire import AskKind
from modelyard import launch, storage_s3
from modelyard.ports import free_port
from modelyard.samples import make_samples
from modelyard.settings import load_settings
from modelyard.storage import file_sha256, open_store
from modelyard.stored_outputs import Index, StoredFile, StoredOutputs, object_key
from tests.factories import application, make_job
from tests.faults.proxy import Narrow, Proxy
from tests.faults.site import PLUGIN, ended, in_epoch, kill, trains
from tests.services import RedisService, S3Service, wait_for
from tests.worker_service import Instance, job_is
from webapp.extensions import db
from webapp.models import Artifact, Dataset, Job, JobEvent, Project, User
from webapp.models.columns import utc_now
from webapp.services import auth, datasets, exports, job_actions, tools
from webapp.services.executors import training_job
from workers.stored_models import StoredModels
from workers.upload import Uploader


class Site(Instance):
    """A web host with its recorder, and workers on hosts of their own; all see the data set."""

    def __init__(self, home: Path, *, redis: RedisService, s3: S3Service) -> None:
        home.mkdir()
        super().__init__(home, database_url=f"sqlite:///{home / 'modelyard.db'}", redis=redis)
        self.s3 = s3
        self.bucket = s3.create_bucket()
        self.url = f"s3://{self.bucket}/team"
        self.environ |= s3.environ | {
            "MODELYARD_STORE": self.url,
            "PYTHONPATH": str(PLUGIN),  # which makes leases short
            "FAULTS_LEASE_SECONDS": "15",
        }
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
        wait_for(lambda: " ready." in log.read_text(), what=f"worker {name}")
        return process

    def folder(self, host: str, job: Job) -> Path:
        return self.home.parent / host / "outputs" / wire.job_folder(job.id)

    def stored(self, job: Job) -> StoredOutputs:
        return StoredOutputs(open_store(self.url), job.id)

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


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, s3: S3Service) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    redis = RedisService(folder / "redis")
    redis.start()
    with pytest.MonkeyPatch.context() as environ:
        for name, value in s3.environ.items():
            environ.setenv(name, value)
        there = Site(folder / "web", redis=redis, s3=s3)
        with application(there.environ):
            try:
                yield there
            finally:
                there.stop()
                redis.stop()


@pytest.fixture(scope="module")
def one(site: Site) -> subprocess.Popen[bytes]:
    """The worker on the first host, and a recorder."""
    site.recorder()
    return site.host("one")


@pytest.fixture(scope="module")
def away(site: Site, one: subprocess.Popen[bytes]) -> Job:
    """A job that was trained, undisturbed, while the store was away for a part of it."""
    job = site.job(epochs=6)
    site.wait(job, in_epoch(1))
    site.s3.kill()
    site.wait(job, lambda job: "does not take them" in site.said(job))
    site.wait(job, in_epoch(5))
    assert job.status == "running"
    site.s3.start()
    site.wait(job, ended)
    return job


@pytest.fixture(scope="module")
def two(site: Site, one: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    """Another worker in the place of the first, which is killed."""
    kill(one)
    return site.host("two")


def weights(folder: Path) -> bytes:
    content = (folder / "checkpoints" / "best.safetensors").read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")  # its metadata come in any order
    return content[header:]


def put(outputs: StoredOutputs, scratch: Path, files: dict[str, bytes], *, attempt: int) -> Index:
    """Store files as an attempt's uploads do."""
    prefix = outputs.attempt_prefix(attempt)
    found = {}
    for name, content in files.items():
        scratch.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        key = object_key(prefix, name, sha256=sha256)
        outputs.store.put(scratch, key)
        found[name] = StoredFile(name, len(content), sha256, key, 1e9)
    index = Index(found, attempt)
    outputs.write(index)
    return index


def damage(outputs: StoredOutputs, file: StoredFile) -> None:
    """Flip a bit of an object, as a broken disk or cable would."""
    content = bytearray(outputs.store.read(file.key))
    content[len(content) // 2] ^= 1
    outputs.store.write(file.key, bytes(content))


def record(job: Job, index: Index) -> None:
    for file in index.files.values():
        told = {"name": file.name, "size": file.size, "sha256": file.sha256, "kind": "evaluation"}
        db.session.add(Artifact(job_id=job.id, attempt=index.attempt, created_at=utc_now(), **told))
    db.session.commit()


def test_training_goes_on_while_the_store_is_away_and_nothing_is_lost(
    site: Site, away: Job
) -> None:
    assert (away.status, away.attempt) == ("completed", 1), away.error
    assert "The job's files wait on this worker" in site.said(away)
    index = site.stored(away).newest()
    assert {"checkpoints/best.safetensors", "checkpoints/last.pth", "model_card.md"} <= set(
        index.files
    )
    recorded = select(Artifact).where(Artifact.job_id == away.id)
    for artifact in db.session.scalars(recorded):
        assert index.files[artifact.name].sha256 == artifact.sha256, artifact.name


def test_a_job_goes_on_from_the_store_on_another_host_and_ends_with_the_same_bits(
    site: Site, away: Job, one: subprocess.Popen[bytes], request: pytest.FixtureRequest
) -> None:
    job = site.job(epochs=6)
    site.wait(job, in_epoch(2))
    for process in psutil.Process(one.pid).children(recursive=True):
        if trains(process):
            process.suspend()  # so that it does not end while its checkpoint is on its way
    wait_for(lambda: "checkpoints/last.pth" in site.stored(job).newest().files, what="a checkpoint")
    request.getfixturevalue("two")
    site.wait(job, ended)
    assert (job.status, job.attempt) == ("completed", 2), site.logs()
    assert "Going on from what attempt 1 has in the store" in site.said(job)
    assert "no checkpoint" not in site.said(job)
    assert weights(site.folder("two", job)) == weights(site.folder("one", away))
    assert site.stored(job).attempts() == [2]


def test_another_host_predicts_with_the_model_and_exports_it(
    site: Site, away: Job, two: subprocess.Popen[bytes]
) -> None:
    image = next((site.data / "digits").rglob("*.png")).read_bytes()
    told = tools.predict(away, image=image, threshold=0.5)
    assert len(told["classes"]) == 10
    folder = site.folder("two", away)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["best.safetensors"]
    export = exports.request_export(away, format=wire.ExportFormat.TORCHSCRIPT, actor="test")

    def over() -> bool:
        db.session.rollback()
        db.session.refresh(export)
        return export.status in ("completed", "failed")

    wait_for(over, timeout_seconds=240, what="the export")
    assert export.status == "completed", export.error
    stored = site.stored(away).everything().files[export.artifact]
    assert stored.sha256 == file_sha256(folder / export.artifact)


def test_a_torn_upload_is_never_seen(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(status="running", attempt=2)
    outputs = site.stored(job)
    old = put(outputs, tmp_path / "old", {"checkpoints/last.pth": b"old"}, attempt=1)
    placed = training_job(job).placed(
        output_dir=tmp_path / "outputs", weights_dir=tmp_path, compute_device="cpu"
    )
    placed.checkpoints_dir.mkdir(parents=True)
    (placed.checkpoints_dir / "last.pth").write_bytes(bytes(120_000_000))  # in several parts
    events = tmp_path / "events.jsonl"
    events.write_bytes(b"")
    with Narrow(to_port=site.s3.port, most=60_000_000) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        given = ["checkpoints/last.pth"]
        uploader = Uploader(placed, store=site.url, events=events, events_start=0, given=given)
        wait_for(lambda: proxy.left < 0, what="the middle of the upload")
        assert site.s3.requests("POST", f"jobs/{job.id}/attempts/2") >= 1
        uploader.close(wait_seconds=0)  # its worker is told to end
    assert outputs.newest() == old


class Slow(Proxy):
    """A way to the server of 3 MB/s a connection, on a busy machine, too."""

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        due = 0.0
        while data := await reader.read(65536):
            now = asyncio.get_running_loop().time()
            due = max(due, now - 0.25) + len(data) / 3e6  # what the machine delays is made up for
            await asyncio.sleep(due - now)
            writer.write(data)
            await writer.drain()
        writer.close()


def test_a_slow_way_to_the_store_is_no_silent_store(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A part takes 3 s, one of the library's own 17 s.
    monkeypatch.setattr(storage_s3, "READ_SECONDS", 15)
    monkeypatch.setattr(storage_s3.Session, "put_seconds", 15)
    large = tmp_path / "large"
    large.write_bytes(bytes(54_000_000))
    with Slow(to_port=site.s3.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        stored = open_store(site.url).put(large, "slow")
    assert stored.size == 54_000_000


@pytest.fixture(scope="module")
def web(site: Site) -> Iterator[httpx.Client]:
    """A person who calls the API of a real gunicorn."""
    port = free_port()
    command = launch.web_command(host="127.0.0.1", port=port, processes=1)
    site.start(*command[2:])
    user = User(email="ada@example.org", name="Ada", password_hash="none", is_admin=True)
    db.session.add(user)
    db.session.commit()
    headers = {"Authorization": f"Bearer {auth.open_session(user).access_token}"}
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{address}/healthz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    wait_for(answers, what="gunicorn")
    with httpx.Client(base_url=f"{address}/api/v1", headers=headers, timeout=60) as client:
        yield client


def test_the_web_host_serves_what_workers_elsewhere_have_stored(
    site: Site, web: httpx.Client, tmp_path: Path
) -> None:
    job = make_job(status="completed", attempt=1)
    outputs = site.stored(job)
    big = bytes(range(256)) * 80_000  # 20 MB: it passes through
    files = {
        "checkpoints/last.pth": big,
        "evaluation/evaluation.json": b'{"small": true}',
        "evaluation/wrong/1.jpg": b"a picture",
    }
    index = put(outputs, tmp_path / "file", files, attempt=1)
    record(job, index)
    of_job = f"/training/jobs/{job.id}"
    last, sha256 = f"{of_job}/artifacts/checkpoints/last.pth", hashlib.sha256(big).hexdigest()

    whole = web.get(last)
    assert (whole.status_code, whole.content == big) == (200, True)
    assert (whole.headers["ETag"], whole.headers["Accept-Ranges"]) == (f'"{sha256}"', "bytes")
    assert whole.headers["Repr-Digest"].startswith("sha-256=:")
    part = web.get(last, headers={"Range": "bytes=10000000-10000099"})
    assert (part.status_code, part.content) == (206, big[10_000_000:10_000_100])
    assert part.headers["Content-Range"] == f"bytes 10000000-10000099/{len(big)}"
    assert web.get(last, headers={"Range": "bytes=-5"}).content == big[-5:]
    assert web.get(last, headers={"Range": f"bytes={len(big)}-"}).status_code == 416
    assert web.get(last, headers={"If-None-Match": f'"{sha256}"'}).status_code == 304
    assert web.head(last).headers["Content-Length"] == str(len(big))
    assert not (site.folder("web", job) / "checkpoints").exists()

    assert web.get(f"{of_job}/evaluation/wrong/1.jpg").content == b"a picture"
    reads = site.s3.requests("GET", f"jobs/{job.id}/")
    assert web.get(f"{of_job}/artifacts/evaluation/evaluation.json").json() == {"small": True}
    assert site.s3.requests("GET", f"jobs/{job.id}/") == reads  # both came with the first

    # A later attempt leaves others under the same names.
    again = put(outputs, tmp_path / "file", {"evaluation/wrong/1.jpg": b"another"}, attempt=2)
    job.attempt = 2
    for artifact in db.session.scalars(select(Artifact).where(Artifact.job_id == job.id)):
        db.session.delete(artifact)
    db.session.commit()
    record(job, again)
    assert web.get(f"{of_job}/evaluation/wrong/1.jpg").content == b"another"
    assert web.get(last).status_code == 404


def test_a_damaged_file_is_not_served_and_a_store_that_is_away_is_told(
    site: Site, web: httpx.Client, tmp_path: Path
) -> None:
    job = make_job(status="completed", attempt=1)
    outputs = site.stored(job)
    files = {"checkpoints/last.pth": bytes(20_000_000), "evaluation/wrong/1.jpg": b"a picture"}
    index = put(outputs, tmp_path / "file", files, attempt=1)
    record(job, index)
    for file in index.files.values():
        damage(outputs, file)
    of_job = f"/training/jobs/{job.id}"
    with pytest.raises(httpx.RemoteProtocolError):
        web.get(f"{of_job}/artifacts/checkpoints/last.pth")
    assert web.get(f"{of_job}/evaluation/wrong/1.jpg").status_code == 503
    assert not (site.folder("web", job) / "evaluation" / "wrong" / "1.jpg").exists()
    site.s3.kill()
    try:
        assert web.get(f"{of_job}/artifacts/checkpoints/last.pth").status_code == 503
    finally:
        site.s3.start()


def test_a_tool_process_finds_the_best_model_here_and_its_export_goes_to_the_store(
    site: Site, web: httpx.Client, tmp_path: Path
) -> None:
    job = make_job(status="completed", attempt=1)
    outputs = site.stored(job)
    files = {"checkpoints/best.safetensors": b"best", "checkpoints/last.pth": b"last"}
    put(outputs, tmp_path / "file", files, attempt=1)
    environ = {**site.environ, "MODELYARD_HOME": str(tmp_path / "three")}
    models = StoredModels(load_settings(environ))
    request = {"kind": str(AskKind.EXPORT), "format": "onnx", "job": training_job(job).to_message()}
    models.have(request)
    folder = tmp_path / "three" / "outputs" / wire.job_folder(job.id)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["best.safetensors"]
    reads = site.s3.requests("GET", f"jobs/{job.id}/")
    models.have(request)
    assert site.s3.requests("GET", f"jobs/{job.id}/") == reads

    (folder / "exports").mkdir()
    (folder / "exports" / "model.onnx").write_bytes(b"exported")
    sha256 = hashlib.sha256(b"exported").hexdigest()
    told = {"name": "exports/model.onnx", "size": 8, "sha256": sha256, "kind": "export"}
    models.keep(request, {"artifact": told})
    db.session.add(Artifact(job_id=job.id, attempt=1, created_at=utc_now(), **told))
    db.session.commit()
    address = f"/training/jobs/{job.id}/artifacts/exports/model.onnx"
    assert web.get(address).content == b"exported"
