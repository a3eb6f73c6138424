"""The database's schema: brought up to date, and asked whether it is."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from flask import current_app
from sqlalchemy import Connection, inspect, text

from webapp.config import settings
from webapp.extensions import db
from webapp.services.errors import Unavailable

logger = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent.parent / "migrations"
COPIES_KEPT = 3
_COPY_NAME = "before-upgrade-{revision}-{time:%Y%m%dT%H%M%S%f}.db"


def migrate() -> None:
    """Bring the database to the newest revision; nothing happens where it is there.

    A SQLite database that has data is copied first, into ``backups`` in the home folder.
    """
    file = sqlite_file()
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    with _alone_on_this_host():
        if file is not None and file.exists():
            _keep_copy(file)
        command.upgrade(_config(), "head")


def migrate_within(connection: Connection, *, revision: str = "head") -> None:
    """Bring a database to a revision in the transaction that the connection is in."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def check() -> None:
    """Raise Unavailable where the database does not have the newest revision, or is not there."""
    if not is_there():
        raise Unavailable(
            f"There is no database at {sqlite_file()}; set MODELYARD_HOME or DATABASE_URL as for "
            "the instance, or make a new one with: modelyard release"
        )
    found, wanted = revision_of(db.session.connection()), newest_revision()
    if found != wanted:
        raise Unavailable(
            f"The database is at revision {found or 'none'}, this version needs {wanted}; "
            "run: modelyard release"
        )


def revision_of(connection: Connection) -> str | None:
    """Return the revision that a database is at; None where it has no tables of ours."""
    # Not by way of alembic's context, which makes a table of its own each time: every look of a
    # health check would be one more statement for SQLAlchemy to remember.
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.scalar(text("SELECT version_num FROM alembic_version"))


@cache
def newest_revision() -> str | None:
    return _scripts().get_current_head()


@cache
def revisions() -> tuple[str, ...]:
    """Return all revisions, the first one first."""
    return tuple(reversed([script.revision for script in _scripts().walk_revisions()]))


def sqlite_file() -> Path | None:
    """Return the file of the application's database; None where it is not SQLite's."""
    url = db.engine.url
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        return None
    return Path(url.database)


def is_there() -> bool:
    """Tell whether there is a file to connect to: SQLite would make one, and leave it empty."""
    file = sqlite_file()
    return file is None or file.exists()


def _scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return ScriptDirectory.from_config(config)


def _config() -> Config:
    config: Config = current_app.extensions["migrate"].migrate.get_config(str(MIGRATIONS))
    return config


@contextmanager
def _alone_on_this_host() -> Iterator[None]:
    """Wait for another release on this host; on PostgreSQL, env.py waits for other hosts', too."""
    home = settings().home
    home.mkdir(parents=True, exist_ok=True)
    with (home / "migrate.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _keep_copy(file: Path) -> None:
    """Copy a database that is about to be migrated; keep the last few of these copies."""
    with db.engine.connect() as connection:
        revision = revision_of(connection)
    if revision in (None, newest_revision()):
        return
    folder = settings().home / "backups"
    folder.mkdir(mode=0o700, exist_ok=True)
    copy = folder / _COPY_NAME.format(revision=revision, time=datetime.now(UTC))
    _copy_sqlite(file, copy)
    logger.warning("the database was copied to %s before its upgrade", copy)
    for old in sorted(folder.glob("before-upgrade-*.db"), key=_age)[:-COPIES_KEPT]:
        old.unlink()


def _copy_sqlite(file: Path, copy: Path) -> None:
    """Copy a database that may be in use; the copy is whole or absent."""
    partial = copy.with_suffix(".partial")
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    try:
        with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(partial)) as target:
            source.backup(target)
        partial.replace(copy)
    except (OSError, sqlite3.Error) as error:
        raise Unavailable(
            f"The database is not upgraded, for it cannot be copied to {copy.parent} first "
            f"({error}); make space there"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _age(copy: Path) -> str:
    return copy.stem.rpartition("-")[2]
