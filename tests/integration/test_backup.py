"""Backups of either database, brought back into either, wholly or not at all."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import shutil
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import IO, Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy import func, select

from adapters.wire import EventType, job_folder
from modelyard.settings import load_settings
from modelyard.storage import Store, open_store
from modelyard.stored_outputs import Index, StoredFile, StoredOutputs, object_key
from tests.api import Person
from tests.factories import STARTED, application, environment, make_events, make_job, metrics
from tests.integration.test_migrations import fill, held, transaction
from tests.revision_data import EMAIL, PASSWORD, REVISIONS, rows_at
from tests.services import python, wait_for
from tests.worker_service import ROOT
from webapp import create_app
from webapp.extensions import db
from webapp.models import Attempt, Job, JobEvent, Metric
from webapp.services import backup, backup_tables, job_actions, restore, schema
from webapp.services.backup_archive import BackupError, verify
from webapp.services.recorder import record
from webapp.services.restore_database import EVENT_IDS_LEFT_OUT, JOB_IDS_LEFT_OUT
from webapp.services.restore_report import restore_lines

HEAD = REVISIONS[-1]
Fresh = Callable[[str, str], tuple[Path, str]]


@contextmanager
def site(home: Path, url: str) -> Iterator[Flask]:
    """Give an application with nothing made yet."""
    app = create_app(load_settings(environment(home, database_url=url)))
    (home / "secret.key").unlink()  # which the application made; a fresh home has none
    with app.app_context():
        yield app
        db.session.remove()
        db.engine.dispose()


@pytest.fixture
def fresh(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Fresh]:
    """Give a fresh home and a fresh database of a kind."""
    made: list[str] = []

    def make(name: str, kind: str) -> tuple[Path, str]:
        home = tmp_path / name
        if kind == "sqlite":
            return home, f"sqlite:///{home / 'modelyard.db'}"
        made.append(request.getfixturevalue("_postgres").create_database())
        return home, made[-1]

    yield make
    for url in made:
        request.getfixturevalue("_postgres").drop_database(url)


@pytest.fixture
def taken(fresh: Fresh) -> Path:
    """A backup of a database with data in every column."""
    home, url = fresh("first", "sqlite")
    return take(home, url, revision=HEAD)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def take(home: Path, url: str, *, revision: str) -> Path:
    file = home.parent / f"{home.name}.tar.gz"
    home.mkdir()
    with site(home, url):
        (home / "secret.key").write_text("k" * 64)
        (home / "admin.password").write_text("swordfish")
        with transaction() as connection:
            schema.migrate_within(connection, revision=revision)
            fill(connection, revision)
        backup.backup_to(file)
    return file


@pytest.mark.parametrize("command", [("backup", "-"), ("gc", "--dry-run")])
def test_a_folder_without_an_instance_is_told_and_left_as_it_is(
    tmp_path: Path, command: tuple[str, str]
) -> None:
    home = tmp_path / "elsewhere"
    home.mkdir()
    asked = modelyard(*command, "--home", str(home))
    assert asked.returncode == 1
    assert "/elsewhere/modelyard.db" in asked.stderr
    assert "MODELYARD_HOME or DATABASE_URL" in asked.stderr
    assert list(home.iterdir()) == []


def test_standard_output_that_takes_nothing_is_told_in_a_line(tmp_path: Path) -> None:
    home = tmp_path / "home"
    take(home, f"sqlite:///{home / 'modelyard.db'}", revision=HEAD)
    with Path("/dev/full").open("wb") as full:
        asked = modelyard("backup", "-", "--home", str(home), stdout=full)
    assert asked.returncode == 1
    assert asked.stderr == (
        "modelyard: The backup is not whole: standard output does not take it: "
        "No space left on device\n"
    )


def modelyard(*words: str, stdout: IO[bytes] | int = subprocess.PIPE) -> CompletedProcess[str]:
    return subprocess.run(
        python("-m", "modelyard", *words),
        cwd=ROOT,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("source", "target", "revision"),
    [
        ("sqlite", "sqlite", HEAD),
        ("sqlite", "postgresql", HEAD),
        ("postgresql", "postgresql", HEAD),
        ("postgresql", "sqlite", HEAD),
        *[("sqlite", "postgresql", revision) for revision in REVISIONS[:-1]],
        *[("postgresql", "sqlite", revision) for revision in REVISIONS[:-1]],
    ],
)
def test_every_value_comes_back_in_either_database(
    fresh: Fresh, source: str, target: str, revision: str
) -> None:
    file = take(*fresh("first", source), revision=revision)
    assert file.stat().st_mode & 0o777 == 0o600
    home, url = fresh("second", target)
    with site(home, url) as app:
        report = restore.restore(file)
        rows = held()
        for table, told in rows_at(revision).items():
            if table == "auth_sessions":  # people log in again
                assert rows[table] == []
                continue
            for row, was in zip(rows[table], told, strict=True):
                assert {name: row[name] for name in was} == was
        schema.check()
        with db.engine.connect() as connection:
            last = backup_tables.last_ids(connection)
        assert last["jobs"] == 70 + JOB_IDS_LEFT_OUT
        assert last["job_events"] == 700 + EVENT_IDS_LEFT_OUT
        assert make_job().id == 71 + JOB_IDS_LEFT_OUT
        assert report.going_on == [3]
        assert report.lost_datasets == ["shades"]
        assert (home / "secret.key").read_text() == "k" * 64
        assert (home / "admin.password").stat().st_mode & 0o777 == 0o600
        login = Person(app).post("/auth/login", {"email": EMAIL, "password": PASSWORD})
        assert login.status_code == 200


def test_no_bit_of_a_backup_may_change(taken: Path, fresh: Fresh, tmp_path: Path) -> None:
    content = taken.read_bytes()
    home, url = fresh("second", "sqlite")
    broken = tmp_path / "broken.tar.gz"
    with site(home, url):
        # Of the first ten bytes, gzip's own header, some mean nothing.
        for place in range(10, len(content), len(content) // 60):
            flipped = bytes([content[place] ^ 1 << place % 8])
            broken.write_bytes(content[:place] + flipped + content[place + 1 :])
            with pytest.raises(BackupError):
                restore.restore(broken)
        for size in (0, 5, len(content) // 2, len(content) - 9):
            broken.write_bytes(content[:size])
            with pytest.raises(BackupError):
                restore.restore(broken)
        assert not (home / "modelyard.db").exists()
        assert not (home / "secret.key").exists()
    assert verify(taken).revision == HEAD


def test_a_backup_of_a_newer_version_is_refused(
    taken: Path, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "revisions", lambda: ("0001",))
    with (
        site(*fresh("second", "sqlite")),
        pytest.raises(BackupError, match=f"revision {HEAD}.*upgrade Modelyard first"),
    ):
        restore.restore(taken)


def test_a_database_with_data_is_refused_or_set_aside(
    taken: Path, fresh: Fresh, database_kind: str
) -> None:
    home, url = fresh("second", database_kind)
    with site(home, url):
        schema.migrate()
        make_job(name="of before")
        db.session.remove()
        with pytest.raises(BackupError, match=r"holds 0 users, 1 project, 1 job.*--replace"):
            restore.restore(taken)
        report = restore.restore(taken, replace=True)
        assert db.session.scalar(select(func.count()).select_from(Job)) == 5
        db.session.remove()
        assert report.set_aside is not None
        restore.restore(report.set_aside, replace=True)
        assert list(db.session.scalars(select(Job.name))) == ["of before"]
        assert len(list((home / "backups").iterdir())) == 2


def test_a_database_that_is_in_use_is_refused(
    taken: Path, fresh: Fresh, database_kind: str
) -> None:
    home, url = fresh("second", database_kind)
    with site(home, url), ExitStack() as stack:
        schema.migrate()
        db.engine.dispose()
        if database_kind == "sqlite":
            other: Any = stack.enter_context(closing(sqlite3.connect(home / "modelyard.db")))
            other.execute("SELECT * FROM jobs").fetchall()
        else:
            address = url.replace("+psycopg", "")
            other = stack.enter_context(closing(psycopg.connect(address)))
        with pytest.raises(BackupError, match="stop web and recorder first"):
            restore.restore(taken)
        other.close()
        restore.restore(taken)


def test_a_home_that_is_served_is_refused(taken: Path, fresh: Fresh) -> None:
    home, url = fresh("second", "sqlite")
    with site(home, url), (home / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BackupError, match=f"'modelyard up' runs on {home}; stop it first"):
            restore.restore(taken)


def test_what_only_sqlite_takes_is_refused_or_replaced(fresh: Fresh, tmp_path: Path) -> None:
    home, url = fresh("first", "sqlite")
    fits, too_long = tmp_path / "fits.tar.gz", tmp_path / "too-long.tar.gz"
    with site(home, url):
        schema.migrate()
        job = make_job(notes="a zero: \0, kept by SQLite in a text")
        backup.backup_to(fits)
        job.name = "n" * 201  # SQLite looks at no length
        db.session.commit()
        backup.backup_to(too_long)
    with site(*fresh("second", "postgresql")):
        with pytest.raises(BackupError, match=r"rows of 'jobs', nothing is changed.*too long"):
            restore.restore(too_long)
        assert held() == {}
        db.engine.dispose()
        restore.restore(fits)
        assert db.session.scalar(select(Job.notes)) == "a zero: \ufffd, kept by SQLite in a text"


def test_half_a_restore_leaves_nothing(
    taken: Path, fresh: Fresh, database_kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, url = fresh("second", database_kind)
    insert_rows = backup_tables.insert_rows

    def fails(connection: Any, table: Any, names: Any, rows: Any) -> int:
        if table.name == "metrics":
            raise OSError("the disk is full")
        return insert_rows(connection, table, names, rows)

    with site(home, url):
        with monkeypatch.context() as patch:
            patch.setattr(backup_tables, "insert_rows", fails)
            with pytest.raises(OSError, match="full"):
                restore.restore(taken)
        left = {path.name for path in home.iterdir()} - {"up.lock", "runner.lock"}
        assert left == set()
        if database_kind == "postgresql":
            assert held() == {}
            db.engine.dispose()
        restore.restore(taken)
        assert len(held()["jobs"]) == 5


def test_a_restore_that_is_killed_changes_nothing(taken: Path, fresh: Fresh) -> None:
    home, url = fresh("second", "sqlite")
    code = (
        "import os, signal, sys\n"
        "from webapp import manage\n"
        "from webapp.services import backup_tables\n"
        "insert_rows = backup_tables.insert_rows\n"
        "def dies(connection, table, names, rows):\n"
        "    if table.name == 'metrics': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return insert_rows(connection, table, names, rows)\n"
        "backup_tables.insert_rows = dies\n"
        f"sys.argv = ['manage', 'restore', {str(taken)!r}]\n"
        "manage.main()\n"
    )
    environ = environment(home, database_url=url, PATH="/usr/bin")
    killed = subprocess.run(python("-c", code), env=environ, cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (home / "modelyard.db").exists()
    with site(home, url):
        restore.restore(taken)
        assert len(held()["jobs"]) == 5
        assert not list(home.glob(".modelyard.db.*"))


def test_a_failed_backup_leaves_nothing(
    fresh: Fresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, url = fresh("first", "sqlite")
    folder = tmp_path / "backups"
    folder.mkdir()
    with site(home, url):
        with pytest.raises(BackupError, match="no database of Modelyard"):
            backup.backup_to(folder / "none.tar.gz")
        with pytest.raises(BackupError, match="is a folder; name a file in it"):
            backup.backup_to(folder)
        schema.migrate()

        def fails(*arguments: Any) -> Iterator[Any]:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(backup_tables, "rows_of", fails)
        with pytest.raises(BackupError, match=r"cannot be written.*No space left"):
            backup.backup_to(folder / "full.tar.gz")
        assert list(folder.iterdir()) == []


def test_a_backup_is_of_one_moment_while_events_are_recorded(
    fresh: Fresh, database_kind: str, tmp_path: Path
) -> None:
    """Each event of an epoch adds a metric and raises last_seq: in no backup do they differ."""
    home, url = fresh("first", database_kind)
    environ = environment(home, database_url=url)
    with application(environ) as app, recording(app, jobs=3) as recorded:
        with transaction() as connection:
            connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32))")
            connection.exec_driver_sql(f"INSERT INTO alembic_version VALUES ('{HEAD}')")
        files = [tmp_path / f"{number}.tar.gz" for number in range(4)]
        for file in files:
            backup.backup_to(file)
            enough = recorded() + 20
            wait_for(partial(has_recorded, recorded, enough), what="more epochs")
    seen = []
    for number, file in enumerate(files):
        with site(*fresh(f"at{number}", "sqlite")):
            restore.restore(file)
            for attempt in db.session.scalars(select(Attempt)):
                rows = select(func.count()).where(Metric.job_id == attempt.job_id)
                told = select(func.count()).where(
                    JobEvent.job_id == attempt.job_id, JobEvent.type == "metrics"
                )
                assert attempt.last_seq == 1 + (db.session.scalar(rows) or 0)
                assert db.session.scalar(rows) == db.session.scalar(told)
            seen.append(db.session.scalar(select(func.sum(Attempt.last_seq))))
    assert seen == sorted(set(seen)), "nothing was recorded between two backups"


def has_recorded(recorded: Callable[[], int], epochs: int) -> bool:
    return recorded() > epochs


@contextmanager
def recording(app: Flask, *, jobs: int) -> Iterator[Callable[[], int]]:
    """Record an epoch of each job after another in a thread; give how many were recorded."""
    made = []
    for _ in range(jobs):
        job = make_job(epochs=10**6)
        job_actions.start(job, actor="test")
        record(make_events(job, (EventType.STARTED, STARTED)))
        made.append(job)
    epochs, stop = [0], threading.Event()
    attempts = [(job.id, job.attempt) for job in made]
    db.session.remove()

    def go_on() -> None:
        with app.app_context():
            while not stop.is_set():
                epochs[0] += 1
                for job_id, attempt in attempts:
                    job = Job(id=job_id, attempt=attempt)
                    record(make_events(job, metrics(epochs[0], top1=0.5), first=epochs[0] + 1))
                db.session.remove()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield lambda: epochs[0]
    finally:
        stop.set()
        thread.join()


def test_files_of_jobs_are_compared_and_come_back_where_they_were_asked_for(
    fresh: Fresh, tmp_path: Path
) -> None:
    home, url = fresh("first", "sqlite")
    file = tmp_path / "with.tar.gz"
    with site(home, url):
        schema.migrate()
        with transaction() as connection:
            fill(connection, HEAD)
        best = home / "outputs" / job_folder(1) / "checkpoints" / "best.pth"
        other = home / "outputs" / job_folder(3) / "train.log"
        for path in (best, other):
            path.parent.mkdir(parents=True)
            path.write_text(f"{path.name} as it was")
        manifest = backup.backup_to(file, with_outputs=True)
        assert manifest.outputs == 2

    second, url = fresh("second", "sqlite")
    with site(second, url):
        late = second / "outputs" / job_folder(2000)
        late.mkdir(parents=True)
        report = restore.restore(file)
        restored = second / "outputs" / best.relative_to(home / "outputs")
        assert restored.read_text() == "best.pth as it was"
        assert report.outputs.missing == {3: 1}
        assert "1 job lacks files that it had (train.log): 3" in restore_lines(report)
        assert report.unknown_jobs == [2000]
        assert make_job().id == 2001 + JOB_IDS_LEFT_OUT

    third, url = fresh("third", "sqlite")
    shutil.copytree(home / "outputs", third / "outputs")
    with site(third, url):
        (third / "outputs" / job_folder(3) / "train.log").write_text("grown meanwhile, and more")
        report = restore.restore(file)
        assert (report.outputs.missing, report.outputs.changed) == ({}, {3: 1})


def test_with_a_store_the_index_is_of_what_lies_there(tmp_path: Path) -> None:
    home, file = tmp_path / "home", tmp_path / "backup.tar.gz"
    url = f"file://{tmp_path / 'store'}"
    store = open_store(url)
    for job_id, names in ((1, ("best.pth", "last.pth", "gone.pth")), (5000, ("best.pth",))):
        put(store, job_id, names, text="as it was")
    environ = environment(home, database_url=f"sqlite:///{home / 'modelyard.db'}")
    app = create_app(load_settings({**environ, "MODELYARD_STORE": url}))
    # Jobs' files travel through the store where a broker does; this test needs none.
    app.config["MODELYARD"] = replace(app.config["MODELYARD"], execution_mode="celery")
    with app.app_context():
        schema.migrate()
        with transaction() as connection:
            fill(connection, HEAD)
        assert backup.backup_to(file).outputs == 4
        with pytest.raises(BackupError, match="own copies"):
            backup.backup_to(tmp_path / "with.tar.gz", with_outputs=True)
        put(store, 1, ("best.pth",), text="as it was")
        put(store, 1, ("last.pth",), text="trained on", beside=["best.pth"])
        later = Job(id=3, attempt=2)
        said = make_events(later, (EventType.STARTED, STARTED), metrics(9, top1=0.9))
        lines = "".join(f"{event.to_json()}\n" for event in said)
        key = StoredOutputs(store, 3).events_key(2)
        store.write(key, gzip.compress(lines.encode()))
        report = restore.restore(file, replace=True)
        assert report.caught_up == {3: [2]}
        assert db.session.scalar(select(Metric.epoch).where(Metric.job_id == 3)) == 9
        assert (report.outputs.missing, report.outputs.changed) == ({1: 1}, {1: 1})
        assert report.unknown_jobs == [5000]
        assert make_job().id == 5001 + JOB_IDS_LEFT_OUT
        db.session.remove()
        db.engine.dispose()


def put(
    store: Store, job_id: int, names: Sequence[str], *, text: str, beside: Sequence[str] = ()
) -> None:
    """Store files of a job's first attempt, beside some that are there."""
    outputs = StoredOutputs(store, job_id)
    files = {f"checkpoints/{n}": outputs.index(1).files[f"checkpoints/{n}"] for n in beside}
    for name in names:
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        key = object_key(outputs.attempt_prefix(1), name, sha256=sha256)
        store.write(key, text.encode())
        name = f"checkpoints/{name}"
        files[name] = StoredFile(name, len(text), sha256, key, modified=1.0)
    outputs.write(Index(files, 1))


def test_a_name_that_leads_out_of_a_jobs_folder_is_no_file_of_it() -> None:
    from webapp.services.outputs_index import OutputFile

    with application(environment(Path("/nonexistent"), database_url="sqlite://")):
        for name in ("../2/x", "/etc/passwd", "."):
            with pytest.raises(ValueError, match="no name of a file of job 1"):
                _ = OutputFile(job=1, name=name, size=0, modified=0, sha256=None).path
