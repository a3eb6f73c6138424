"""Rows of all tables out of one database and into another, SQLite or PostgreSQL, in either way.

The tables are read as the database has them, not as today's models say: a backup is taken and
restored at the database's own revision. Values travel as JSON: times as ISO 8601 in UTC, the
documents of JSON columns as the text that they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    DateTime,
    Engine,
    MetaData,
    Table,
    Text,
    cast,
    func,
    insert,
    inspect,
    select,
    text,
)

from modelyard.counting import counted
from webapp.extensions import db
from webapp.services.backup_archive import BackupError

_BATCH_ROWS = 2000
_CALLED = {"datasets": "data set", "job_events": "event"}  # others by their name
Row = Sequence[Any]


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """Give a connection that sees the database as it is now, while others go on writing."""
    with engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            # With a write-ahead log, neither waits for the other.
            connection.exec_driver_sql("BEGIN")
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar()
        else:
            connection = connection.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            connection.exec_driver_sql("SELECT 1")
        try:
            yield connection
        finally:
            connection.rollback()


def tables_of(connection: Connection) -> list[Table]:
    """Return our tables as this database has them, each after those that it refers to."""
    metadata = MetaData()
    there = set(inspect(connection).get_table_names())
    ours = [name for name in db.metadata.tables if name in there]
    metadata.reflect(connection, only=ours)
    return metadata.sorted_tables


def in_words(counts: Mapping[str, int], *names: str) -> str:
    """Return how much these tables hold, as people call it: '1 user, 2 data sets, 12 jobs'."""
    return ", ".join(
        counted(counts.get(name, 0), _CALLED.get(name, name.removesuffix("s"))) for name in names
    )


def rows_of(connection: Connection, table: Table) -> Iterator[Row]:
    """Yield a table's rows in the order of its key, as values that JSON has."""
    columns = [cast(c, Text).label(c.name) if _is_json(c) else c for c in table.columns]
    statement = select(*columns).order_by(*table.primary_key.columns)
    times = [isinstance(column.type, DateTime) for column in table.columns]
    for row in connection.execute(statement.execution_options(yield_per=_BATCH_ROWS)):
        yield [
            _utc_text(value) if time and value is not None else value
            for value, time in zip(row, times, strict=True)
        ]


def insert_rows(connection: Connection, table: Table, names: list[str], rows: Iterable[Row]) -> int:
    """Add rows that :func:`rows_of` gave, and return how many they were."""
    if connection.dialect.name == "postgresql":
        return _copy_in(connection, table, names, rows)
    statement = insert(_with_text_for_json(table))
    columns = [table.columns[name] for name in names]
    pending, count = iter(rows), 0
    while batch := list(islice(pending, _BATCH_ROWS)):
        connection.execute(statement, [_values(columns, row) for row in batch])
        count += len(batch)
    return count


def last_ids(connection: Connection) -> dict[str, int]:
    """Return the last id ever given, by table, where the database counts them."""
    if connection.dialect.name == "postgresql":
        found = {}
        for table, sequence in _sequences(connection).items():
            row = connection.exec_driver_sql(
                f"SELECT last_value, is_called FROM {sequence}"  # noqa: S608 (PostgreSQL quoted it)
            ).one()
            found[table] = int(row.last_value) if row.is_called else 0
        return found
    counted = dict.fromkeys(_autoincrement_tables(connection), 0)
    if counted:
        counted |= {
            name: int(last)
            for name, last in connection.exec_driver_sql("SELECT name, seq FROM sqlite_sequence")
            if name in counted
        }
    return counted


def raise_last_ids(
    connection: Connection, tables: Sequence[Table], least: Mapping[str, int]
) -> None:
    """Let new ids come after all that are there and after ``least`` of each table."""
    counted = last_ids(connection)
    sequences = {} if connection.dialect.name == "sqlite" else _sequences(connection)
    for table in tables:
        if table.name not in counted:
            continue
        (key,) = table.primary_key.columns
        newest = connection.scalar(select(func.max(key))) or 0
        last = max(newest, counted[table.name], least.get(table.name, 0))
        if last == 0:
            continue
        if sequences:
            values = {"sequence": sequences[table.name], "last": last}
            connection.execute(text("SELECT setval(CAST(:sequence AS regclass), :last)"), values)
        else:
            values = {"name": table.name, "last": last}
            connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), values)
            connection.execute(text("INSERT INTO sqlite_sequence VALUES (:name, :last)"), values)


def _copy_in(connection: Connection, table: Table, names: list[str], rows: Iterable[Row]) -> int:
    quote = connection.dialect.identifier_preparer.quote
    into = f"{quote(table.name)} ({', '.join(quote(name) for name in names)})"
    cursor: Any = connection.connection.cursor()
    count = 0
    try:
        with cursor, cursor.copy(f"COPY {into} FROM STDIN") as copy:
            for row in rows:
                copy.write_row([_without_nul(value) for value in row])
                count += 1
    except connection.dialect.loaded_dbapi.Error as error:
        raise BackupError(
            f"PostgreSQL does not take the rows of '{table.name}', nothing is changed: {error}"
        ) from error
    return count


def _without_nul(value: Any) -> Any:
    """Replace what SQLite keeps in a text and PostgreSQL cannot."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def _values(columns: Sequence[Column[Any]], row: Row) -> dict[str, Any]:
    return {
        column.name: _naive(value) if isinstance(column.type, DateTime) else value
        for column, value in zip(columns, row, strict=True)
    }


def _with_text_for_json(table: Table) -> Table:
    """Return a table that takes documents as they are written, and not as objects."""
    other = table.to_metadata(MetaData())
    for column in other.columns:
        if _is_json(column):
            column.type = Text()
    return other


def _is_json(column: Column[Any]) -> bool:
    return isinstance(column.type, JSON)


def _utc_text(value: datetime) -> str:
    aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return aware.isoformat()


def _naive(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value).replace(tzinfo=None)


def _sequences(connection: Connection) -> dict[str, str]:
    """Return the sequence behind each of our tables' ids, quoted."""
    found = {}
    for name, table in db.metadata.tables.items():
        if "id" not in table.columns or not inspect(connection).has_table(name):
            continue
        sequence = connection.scalar(
            text("SELECT pg_get_serial_sequence(:table, 'id')"), {"table": name}
        )
        if sequence is not None:
            found[name] = str(sequence)
    return found


def _autoincrement_tables(connection: Connection) -> list[str]:
    rows = connection.exec_driver_sql(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE '%AUTOINCREMENT%'"
    )
    return [row.name for row in rows if row.name in db.metadata.tables]


def decoded(content: Iterable[bytes]) -> Iterator[Row]:
    """Yield the rows of a part of an archive."""
    for line in content:
        yield json.loads(line)
