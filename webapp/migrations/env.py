"""Runs migrations on the application's database, one process at a time.

A migration happens wholly or not at all, on SQLite too. A caller that has a transaction of its own
(a restore) puts its connection into the configuration's attributes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from alembic import context
from sqlalchemy import Connection, text

import webapp.models  # noqa: F401  registers the tables
from webapp.extensions import db
from webapp.models.columns import UtcDateTime

_MIGRATION_LOCK = 0x6D6F646D  # any constant: two releases at once wait for each other


def _render_item(kind: str, item: Any, autogen_context: Any) -> str | Literal[False]:
    """Write our own column types as what they are in the database."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=db.metadata,
        render_as_batch=True,
        render_item=_render_item,
        compare_type=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


@contextmanager
def _locked_on_postgresql(connection: Connection) -> Iterator[None]:
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _MIGRATION_LOCK})
    connection.commit()
    try:
        yield
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _MIGRATION_LOCK})
        connection.commit()


@contextmanager
def _whole_on_sqlite(connection: Connection) -> Iterator[None]:
    """Migrate in one transaction, with foreign keys checked at its end.

    SQLite changes a column by making the table anew: with foreign keys on, dropping the old one
    would delete all rows that refer to it.
    """
    connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        yield
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise RuntimeError(f"the migration breaks references, nothing is changed: {broken[:5]}")
        connection.commit()
    finally:
        connection.rollback()
        connection.exec_driver_sql("PRAGMA foreign_keys=ON")  # the pool hands it out again


def _run_alone() -> None:
    with db.engine.connect() as connection:
        sqlite = connection.dialect.name == "sqlite"
        with (_whole_on_sqlite if sqlite else _locked_on_postgresql)(connection):
            _run(connection)


given: Connection | None = context.config.attributes.get("connection")
if given is None:
    _run_alone()
else:
    _run(given)
