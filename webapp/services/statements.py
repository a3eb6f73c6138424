"""Statements that change rows and tell how many: the base of every compare-and-set."""

from __future__ import annotations

from typing import cast

from sqlalchemy import CursorResult, Delete, Update

from webapp.extensions import db


def affected(statement: Update | Delete) -> int:
    """Carry out a statement in the session's transaction and return how many rows it changed."""
    result = db.session.execute(statement, execution_options={"synchronize_session": False})
    return cast("CursorResult[object]", result).rowcount
