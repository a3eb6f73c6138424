"""Statements that change rows and tell how many: the base of every compare-and-set."""

from __future__ import annotations

from typing import cast

from sqlalchemy import CursorResult, Delete, Update
from sqlalchemy.orm import Session

from webapp.extensions import db


def affected(statement: Update | Delete, *, session: Session | None = None) -> int:
    """Carry out a statement and return how many rows it changed; the caller commits.

    In the transaction of ``session``, by default the application's. What the session holds of
    those rows is stale afterwards: refresh it where it is read on.
    """
    session = session or db.session()
    result = session.execute(statement, execution_options={"synchronize_session": False})
    return cast("CursorResult[object]", result).rowcount
