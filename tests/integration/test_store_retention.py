"""What jobs have in the store goes by the same rules as their files: on a folder and on S3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from flask import current_app

from modelyard.storage import StorageError, Store, open_store
from modelyard.stored_outputs import Index, StoredFile, StoredOutputs, object_key
from tests.factories import application, environment, make_job
from tests.services import S3Service
from webapp.extensions import db
from webapp.models import DeletedJob, Job, JobStatus
from webapp.models.columns import utc_now
from webapp.services import deletion, jobs, last_checkpoints, retention
from webapp.services.retention import Reason, Report

LAST, BEST = "checkpoints/last.pth", "checkpoints/best.safetensors"


@pytest.fixture(params=["folder", "s3"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    """The store of an application on SQLite."""
    if request.param == "s3":
        service: S3Service = request.getfixturevalue("s3")
        for name, value in service.environ.items():
            monkeypatch.setenv(name, value)
        url = f"s3://{service.create_bucket()}/team"
    else:
        url = f"file://{tmp_path / 'store'}"
    database = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with application(environment(tmp_path, database_url=database, MODELYARD_STORE=url)) as app:
        # Jobs' files travel through the store where a broker does; these tests need none.
        app.config["MODELYARD"] = replace(app.config["MODELYARD"], execution_mode="celery")
        yield open_store(url)


@pytest.fixture
def nothing_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects cannot be made older, so the day that they are spared has passed at once."""
    monkeypatch.setattr(retention, "IDLE_SECONDS", -3600.0)


def ended(store: Store, tmp_path: Path, *, days_ago: float = 0) -> Job:
    """Return a failed job with two checkpoints in the store, and an object that none names."""
    job = make_job(status=JobStatus.FAILED, attempt=1)
    job.completed_at = utc_now() - timedelta(days=days_ago)
    db.session.commit()
    outputs = StoredOutputs(store, job.id)
    files = {}
    for name, letter in ((LAST, "a"), (BEST, "b")):
        key = object_key(outputs.attempt_prefix(1), name, sha256=letter * 64)
        store.write(key, b"x" * 1000)
        files[name] = StoredFile(name, 1000, letter * 64, key, 1.0)
    outputs.write(Index(files, 1))
    return job


def keys(store: Store, prefix: str) -> list[str]:
    return [entry.key for entry in store.list(prefix)]


def named(report: Report) -> list[tuple[Reason, str, int]]:
    return [(item.reason, item.name, item.size) for item in report.items]


def test_a_deleted_job_has_nothing_in_the_store(store: Store, tmp_path: Path) -> None:
    job, other = ended(store, tmp_path), ended(store, tmp_path)
    job_id, other_id = job.id, other.id
    jobs.remove(job)
    assert deletion.finish()
    assert keys(store, f"jobs/{job_id}/") == []
    assert len(keys(store, f"jobs/{other_id}/")) == 3
    # A worker that was lost stores once more what nobody wants any more.
    store.write(f"jobs/{job_id}/attempts/1/index.json", b"{}")
    retention.collect(by_person=False)
    assert keys(store, f"jobs/{job_id}/") == []


def test_a_mode_that_uses_no_store_deletes_nothing_in_it(store: Store, tmp_path: Path) -> None:
    job = ended(store, tmp_path)
    before = keys(store, "jobs/")
    found = current_app.config["MODELYARD"]
    current_app.config["MODELYARD"] = replace(found, execution_mode="subprocess")
    jobs.remove(job)
    assert deletion.finish()
    retention.collect(by_person=True)
    assert keys(store, "jobs/") == before  # they are of whoever shares the setting


def test_last_leaves_the_store_after_its_days_and_best_stays(store: Store, tmp_path: Path) -> None:
    job = ended(store, tmp_path, days_ago=31)
    last_checkpoints.remove(job.id)
    files = StoredOutputs(store, job.id).newest().files
    assert list(files) == [BEST]
    assert keys(store, f"jobs/{job.id}/attempts/1/objects/") == [files[BEST].key]


@pytest.mark.usefixtures("nothing_is_new")
def test_what_no_index_and_no_job_names_goes_when_a_person_says_so(
    store: Store, tmp_path: Path
) -> None:
    job, unknown, going_on = (ended(store, tmp_path) for _ in range(3))
    going_on.status = JobStatus.RUNNING
    db.session.delete(unknown)
    db.session.commit()
    for job_id in (job.id, going_on.id):
        store.write(f"jobs/{job_id}/attempts/1/objects/torn-last.pth", b"x" * 70)
    store.write("jobs/999/attempts/1/index.json", b"of another instance")
    store.write(f"datasets/{'f' * 64}/manifest.json", b"unknown")
    assert retention.collect(by_person=False).items == []
    expected = [
        (Reason.STORE_UNKNOWN, "jobs/2/", 2000 + index_size(store, 2)),
        (Reason.STORE_UNKNOWN, f"datasets/{'f' * 64}/", 7),
        (Reason.STORE_LOOSE, f"jobs/{job.id}/", 70),
    ]
    assert named(retention.look()) == expected
    retention.collect(by_person=True)
    assert retention.look().items == []
    assert len(keys(store, f"jobs/{job.id}/")) == 3
    assert len(keys(store, f"jobs/{going_on.id}/")) == 4
    assert len(keys(store, "jobs/999/")) == 1


@pytest.mark.usefixtures("nothing_is_new")
def test_objects_beside_an_index_that_is_damaged_are_left(store: Store, tmp_path: Path) -> None:
    job = ended(store, tmp_path)
    store.write(f"jobs/{job.id}/attempts/1/index.json", b"torn")
    assert retention.look().items == []


def test_a_store_that_is_away_keeps_the_deletion_waiting(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ended(store, tmp_path)
    job_id = job.id

    def away(prefix: str) -> None:
        raise StorageError(f"{prefix} could not be deleted: the store does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "delete", lambda store, prefix: away(prefix))
        jobs.remove(job)
        assert not deletion.finish()
    assert deletion.marked_jobs() == [job_id]
    assert deletion.finish()
    assert keys(store, f"jobs/{job_id}/") == []
    assert db.session.get(DeletedJob, job_id) is not None


def index_size(store: Store, job_id: int) -> int:
    return len(store.read(f"jobs/{job_id}/attempts/1/index.json"))
