"""Lists in pages: a cursor holds where the last page ended, so page 2,000 is as fast as page 1."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from webapp.models.columns import UtcDateTime
from webapp.services.errors import Invalid

T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    items: list[T]
    next_cursor: str | None
    total: int


@dataclass(frozen=True)
class SortKey:
    """A column that a list is sorted by; the last of several must be unique, none may be null."""

    column: Any
    descending: bool = False


def paginate(
    session: Session,
    query: Any,
    *,
    keys: Sequence[SortKey],
    limit: int,
    cursor: str | None = None,
) -> Page[Any]:
    """Return a page of a select: entities, or tuples where it selects more than one thing.

    Raises Invalid where the cursor is not one of this list.
    """
    total = session.scalar(select(func.count()).select_from(query.order_by(None).subquery()))
    rows_query = query.add_columns(*(key.column for key in keys))
    if cursor is not None:
        rows_query = rows_query.where(_after(keys, _decode(cursor, keys)))
    order = [key.column.desc() if key.descending else key.column.asc() for key in keys]
    rows = session.execute(rows_query.order_by(*order).limit(limit + 1)).all()
    next_cursor = _encode(rows[limit - 1][-len(keys) :]) if len(rows) > limit else None
    width = len(query.column_descriptions)
    items = [row[0] if width == 1 else tuple(row[:width]) for row in rows[:limit]]
    return Page(items=items, next_cursor=next_cursor, total=total or 0)


def _after(keys: Sequence[SortKey], values: Sequence[Any]) -> ColumnElement[bool]:
    """Return the condition of what comes after a row: beyond it in the first key that differs."""
    alternatives = []
    for i, (key, value) in enumerate(zip(keys, values, strict=True)):
        beyond = key.column < value if key.descending else key.column > value
        same = [k.column == v for k, v in zip(keys[:i], values[:i], strict=True)]
        alternatives.append(and_(*same, beyond))
    return or_(*alternatives)


def _encode(values: Sequence[Any]) -> str:
    plain = [v.isoformat() if isinstance(v, datetime) else v for v in values]
    return base64.urlsafe_b64encode(json.dumps(plain).encode()).decode().rstrip("=")


def _decode(cursor: str, keys: Sequence[SortKey]) -> list[Any]:
    wrong = Invalid({"cursor": ["is not a next_cursor of this list"]})
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        values = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if not isinstance(values, list) or len(values) != len(keys):
            raise wrong
        return [_typed(value, key) for value, key in zip(values, keys, strict=True)]
    except (ValueError, TypeError, OverflowError):
        raise wrong from None


def _typed(value: Any, key: SortKey) -> Any:
    """Return a cursor's value in the type of its column. Raises ValueError or TypeError."""
    if isinstance(key.column.type, UtcDateTime):
        time = datetime.fromisoformat(value)
        if time.tzinfo is None:
            raise ValueError("no zone")
        return time
    wanted = key.column.type.python_type
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted:
        raise TypeError(wanted)
    if wanted is int and abs(value) >= 2**63:
        raise ValueError("too large")
    if wanted is str:
        if "\0" in value:
            raise ValueError("NUL")
        value.encode()
    return value
