"""The database's schema: brought up to date, and asked whether it is."""

from __future__ import annotations

import fcntl
from functools import cache
from pathlib import Path

import flask_migrate
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from webapp.config import settings
from webapp.extensions import db
from webapp.services.errors import Unavailable

MIGRATIONS = Path(__file__).parent.parent / "migrations"


def migrate() -> None:
    """Bring the database to the newest revision; nothing happens where it is there."""
    url = db.engine.url
    if url.get_backend_name() == "sqlite" and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    home = settings().home
    home.mkdir(parents=True, exist_ok=True)
    # Of two on this host one waits; on PostgreSQL, env.py does the same between hosts.
    with (home / "migrate.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        flask_migrate.upgrade(directory=str(MIGRATIONS))


def check() -> None:
    """Raise Unavailable where the database does not have the newest revision."""
    context = MigrationContext.configure(db.session.connection())
    found, wanted = context.get_current_revision(), newest_revision()
    if found != wanted:
        raise Unavailable(
            f"The database is at revision {found or 'none'}, this version needs {wanted}; "
            "run: python -m webapp.manage migrate"
        )


@cache
def newest_revision() -> str | None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return ScriptDirectory.from_config(config).get_current_head()
