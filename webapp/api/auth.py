"""/api/v1/auth: registering, logging in and out, personal tokens."""

from __future__ import annotations

from typing import Any

from flask import request

from webapp.api.authentication import current_user, public, session_claims
from webapp.api.document import ANONYMOUS, problems, resource
from webapp.api.paths import TokenPath
from webapp.api.schemas.auth import (
    LoginBody,
    NewTokenOut,
    RefreshBody,
    RegisterBody,
    TokenBody,
    TokenOut,
    TokenPageOut,
    TokenPairOut,
    UserOut,
)
from webapp.api.schemas.base import PageQuery, dump, page
from webapp.login_limit import limit_failed_logins
from webapp.services import accounts, auth, personal_tokens

blueprint = resource("auth", title="Auth")

Answer = tuple[dict[str, Any], int]


def _email() -> str:
    body = request.get_json(silent=True)
    return str(body.get("email", "")) if isinstance(body, dict) else ""


@blueprint.post(
    "/register",
    security=ANONYMOUS,
    responses={201: UserOut, **problems(403, 409, 422)},
)
@public
def register(body: RegisterBody) -> Answer:
    """Create an account"""
    user = accounts.register(email=body.email, password=body.password, name=body.name)
    return dump(UserOut, user), 201


@blueprint.post("/login", security=ANONYMOUS, responses={200: TokenPairOut, **problems(401, 429)})
@limit_failed_logins(_email)
@public
def login(body: LoginBody) -> Answer:
    """Log in with address and password"""
    return dump(TokenPairOut, auth.login(email=body.email, password=body.password)), 200


@blueprint.post("/refresh", responses={200: TokenPairOut, **problems(401)})
@public
def refresh(body: RefreshBody) -> Answer:
    """Exchange a refresh token, sent as the bearer token or in the body, for a new pair"""
    if body.refresh_token is None:
        claims = session_claims(refresh=True)
    else:
        claims = auth.refresh_claims(body.refresh_token)
    return dump(TokenPairOut, auth.refresh(claims)), 200


@blueprint.post("/logout", responses={204: None, **problems(401)})
def logout() -> tuple[str, int]:
    """End the session: its access and its refresh token are dead at once"""
    auth.logout(session_claims()["sid"])
    return "", 204


@blueprint.get("/me", responses={200: UserOut})
def me() -> Answer:
    """Tell who you are"""
    return dump(UserOut, current_user()), 200


@blueprint.get("/tokens", responses={200: TokenPageOut})
def tokens(query: PageQuery) -> Answer:
    """List your personal tokens"""
    found = personal_tokens.list_tokens(current_user(), limit=query.limit, cursor=query.cursor)
    return page(TokenOut, found), 200


@blueprint.post("/tokens", responses={201: NewTokenOut})
def create_token(body: TokenBody) -> Answer:
    """Make a personal token; it is shown this once"""
    row, token = personal_tokens.create(
        current_user(), name=body.name, expires_in_days=body.expires_in_days
    )
    return {**dump(TokenOut, row), "token": token}, 201


@blueprint.delete("/tokens/<id:token_id>", responses={204: None})
def delete_token(path: TokenPath) -> tuple[str, int]:
    """End a personal token"""
    personal_tokens.remove(current_user(), path.token_id)
    return "", 204
