"""A backup: everything that the web host knows, in one file, while everything runs.

The database is read in one snapshot, so a backup is of one moment, however long it takes and
whatever is recorded meanwhile. The outputs are listed after it: what a listed file has more than
the database, the database learns after a restore from the jobs' journals.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import Connection, select
from sqlalchemy import Table as SqlTable

from modelyard import __version__
from modelyard.settings import SETTINGS, Settings, load_settings
from modelyard.storage import StorageError
from webapp.config import settings
from webapp.extensions import db
from webapp.models import Artifact, Job
from webapp.services import backup_tables, outputs_index, schema, stored_files
from webapp.services.backup_archive import (
    FORMAT,
    ArchiveWriter,
    BackupError,
    Manifest,
    Parts,
    Table,
)
from webapp.services.outputs_index import OutputFile

logger = logging.getLogger(__name__)

SECRETS = ("secret.key", "flower.password", "admin.password")  # what the home folder keeps of them
_ENDED = ("completed", "failed", "cancelled")


def default_name(now: datetime) -> str:
    return f"modelyard-{now:%Y-%m-%dT%H%M%SZ}.tar.gz"


def database() -> str:
    """Return where the database is, without its password."""
    return db.engine.url.render_as_string(hide_password=True)


def backup_to(path: Path, *, with_outputs: bool = False) -> Manifest:
    """Write a backup to a file that only its owner may read; it is whole or absent.

    Raises BackupError where there is nothing to back up, or where the file is there already.
    """
    if path.is_dir():
        raise BackupError(f"{path} is a folder; name a file in it")
    if path.exists():
        raise BackupError(f"{path} is there already; choose another name")
    try:
        with _whole_file(path) as file:
            return backup(file, with_outputs=with_outputs)
    except OSError as error:
        raise BackupError(f"The backup cannot be written to {path}: {error.strerror}") from error


def backup(file: BinaryIO, *, with_outputs: bool = False) -> Manifest:
    """Write a backup to an open file, front to back. Raises BackupError and OSError."""
    if with_outputs and stored_files.used():
        raise BackupError(
            f"The jobs' files are in the store {settings().store}, whose own copies and versions "
            "keep them; take the backup without --with-outputs"
        )
    if not schema.is_there():
        raise _no_database()
    archive = ArchiveWriter(file)
    with backup_tables.snapshot(db.engine) as connection:
        revision = schema.revision_of(connection)
        if revision is None:
            raise _no_database()
        created_at = datetime.now(UTC)
        tables = backup_tables.tables_of(connection)
        rows = {table.name: _add_table(archive, connection, table) for table in tables}
        last_ids = backup_tables.last_ids(connection)  # after the rows: never too low
        _add_secrets(archive)
        outputs, problem = _add_outputs(archive, connection, with_outputs=with_outputs)
        manifest = Manifest(
            format=FORMAT,
            modelyard=__version__,
            created_at=created_at.isoformat(timespec="seconds"),
            database=connection.dialect.name,
            revision=revision,
            tables={
                table.name: Table(
                    columns=[column.name for column in table.columns],
                    rows=rows[table.name],
                    last_id=last_ids.get(table.name),
                )
                for table in tables
            },
            outputs=outputs,
            outputs_problem=problem,
            settings=chosen_settings(settings()),
            members=archive.members,
        )
    archive.finish(manifest)
    return manifest


def _no_database() -> BackupError:
    return BackupError(
        f"There is no database of Modelyard at {database()}; "
        "is MODELYARD_HOME or DATABASE_URL that of the instance?"
    )


def chosen_settings(chosen: Settings) -> dict[str, str]:
    """Return what was set to another value than the default, without secrets and addresses."""
    default = load_settings({"MODELYARD_HOME": str(chosen.home)})
    found = {}
    for setting in SETTINGS:
        value = getattr(chosen, setting.field)
        if value != getattr(default, setting.field) and not _private(setting.field):
            found[setting.variable] = _text(value)
    return found


def _add_table(archive: ArchiveWriter, connection: Connection, table: SqlTable) -> int:
    parts = Parts(archive, lambda number: f"tables/{table.name}/{number:06}.jsonl")
    for row in backup_tables.rows_of(connection, table):
        parts.add(row)
    parts.flush()
    return parts.count


def _add_secrets(archive: ArchiveWriter) -> None:
    for name in SECRETS:
        path = settings().home / name
        if path.is_file():
            archive.add(f"home/{name}", path.read_bytes())


def _add_outputs(
    archive: ArchiveWriter, connection: Connection, *, with_outputs: bool
) -> tuple[int, str | None]:
    """Add the index, and return how many files it tells of and why they are not all."""
    kept = _recorded_of_ended(connection) if with_outputs else set()
    copied: list[OutputFile] = []
    parts = Parts(archive, lambda number: f"index/{number:06}.jsonl")
    problem = None
    try:
        for file in outputs_index.files(connection):
            parts.add(asdict(file))
            if (file.job, file.name) in kept:
                copied.append(file)
    except StorageError as error:
        problem = str(error)  # a store that is away is no reason to lose the database
    parts.flush()
    for file in copied:
        _add_output(archive, file)
    return parts.count, problem


def _add_output(archive: ArchiveWriter, file: OutputFile) -> None:
    try:
        with file.path.open("rb") as content:
            size = os.fstat(content.fileno()).st_size
            archive.add_stream(f"outputs/{file.job}/{file.name}", content, size=size)
    except FileNotFoundError:
        logger.info("job %s: %s was removed meanwhile", file.job, file.name)


def _recorded_of_ended(connection: Connection) -> set[tuple[int, str]]:
    statement = (
        select(Artifact.job_id, Artifact.name)
        .join(Job, Job.id == Artifact.job_id)
        .where(Job.status.in_(_ENDED))
    )
    return {(row.job_id, row.name) for row in connection.execute(statement)}


@contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file beside the place, which takes it once it is whole and on the disk."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _private(field: str) -> bool:
    return any(word in field for word in ("key", "password", "url", "notice"))


def _text(value: Any) -> str:
    if not isinstance(value, tuple):
        return str(value)
    separator = ":" if any(isinstance(part, Path) for part in value) else ","
    return separator.join(str(part) for part in value)
