"""People, logins and personal tokens."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from webapp.api.schemas.base import Out, PageOut, UtcTime
from webapp.fields import Body, Line

# The pattern of HTML's <input type=email>: what a browser lets through, the API does too.
Email = Annotated[
    str,
    Field(
        max_length=254,
        pattern=(
            r"^[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
            r"(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$"
        ),
        examples=["ada@example.org"],
    ),
]


class RegisterBody(Body):
    email: Email
    password: str = Field(
        min_length=10, max_length=1000, description="At least 10 characters, not a common one"
    )
    name: Line = Field(max_length=100)


class LoginBody(Body):
    email: str = Field(max_length=254)
    password: str = Field(max_length=1000)


class RefreshBody(Body):
    refresh_token: str | None = Field(
        None, max_length=5000, description="May be sent here in place of the Authorization header"
    )


class UserOut(Out):
    id: int
    email: str
    name: str
    is_admin: bool
    created_at: UtcTime


class TokenPairOut(Out):
    access_token: str
    refresh_token: str
    token_type: Literal["bearer"]
    expires_in: int = Field(description="Life of the access token in seconds")


class TokenBody(Body):
    name: Line = Field(max_length=100, description="What it is for, to know it again")
    expires_in_days: int | None = Field(None, ge=1, le=3650, description="Null: it never expires")


class TokenOut(Out):
    id: int
    name: str
    created_at: UtcTime
    last_used_at: UtcTime | None
    expires_at: UtcTime | None


class NewTokenOut(TokenOut):
    token: str = Field(description="Shown this once; only its hash is kept")


class TokenPageOut(PageOut):
    items: list[TokenOut]
