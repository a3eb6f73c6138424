"""Long-lived tokens for the command line and CI: shown once, kept as a hash."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from sqlalchemy import delete, or_, select, update

from webapp.extensions import db
from webapp.models import PersonalToken, User
from webapp.models.columns import utc_now
from webapp.services.errors import NotFound
from webapp.services.paging import Page, SortKey, paginate
from webapp.services.statements import affected

PREFIX = "my_"
_USE_RESOLUTION = timedelta(minutes=1)  # how fresh `last_used_at` is kept: a write a minute


def create(user: User, *, name: str, expires_in_days: int | None) -> tuple[PersonalToken, str]:
    """Return a new token's row and, this once, the token."""
    token = PREFIX + secrets.token_urlsafe(32)
    expires_at = utc_now() + timedelta(days=expires_in_days) if expires_in_days else None
    row = PersonalToken(user_id=user.id, name=name, token_hash=_hash(token), expires_at=expires_at)
    db.session.add(row)
    db.session.commit()
    return row, token


def owner(token: str) -> User | None:
    """Return whose token it is, or None where it is unknown or has expired."""
    now = utc_now()
    row = db.session.scalar(
        select(PersonalToken).where(
            PersonalToken.token_hash == _hash(token),
            or_(PersonalToken.expires_at.is_(None), PersonalToken.expires_at > now),
        )
    )
    if row is None:
        return None
    user = row.user
    if row.last_used_at is None or now - row.last_used_at > _USE_RESOLUTION:
        db.session.execute(
            update(PersonalToken).where(PersonalToken.id == row.id).values(last_used_at=now)
        )
        db.session.commit()
    return user


def list_tokens(user: User, *, limit: int, cursor: str | None) -> Page[PersonalToken]:
    """Return a person's tokens, the newest first."""
    query = select(PersonalToken).where(PersonalToken.user_id == user.id)
    keys = [SortKey(PersonalToken.id, descending=True)]
    return paginate(db.session(), query, keys=keys, limit=limit, cursor=cursor)


def remove(user: User, token_id: int) -> None:
    """End one of a person's tokens. Raises NotFound where it is not theirs."""
    removed = affected(
        delete(PersonalToken).where(PersonalToken.id == token_id, PersonalToken.user_id == user.id)
    )
    if removed != 1:
        raise NotFound(f"You have no token {token_id}")
    db.session.commit()


def _hash(token: str) -> str:
    # A fast hash will do: the token is random, there is nothing to guess.
    return hashlib.sha256(token.encode()).hexdigest()
