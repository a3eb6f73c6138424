"""Logins: a session in the database, and the pair of tokens that stands for it.

Both tokens carry the session's id. Each request looks at the session, so a logout ends both at
once in every web process; a refresh exchanges the one refresh token that is alive.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from flask_jwt_extended import (
    create_access_token,
    create_refresh_token,
    decode_token,
    get_jti,
)
from flask_jwt_extended.exceptions import JWTExtendedException
from jwt.exceptions import PyJWTError
from sqlalchemy import delete, select, update

from webapp.config import settings
from webapp.extensions import db
from webapp.models import AuthSession, User
from webapp.models.columns import utc_now
from webapp.services.accounts import find_user
from webapp.services.errors import Unauthorized
from webapp.services.passwords import verify_password
from webapp.services.statements import affected

NOT_LOGGED_IN = "The token is missing, expired or no longer valid; log in"

# Two tabs that refresh at once are no theft: reuse this soon is refused and nothing more.
_HONEST_REUSE = timedelta(seconds=10)


@dataclass(frozen=True)
class TokenPair:
    access_token: str
    refresh_token: str
    expires_in: int  # seconds
    token_type: str = "bearer"  # noqa: S105


def login(*, email: str, password: str) -> TokenPair:
    """Open a session. Raises Unauthorized, in the same time whether or not the address exists."""
    user = find_user(email)
    stored = user.password_hash if user else None
    db.session.rollback()  # hold no connection while the hash is computed
    if not verify_password(password, stored):
        raise Unauthorized("The address or the password is wrong")
    assert user is not None
    return open_session(user)


def open_session(user: User) -> TokenPair:
    """Return the tokens of a new session and commit."""
    _forget_ended_sessions(user)
    session_id = str(uuid.uuid4())
    pair = _make_pair(user.id, session_id)
    db.session.add(
        AuthSession(
            id=session_id,
            user_id=user.id,
            refresh_jti=get_jti(pair.refresh_token),
            expires_at=utc_now() + _refresh_life(),
        )
    )
    db.session.commit()
    return pair


def refresh_claims(token: str) -> dict[str, Any]:
    """Return what a refresh token says. Raises Unauthorized where it is none, or has expired."""
    try:
        claims: dict[str, Any] = decode_token(token)
    except (JWTExtendedException, PyJWTError):
        raise Unauthorized(NOT_LOGGED_IN) from None
    if claims.get("type") != "refresh" or "sid" not in claims:
        raise Unauthorized(NOT_LOGGED_IN)
    return claims


def refresh(claims: dict[str, Any]) -> TokenPair:
    """Exchange a refresh token, given by its verified claims, and commit.

    Of two exchanges at once one succeeds. Raises Unauthorized for a token that was exchanged
    before; one that comes late was stolen by or from somebody, and ends the session.
    """
    now = utc_now()
    pair = _make_pair(int(claims["sub"]), claims["sid"])
    changed = affected(
        update(AuthSession)
        .where(
            AuthSession.id == claims["sid"],
            AuthSession.refresh_jti == claims["jti"],
            AuthSession.revoked_at.is_(None),
            AuthSession.expires_at > now,
        )
        .values(
            refresh_jti=get_jti(pair.refresh_token),
            rotated_at=now,
            expires_at=now + _refresh_life(),
        )
    )
    if changed != 1:
        db.session.execute(
            update(AuthSession)
            .where(
                AuthSession.id == claims["sid"],
                AuthSession.revoked_at.is_(None),
                AuthSession.rotated_at < now - _HONEST_REUSE,
            )
            .values(revoked_at=now)
        )
        db.session.commit()
        raise Unauthorized(NOT_LOGGED_IN)
    db.session.commit()
    return pair


def logout(session_id: str) -> None:
    """End a session: both its tokens are dead from here on."""
    db.session.execute(
        update(AuthSession)
        .where(AuthSession.id == session_id, AuthSession.revoked_at.is_(None))
        .values(revoked_at=utc_now())
    )
    db.session.commit()


def user_of_session(session_id: str) -> User | None:
    """Return whose session it is, or None where it has ended."""
    return db.session.scalar(
        select(User)
        .join(AuthSession, AuthSession.user_id == User.id)
        .where(
            AuthSession.id == session_id,
            AuthSession.revoked_at.is_(None),
            AuthSession.expires_at > utc_now(),
        )
    )


def _make_pair(user_id: int, session_id: str) -> TokenPair:
    claims = {"sid": session_id}
    return TokenPair(
        access_token=create_access_token(identity=str(user_id), additional_claims=claims),
        refresh_token=create_refresh_token(identity=str(user_id), additional_claims=claims),
        expires_in=settings().access_token_seconds,
    )


def _refresh_life() -> timedelta:
    return timedelta(seconds=settings().refresh_token_seconds)


def _forget_ended_sessions(user: User) -> None:
    db.session.execute(
        delete(AuthSession).where(
            AuthSession.user_id == user.id, AuthSession.expires_at < utc_now()
        )
    )
