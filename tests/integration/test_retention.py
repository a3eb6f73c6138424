"""What deleted jobs leave goes, what is too old goes, and nothing else: on real databases."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text

from adapters import wire
from adapters.wire import JOURNAL_NAME, EventType
from modelyard.launch import manage_command, recorder_command
from tests.factories import STARTED, application, environment, make_events, make_job, metrics
from tests.services import wait_for
from webapp.extensions import db
from webapp.models import (
    Artifact,
    Attempt,
    DeletedJob,
    Job,
    JobEvent,
    JobStatus,
    LoadSample,
    Metric,
    Project,
    StatusChange,
)
from webapp.models.columns import utc_now
from webapp.services import (
    broker,
    deletion,
    disk_use,
    job_actions,
    jobs,
    last_checkpoints,
    retention,
    retention_report,
    schema,
)
from webapp.services.errors import Conflict, Refused
from webapp.services.outputs import output_dir
from webapp.services.recorder import record
from webapp.services.retention import Reason, Report

OF_JOBS: tuple[Any, ...] = (Attempt, StatusChange, Metric, LoadSample, Artifact, JobEvent)


@pytest.fixture
def environ(tmp_path: Path, database_url: str) -> dict[str, str]:
    return environment(tmp_path / "home", database_url=database_url)


@pytest.fixture(autouse=True)
def _application(environ: dict[str, str]) -> Iterator[None]:
    with application(environ):
        yield


def trained(*, status: JobStatus = JobStatus.COMPLETED, days_ago: float = 0, **fields: Any) -> Job:
    """Return a job with rows of every kind and the files that an adapter leaves."""
    job = make_job(**fields)
    session = db.session()
    now = utc_now()
    session.add(Attempt(job_id=job.id, number=1, queued_at=now))
    of_job = {"job_id": job.id, "attempt": 1}
    session.add(Metric(**of_job, name="top1", epoch=1, value=0.5, time=now))
    session.add(LoadSample(**of_job, time=now, cpu_percent=1.0, memory_bytes=1))
    for name in ("checkpoints/last.pth", "checkpoints/best.safetensors"):
        content = {"kind": "checkpoint", "size": 1000, "sha256": "0" * 64, "created_at": now}
        session.add(Artifact(**of_job, name=name, **content))
    job.attempt = 1
    job.status = status
    job.completed_at = now - timedelta(days=days_ago)
    session.commit()
    folder = output_dir(job.id)
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("checkpoints/last.pth", "checkpoints/best.safetensors"):
        (folder / name).write_bytes(b"x" * 1000)
    (folder / JOURNAL_NAME).write_text('{"event": 1}\n' * 1000)
    return job


def rows_of(job_id: int) -> dict[str, int]:
    """Return how many rows a job has in each table that has any."""
    counts = {
        table.__tablename__: db.session.scalar(
            select(func.count()).select_from(table).where(table.job_id == job_id)
        )
        for table in OF_JOBS
    }
    counts["jobs"] = db.session.scalar(select(func.count()).where(Job.id == job_id))
    return {name: count for name, count in counts.items() if count}


def two_days_old(*paths: Path) -> None:
    for path in paths:
        for each in (path, *path.rglob("*")):
            os.utime(each, (time.time() - 2 * 86400,) * 2)


def named(report: Report, reason: Reason) -> list[str]:
    return [item.name for item in report.items if item.reason == reason]


def test_a_deleted_job_leaves_no_row_and_no_file() -> None:
    job, other = trained(), trained()
    job_id, before = job.id, rows_of(other.id)
    jobs.remove(job)
    assert deletion.pending()
    assert deletion.finish()
    assert rows_of(job_id) == {}
    assert not output_dir(job_id).exists()
    assert rows_of(other.id) == before
    assert output_dir(other.id).exists()
    assert not deletion.pending()


def test_a_deleted_project_waits_for_what_was_started_in_it_meanwhile() -> None:
    job = trained(status=JobStatus.RUNNING)
    db.session.get_one(Project, job.project_id).deleted_at = utc_now()
    db.session.commit()
    assert not deletion.finish()  # and the tidier does not come back at once, again and again
    job.status = JobStatus.COMPLETED
    db.session.commit()
    assert deletion.finish()
    assert not deletion.pending()


def test_a_deletion_goes_on_where_the_process_before_it_died(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = trained()
    job_id = job.id
    jobs.remove(job)

    def die(folder: Path, **_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            deletion.finish()
    db.session.rollback()
    assert "job_events" not in rows_of(job_id)
    assert output_dir(job_id).exists()
    assert deletion.finish()
    assert rows_of(job_id) == {}
    assert not output_dir(job_id).exists()


def test_a_deletion_takes_the_rows_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion, "BATCH_ROWS", 10)
    job = trained()
    row = {"job_id": job.id, "project_id": job.project_id, "attempt": 1, "type": "log",
           "time": utc_now(), "data": {}}  # fmt: skip
    db.session.execute(insert(JobEvent), [row] * 95)
    db.session.commit()
    job_id = job.id
    jobs.remove(job)
    assert deletion.finish()
    assert rows_of(job_id) == {}


def test_what_a_deleted_job_says_and_writes_late_is_not_kept() -> None:
    job = trained(status=JobStatus.CANCELLED)
    job_id = job.id
    events = make_events(job, (EventType.STARTED, STARTED), metrics(1, top1=0.5))
    jobs.remove(job)
    assert record(events).refused == {(job_id, 1)}
    assert deletion.finish()
    assert record(events).refused == {(job_id, 1)}
    # The worker that was lost writes its checkpoint all the same.
    (output_dir(job_id) / "checkpoints").mkdir(parents=True)
    (output_dir(job_id) / "checkpoints" / "last.pth").write_bytes(b"late")
    report = retention.collect(by_person=False)
    assert named(report, Reason.DELETED) == [f"jobs/{job_id}"]
    assert not output_dir(job_id).exists()


def test_a_deleted_job_is_remembered_for_as_long_as_its_worker_could_be_heard() -> None:
    job = trained()
    job_id = job.id
    jobs.remove(job)
    deletion.finish()
    assert deletion.remembered() == [job_id]
    remembered = db.session.get_one(DeletedJob, job_id)
    remembered.deleted_at = utc_now() - deletion.REMEMBERED - timedelta(hours=1)
    db.session.commit()
    deletion.finish()
    assert deletion.remembered() == []


def test_a_job_is_either_deleted_or_resumed() -> None:
    job = trained(status=JobStatus.FAILED)
    job_actions.resume(job, actor="test")
    with pytest.raises(Conflict):
        jobs.remove(job)
    other = trained(status=JobStatus.FAILED)
    jobs.remove(other)
    with pytest.raises(Refused):
        job_actions.resume(other, actor="test")


def test_last_goes_after_its_days_and_best_stays() -> None:
    old = trained(status=JobStatus.FAILED, days_ago=31)
    new = trained(status=JobStatus.FAILED, days_ago=29)
    events = (output_dir(old.id) / JOURNAL_NAME).read_bytes()
    report = retention.look()
    assert named(report, Reason.LAST) == [f"jobs/{old.id}/checkpoints/last"]
    assert report.size == 1000
    assert (output_dir(old.id) / "checkpoints/last.pth").exists()

    retention.collect(by_person=False)
    left = sorted(
        p.relative_to(output_dir(old.id)).as_posix() for p in output_dir(old.id).rglob("*.*")
    )
    assert left == ["checkpoints/best.safetensors", f"{JOURNAL_NAME}.gz"]
    assert gzip.decompress((output_dir(old.id) / f"{JOURNAL_NAME}.gz").read_bytes()) == events
    names = db.session.scalars(select(Artifact.name).where(Artifact.job_id == old.id)).all()
    assert names == ["checkpoints/best.safetensors"]
    assert (output_dir(new.id) / "checkpoints/last.pth").exists()
    assert retention.look().items == []


def test_a_job_whose_last_is_gone_says_so_when_it_is_resumed() -> None:
    job = trained(status=JobStatus.FAILED, days_ago=31)
    retention.collect(by_person=False)
    db.session.refresh(job)
    with pytest.raises(Refused, match=r"last checkpoint of job 1 is gone.*30 days.*Clone"):
        job_actions.resume(job, actor="test")
    db.session.refresh(job)
    assert job.status == JobStatus.FAILED


def test_the_last_of_a_job_that_was_resumed_in_time_stays() -> None:
    job = trained(status=JobStatus.FAILED, days_ago=31)
    assert last_checkpoints.due() == [job.id]
    job_actions.resume(job, actor="test")
    last_checkpoints.remove(job.id)
    assert (output_dir(job.id) / "checkpoints/last.pth").exists()
    assert last_checkpoints.due() == []


def test_removing_last_goes_on_where_the_process_before_it_died(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = trained(status=JobStatus.COMPLETED, days_ago=31)

    def die(journal: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(last_checkpoints, "_compress", die)
        with pytest.raises(KeyboardInterrupt):
            last_checkpoints.remove(job.id)
    db.session.rollback()
    assert last_checkpoints.due() == [job.id]
    last_checkpoints.remove(job.id)
    assert last_checkpoints.due() == []
    assert (output_dir(job.id) / f"{JOURNAL_NAME}.gz").exists()


def test_temporary_files_of_killed_writers_go_when_they_are_old() -> None:
    job, going_on = trained(), trained(status=JobStatus.RUNNING)
    for each in (job, going_on):
        (output_dir(each.id) / "checkpoints/.last.pth.17.writing").write_bytes(b"x" * 70)
        (output_dir(each.id) / "checkpoints/.best-ab12").mkdir()
        two_days_old(output_dir(each.id))
    (output_dir(job.id) / "checkpoints/.best.pt.18.writing").write_bytes(b"being written")
    report = retention.look()
    assert named(report, Reason.TEMPORARY) == [
        f"jobs/{job.id}/checkpoints/.best-ab12",
        f"jobs/{job.id}/checkpoints/.last.pth.17.writing",
    ]
    retention.collect(by_person=False)
    left = sorted(path.name for path in (output_dir(job.id) / "checkpoints").iterdir())
    assert left == [".best.pt.18.writing", "best.safetensors", "last.pth"]
    assert (output_dir(going_on.id) / "checkpoints/.last.pth.17.writing").exists()


def test_outputs_that_the_database_does_not_know_go_only_when_a_person_says_so() -> None:
    job = trained()
    unknown = output_dir(job.id)
    db.session.delete(job)
    db.session.commit()
    assert retention.look().items == []  # written within the last day
    two_days_old(unknown)
    assert retention.collect(by_person=False).items == []
    assert named(retention.look(), Reason.UNKNOWN_JOB) == ["jobs/1"]
    assert unknown.exists()
    retention.collect(by_person=True)
    assert not unknown.exists()


def test_what_is_not_of_this_instance_is_named_and_left() -> None:
    trained()
    of_another = output_dir(999)  # a number that this database never gave
    notes = output_dir(1).parent / "notes"
    for folder in (of_another, notes, output_dir(1).parent.parent / "thesis"):
        folder.mkdir()
        two_days_old(folder)
    report = retention.collect(by_person=True)
    assert report.items == []
    assert [Path(path).name for path in report.foreign] == ["999", "notes", "thesis"]
    assert of_another.exists()


def test_what_cannot_be_removed_is_told_and_the_rest_goes() -> None:
    stuck, other = trained(), trained()
    stuck_id, other_id = stuck.id, other.id
    jobs.remove(stuck)
    jobs.remove(other)
    folder = output_dir(stuck_id)
    shutil.rmtree(folder)
    folder.symlink_to(folder.parent)  # which shutil.rmtree refuses
    report = retention.collect(by_person=True)
    assert [item.name for item, _ in report.failed] == [f"jobs/{stuck_id}"]
    assert rows_of(other_id) == {}
    assert deletion.marked_jobs() == [stuck_id]
    assert not deletion.finish()
    folder.unlink()
    assert deletion.finish()


def test_the_sizes_of_jobs_and_folders_are_measured() -> None:
    job = trained()
    assert disk_use.due()
    disk_use.measure()
    db.session.refresh(job)
    assert job.output_bytes == 2000 + 13 * 1000
    sizes = {use.name: use.size for use in disk_use.uses()}
    assert sizes["outputs"] == job.output_bytes
    assert sizes["uploads"] == 0
    assert sizes["database"] > 0
    assert not disk_use.due()


def released() -> None:
    """Say that the tables are those of the newest revision, as they are."""
    db.session.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)"))
    values = {"revision": schema.newest_revision()}
    db.session.execute(text("INSERT INTO alembic_version VALUES (:revision)"), values)
    db.session.commit()


def run_gc(environ: dict[str, str], *flags: str) -> subprocess.CompletedProcess[str]:
    whole = {**os.environ, **environ}
    return subprocess.run(
        manage_command("gc", *flags), env=whole, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_command_lists_with_dry_run_and_removes_without(environ: dict[str, str]) -> None:
    gone, old = trained(), trained(days_ago=31)
    gone_id, old_id = gone.id, old.id
    jobs.remove(gone)
    released()
    listed = run_gc(environ, "--dry-run")
    assert listed.returncode == 0, listed.stderr
    assert "deleted jobs" in listed.stdout
    assert "16 kB would be freed" in listed.stdout
    assert output_dir(gone_id).exists()

    removed = run_gc(environ, "--json")
    assert removed.returncode == 0, removed.stderr
    told = json.loads(removed.stdout)
    assert told["bytes"] == 16000
    assert {item["reason"] for item in told["items"]} == {"deleted", "last"}
    assert not output_dir(gone_id).exists()
    assert not (output_dir(old_id) / "checkpoints/last.pth").exists()
    db.session.rollback()
    assert rows_of(gone_id) == {}
    assert list(retention_report.lines(retention.look(), dry_run=True)) == ["Nothing is to go"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_command_removes_nothing_by_a_database_of_another_version(
    environ: dict[str, str],
) -> None:
    unknown = output_dir(1)
    unknown.mkdir(parents=True)
    two_days_old(unknown)
    refused = run_gc(environ)
    assert refused.returncode == 1
    assert "run: modelyard release" in refused.stderr
    assert unknown.exists()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_recorder_finishes_deletions_soon(environ: dict[str, str], tmp_path: Path) -> None:
    job, kept = trained(), trained()
    job_id = job.id
    log = (tmp_path / "recorder.log").open("wb")
    recorder = subprocess.Popen(recorder_command(), env={**os.environ, **environ}, stderr=log)
    try:
        jobs.remove(job)
        wait_for(
            lambda: not output_dir(job_id).exists() and not deletion.pending(),
            what="the end of the deletion",
        )
    finally:
        recorder.terminate()
        recorder.wait(120)
    assert rows_of(job_id) == {}
    assert output_dir(kept.id).exists()


def test_a_deleted_job_leaves_only_a_fence_in_redis(redis_url: str, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'other.db'}"
    with application(environment(tmp_path, database_url=database, redis_url=redis_url)):
        job = make_job(status=JobStatus.CANCELLED, attempt=3)
        client = broker.redis_client()
        for key in (wire.cancel_key(1), wire.preempt_key(1), wire.replay_key(1)):
            client.set(key, "3:now")
        jobs.remove(job)
        assert client.keys("modelyard:*") == [wire.fence_key(1)]
        assert client.get(wire.fence_key(1)) == "4"
        assert 0 < client.ttl(wire.fence_key(1)) <= wire.FENCE_TTL_SECONDS
