"""Databases of every revision that was ever released, with data, are brought up to date."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Connection, MetaData, Table, insert, select, text

from adapters.wire import Event, EventType
from modelyard.settings import load_settings
from tests.api import Person
from tests.factories import FINISHED, STARTED, environment
from tests.revision_data import EMAIL, PASSWORD, REVISIONS, TIME, rows_at
from tests.services import python
from webapp import create_app
from webapp.extensions import db
from webapp.models import Job
from webapp.services import backup_tables, schema
from webapp.services.errors import Unavailable
from webapp.services.recorder import record

Make = Callable[[str], Flask]


@contextmanager
def transaction() -> Iterator[Connection]:
    with db.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection
        connection.commit()


@pytest.fixture
def make(tmp_path: Path, database_url: str) -> Iterator[Make]:
    """Make a database as it was at a revision, with data in all its tables."""
    app = create_app(load_settings(environment(tmp_path, database_url=database_url)))
    with app.app_context():

        def at(revision: str) -> Flask:
            with transaction() as connection:
                schema.migrate_within(connection, revision=revision)
                fill(connection, revision)
            return app

        yield at
        db.session.remove()
        db.engine.dispose()


def fill(connection: Connection, revision: str) -> None:
    rows = rows_at(revision)
    for table in reflected(connection):
        for row in rows[table.name]:
            connection.execute(insert(table).values(**row))
    # The last jobs that were made were deleted: their numbers stay used.
    tables = backup_tables.tables_of(connection)
    backup_tables.raise_last_ids(connection, tables, least={"jobs": 70, "job_events": 700})


def reflected(connection: Connection) -> list[Table]:
    metadata = MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name != "alembic_version"]


def held() -> dict[str, list[dict[str, Any]]]:
    """Return every row of the database, by table."""
    with db.engine.connect() as connection:
        return {
            table.name: [
                {name: _aware(value) for name, value in row.items()}
                for row in connection.execute(
                    select(table).order_by(*table.primary_key.columns)
                ).mappings()
            ]
            for table in reflected(connection)
        }


def _aware(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return value


def test_every_revision_has_data_of_its_own() -> None:
    assert schema.revisions() == REVISIONS, "add the new revision to tests/revision_data.py"


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_data_of_a_revision_fill_every_column(revision: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    app = create_app(load_settings(environment(tmp_path, database_url=url)))
    with app.app_context():
        with transaction() as connection:
            schema.migrate_within(connection, revision=revision)
            there = {t.name: set(t.columns.keys()) for t in reflected(connection)}
        db.engine.dispose()
    told = {
        table: {name for row in rows for name in row} for table, rows in rows_at(revision).items()
    }
    assert told == there, "tests/revision_data.py lacks tables or columns of this revision"


@pytest.mark.parametrize("revision", REVISIONS)
def test_an_upgrade_keeps_every_value_of_every_row(revision: str, make: Make) -> None:
    make(revision)
    before = held()
    schema.migrate()
    schema.check()
    after = held()
    for table, rows in rows_at(revision).items():
        assert len(after[table]) == len(before[table]) == len(rows)
        for told, was, now in zip(rows, before[table], after[table], strict=True):
            assert {name: now[name] for name in was} == was
            assert {name: now[name] for name in told} == told
    with db.engine.connect() as connection:
        last = backup_tables.last_ids(connection)
        assert last["jobs"] == 70
        assert last["job_events"] == 700
        if connection.dialect.name == "sqlite":
            assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_application_works_on_an_upgraded_database(revision: str, make: Make) -> None:
    app = make(revision)
    schema.migrate()
    db.session.remove()
    login = {"email": EMAIL, "password": PASSWORD}
    token = Person(app).post("/auth/login", login).json["access_token"]
    grace = Person(app, token=token)
    for path in ("/projects", "/datasets", "/training/jobs", "/auth/tokens"):
        assert grace.get(path).status_code == 200, path
    assert grace.get("/datasets/1").json["classes"] == ["dark", "light"]
    assert [job["id"] for job in grace.get("/training/jobs").json["items"]] == [5, 4, 3, 2, 1]
    for job_id in range(1, 6):
        assert grace.get(f"/training/jobs/{job_id}").json["name"] == f"job {job_id} äöü 漢字"
        for part in ("metrics", "logs", "attempts", "history", "artifacts", "load"):
            assert grace.get(f"/training/jobs/{job_id}/{part}").status_code == 200, part
    curve = grace.get("/training/jobs/1/metrics").json["top1"]
    assert [point["value"] for point in curve] == [1 / 3, 2 / 3]
    assert grace.get("/training/jobs/1/logs").text == "grün\n"
    _train(grace, resume=2)
    clone = grace.post("/training/jobs/2/clone", {"overrides": {"epochs": 3}})
    assert clone.status_code in (201, 422), clone.text  # its data set is not on this machine


def _train(grace: Person, *, resume: int) -> None:
    """Resume an old job and let it go on to its end."""
    answer = grace.post(f"/training/jobs/{resume}/resume")
    assert answer.status_code == 200, answer.text
    job = db.session.get_one(Job, resume, populate_existing=True)
    assert (job.status, job.attempt, job.resume) == ("queued", 2, True)
    steps = [
        (EventType.STARTED, STARTED),
        (EventType.METRICS, {"epoch": 3, "step": 30, "values": {"top1": 0.9}}),
        (EventType.LOG, {"lines": ["goes on"]}),
        (EventType.FINISHED, FINISHED),
    ]
    record([Event(resume, 2, seq, type, TIME, data) for seq, (type, data) in enumerate(steps, 1)])
    assert grace.get(f"/training/jobs/{resume}").json["status"] == "completed"
    assert grace.get(f"/training/jobs/{resume}/logs", attempt=2).text == "goes on\n"


def test_new_columns_of_old_rows_have_sensible_values(make: Make) -> None:
    make("0001")
    schema.migrate()
    rows = held()
    (dataset,), job = rows["datasets"], rows["jobs"][0]
    assert (dataset["multi_label"], dataset["uploaded"]) == (False, False)
    assert (dataset["split_seed"], dataset["val_share"], dataset["task_types"]) == (0, 0.2, None)
    assert (job["split_seed"], job["val_share"], job["initial_job_id"]) == (0, 0.2, None)
    assert (job["preempt"], job["displaced_by"], job["decisions"]) == (False, None, None)
    assert [attempt["failure"] for attempt in rows["attempts"]] == [None] * 4


def test_of_two_releases_at_once_one_migrates_and_both_succeed(
    make: Make, tmp_path: Path, database_url: str
) -> None:
    make("0001")
    db.engine.dispose()
    environ = environment(tmp_path, database_url=database_url, PATH="/usr/bin")
    release = python("-m", "webapp.manage", "migrate")
    both = [subprocess.Popen(release, env=environ) for _ in range(2)]
    assert [process.wait(timeout=240) for process in both] == [0, 0]
    schema.check()
    copies = list((tmp_path / "backups").glob("*.db"))
    assert len(copies) == (1 if database_url.startswith("sqlite") else 0)


def test_a_release_needs_the_database_and_no_broker(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    environ = environment(tmp_path, database_url=url, TRAINING_EXECUTION_MODE="celery")
    environ |= {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        python("-m", "modelyard", "release"),
        env=environ, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Administrator admin@modelyard.local, password" in done.stdout
    again = create_app(load_settings(environment(tmp_path, database_url=url)))
    with again.app_context():
        schema.check()


def test_a_sqlite_database_is_copied_before_its_upgrade_and_three_copies_stay(
    tmp_path: Path,
) -> None:
    file = tmp_path / "modelyard.db"
    app = create_app(load_settings(environment(tmp_path, database_url=f"sqlite:///{file}")))
    with app.app_context():
        for number in range(5):
            with transaction() as connection:
                schema.migrate_within(connection, revision="0001")
                name = {"name": str(number), "time": str(TIME)}
                connection.execute(text("INSERT INTO projects VALUES (1, :name, '', :time)"), name)
            schema.migrate()
            db.engine.dispose()
            file.unlink()
    copies = sorted((tmp_path / "backups").iterdir())
    assert {copy.stat().st_mode & 0o777 for copy in copies} == {0o600}
    assert [_project(copy) for copy in copies] == [("0001", "2"), ("0001", "3"), ("0001", "4")]


def _project(copy: Path) -> tuple[str, str]:
    """Return revision and project of a copy."""
    with closing(sqlite3.connect(copy)) as connection:
        statement = "SELECT version_num, name FROM alembic_version, projects"
        found: tuple[str, str] = connection.execute(statement).fetchone()
        return found


def test_a_database_that_cannot_be_copied_is_not_upgraded(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    app = create_app(load_settings(environment(tmp_path, database_url=url)))
    with app.app_context():
        with transaction() as connection:
            schema.migrate_within(connection, revision="0001")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # as on a full disk
        try:
            with pytest.raises(Unavailable, match=r"not upgraded.*make space there"):
                schema.migrate()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert list((tmp_path / "backups").iterdir()) == []
        with db.engine.connect() as connection:
            assert schema.revision_of(connection) == "0001"
        db.engine.dispose()


def test_a_migration_that_fails_leaves_the_database_as_it_was(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("0001")
    before = held()

    def fails(*arguments: Any, **keywords: Any) -> None:
        raise RuntimeError("the power went out")

    # The last thing that 0002 does.
    monkeypatch.setattr("alembic.operations.base.BatchOperations.create_index", fails)
    with pytest.raises(RuntimeError, match="power"):
        schema.migrate()
    monkeypatch.undo()
    assert held() == before
    schema.migrate()
    schema.check()


def test_a_database_that_is_up_to_date_is_left_alone(make: Make, tmp_path: Path) -> None:
    make(REVISIONS[-1])
    before = held()
    schema.migrate()
    assert held() == before
    assert not (tmp_path / "backups").exists()
    with db.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM jobs")) == 5
