"""People: how they come to be."""

from __future__ import annotations

import secrets

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from webapp.config import settings
from webapp.extensions import db
from webapp.models import User
from webapp.services.errors import Conflict, Forbidden
from webapp.services.passwords import check_strength, hash_password


def register(*, email: str, password: str, name: str) -> User:
    """Create a person who registers. Raises Forbidden, Invalid or Conflict."""
    if settings().registration == "closed":
        raise Forbidden("Registration is closed here; ask an administrator for an account")
    check_strength(password, email=email, name=name)
    return create_user(email=email, password=password, name=name)


def create_user(*, email: str, password: str, name: str, is_admin: bool = False) -> User:
    """Create a person. Raises Conflict where the address is taken."""
    email = email.lower()
    taken = f"There is already an account for {email}"
    if find_user(email) is not None:
        raise Conflict(taken)
    db.session.rollback()  # hashing takes a while: hold no connection meanwhile
    user = User(email=email, name=name, password_hash=hash_password(password), is_admin=is_admin)
    db.session.add(user)
    try:
        db.session.commit()
    except IntegrityError:  # somebody was faster
        db.session.rollback()
        raise Conflict(taken) from None
    return user


def find_user(email: str) -> User | None:
    return db.session.scalar(select(User).where(User.email == email.lower()))


def ensure_admin() -> tuple[str, str | None] | None:
    """Create the administrator where there is none yet.

    Returns the address and, where no password is set in the settings, the one that was made up:
    it is told this once. Returns None where there is an administrator.
    """
    if db.session.scalar(select(func.count()).select_from(User).where(User.is_admin)):
        return None
    chosen = settings().admin_password
    email = settings().admin_email
    if chosen is not None:
        check_strength(chosen, email=email, name="Administrator")
    password = chosen or secrets.token_urlsafe(15)
    create_user(email=email, password=password, name="Administrator", is_admin=True)
    return email, None if chosen else password
