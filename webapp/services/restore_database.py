"""The database of a backup made anew, beside its place or in one transaction, and put there.

It comes into being at the revision that the backup has, and is migrated from there.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Connection, create_engine, func, select, text
from sqlalchemy.exc import DBAPIError

from modelyard.counting import counted
from webapp.extensions import db
from webapp.models import Job
from webapp.services import backup_tables, schema
from webapp.services.backup_archive import BackupError, Manifest, members_below

# Left free above what is known to be in use: jobs that were made after the backup may have left
# no trace here, and a browser may have seen events that are in no backup.
JOB_IDS_LEFT_OUT = 1000
EVENT_IDS_LEFT_OUT = 1_000_000_000
_BUSY_SECONDS = 1.0
_GOODBYE_SECONDS = 3.0  # what PostgreSQL may need to notice that a connection is closed


def restore_database(path: Path, manifest: Manifest, *, last_job: int) -> None:
    """Replace the application's database; new jobs come after ``last_job`` and what it has.

    Raises BackupError, with nothing changed.
    """
    db.engine.dispose()
    file = schema.sqlite_file()
    try:
        if file is None:
            _restore_postgresql(path, manifest, last_job)
        else:
            _restore_sqlite(path, manifest, last_job, file)
    except DBAPIError as error:
        raise BackupError(
            f"The database does not take the backup, nothing is changed: {error.orig}"
        ) from error


def refuse_users() -> None:
    """Raise BackupError where another process has the database open."""
    db.engine.dispose()
    file = schema.sqlite_file()
    if file is not None:
        with _nobody_uses(file):
            return
    deadline = time.monotonic() + _GOODBYE_SECONDS
    while others := _other_connections():
        if time.monotonic() > deadline:
            raise BackupError(
                f"The database has {counted(others, 'other open connection')}; "
                "stop web and recorder first"
            )
        time.sleep(0.1)


def what_is_there() -> str:
    """Return what a person would miss of the database; empty where it is empty."""
    if not schema.is_there():
        return ""
    with db.engine.connect() as connection:
        counts = {
            table.name: connection.scalar(select(func.count()).select_from(table)) or 0
            for table in backup_tables.tables_of(connection)
        }
    named = backup_tables.in_words(counts, "users", "projects", "jobs")
    return named if any(counts.values()) else ""


def _restore_postgresql(path: Path, manifest: Manifest, last_job: int) -> None:
    with db.engine.begin() as connection:
        quote = connection.dialect.identifier_preparer.quote
        for table in reversed(backup_tables.tables_of(connection)):
            connection.execute(text(f"DROP TABLE {quote(table.name)} CASCADE"))
        connection.execute(text("DROP TABLE IF EXISTS alembic_version"))
        _load(connection, path, manifest, last_job=last_job)


def _other_connections() -> int:
    with db.engine.connect() as connection:
        count = connection.scalar(
            text(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        )
    return int(count or 0)


def _restore_sqlite(path: Path, manifest: Manifest, last_job: int, file: Path) -> None:
    """Make the database in a file beside its place, and put it there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for stale in file.parent.glob(f".{file.name}.*"):
        _remove(stale)  # of a restore that was killed
    made = file.with_name(f".{file.name}.{os.getpid()}")
    os.close(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    engine = create_engine(f"sqlite:///{made}")
    try:
        with _nobody_uses(file):
            with engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                _load(connection, path, manifest, last_job=last_job)
                _check_references(connection)
                connection.commit()
            engine.dispose()  # the last one out writes the log into the file
            _put_in_place(made, file)
    finally:
        engine.dispose()
        _remove(made)


@contextmanager
def _nobody_uses(file: Path) -> Iterator[None]:
    """Hold a SQLite database, if there is one, so that nobody reads what is being replaced.

    Raises BackupError where another process has it open: only the last one out may leave the
    write-ahead log.
    """
    if not file.exists():
        _remove(file)  # a log without its database
        yield
        return
    with closing(sqlite3.connect(file, timeout=_BUSY_SECONDS, isolation_level=None)) as held:
        try:
            held.execute("PRAGMA journal_mode=DELETE")
            held.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            raise BackupError(
                f"Another process has {file} open; stop web and recorder first"
            ) from None
        yield


def _put_in_place(made: Path, file: Path) -> None:
    descriptor = os.open(made, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    made.replace(file)


def _remove(file: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)


def _check_references(connection: Connection) -> None:
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
    if broken:
        raise BackupError(f"Rows of the backup refer to rows that it lacks: {broken[:3]}")


def _load(connection: Connection, path: Path, manifest: Manifest, *, last_job: int) -> None:
    """Make the tables, fill and migrate them, in the transaction that the connection is in."""
    schema.migrate_within(connection, revision=manifest.revision)
    counts = _load_rows(connection, path, manifest)
    wrong = [name for name, told in manifest.tables.items() if counts.get(name, 0) != told.rows]
    if wrong:
        raise BackupError(f"The backup has not as many rows as it tells of: {', '.join(wrong)}")
    schema.migrate_within(connection)
    # A login that was ended after the backup must not come to life again.
    connection.execute(text("DELETE FROM auth_sessions"))
    least = {name: told.last_id or 0 for name, told in manifest.tables.items()}
    newest = connection.scalar(select(func.max(Job.id))) or 0
    least["jobs"] = max(newest, least.get("jobs", 0), last_job) + JOB_IDS_LEFT_OUT
    least["job_events"] = least.get("job_events", 0) + EVENT_IDS_LEFT_OUT
    tables = backup_tables.tables_of(connection)
    backup_tables.raise_last_ids(connection, tables, least=least)


def _load_rows(connection: Connection, path: Path, manifest: Manifest) -> dict[str, int]:
    tables = {table.name: table for table in backup_tables.tables_of(connection)}
    counts: dict[str, int] = {}
    for name, content in members_below(path, "tables"):
        table = name.partition("/")[0]
        columns = manifest.tables[table].columns
        if table not in tables or not set(columns) <= set(tables[table].columns.keys()):
            raise BackupError(
                f"The backup's table '{table}' is not that of revision {manifest.revision}; "
                "it was made by another version of Modelyard"
            )
        rows = backup_tables.decoded(content)
        added = backup_tables.insert_rows(connection, tables[table], columns, rows)
        counts[table] = counts.get(table, 0) + added
    return counts
