"""Who looks at a page: the login of a browser, kept in cookies that scripts cannot read."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, current_app, g, request
from flask_jwt_extended import decode_token, set_access_cookies, set_refresh_cookies
from flask_jwt_extended.exceptions import JWTExtendedException
from jwt.exceptions import PyJWTError

from webapp.models import User
from webapp.services import auth
from webapp.services.auth import TokenPair
from webapp.services.errors import Unauthorized


def init_app(app: Flask) -> None:
    app.after_request(_keep_cookies)


def begin(pair: TokenPair) -> None:
    """Let the answer to this request carry the tokens of a login."""
    g.token_pair = pair


def user_or_none() -> User | None:
    """Return whose browser asks, None where nobody is logged in.

    A refresh token is exchanged where the access token is over: the answer carries the new pair.
    Of two requests that do so at once one gets None, and finds a live login when it asks again.
    """
    if "page_user" not in g:
        claims = _claims("access") or _exchange()
        g.page_user = auth.user_of_session(claims["sid"]) if claims else None
    user: User | None = g.page_user
    return user


def _claims(kind: str) -> dict[str, Any] | None:
    """Return the claims of one of the two cookies, None where it is missing or over."""
    encoded = request.cookies.get(current_app.config[f"JWT_{kind.upper()}_COOKIE_NAME"])
    if not encoded:
        return None
    try:
        claims: dict[str, Any] = decode_token(encoded)
    except (JWTExtendedException, PyJWTError):
        return None
    return claims if claims.get("type") == kind and "sid" in claims else None


def _exchange() -> dict[str, Any] | None:
    claims = _claims("refresh")
    if claims is None:
        return None
    try:
        begin(auth.refresh(claims))
    except Unauthorized:
        return None
    return claims


def _keep_cookies(response: Response) -> Response:
    pair: TokenPair | None = g.get("token_pair")
    if pair is not None:
        set_access_cookies(response, pair.access_token)
        set_refresh_cookies(response, pair.refresh_token)
        response.headers["Cache-Control"] = "no-store"
    return response
