"""Who makes a request: a bearer token, a personal token, or the dashboard's cookies.

Every call of the API needs one but those marked ``@public``; pages ask :func:`user_or_none`.
By cookies, what changes something must double-submit their CSRF value in X-CSRF-TOKEN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from flask import Flask, Response, current_app, g, request
from flask_jwt_extended import create_access_token, get_csrf_token, verify_jwt_in_request
from flask_jwt_extended.exceptions import CSRFError, JWTExtendedException
from jwt.exceptions import PyJWTError

from webapp.config import settings
from webapp.models import User
from webapp.services import auth, personal_tokens
from webapp.services.auth import TokenPair
from webapp.services.errors import Unauthorized

F = TypeVar("F", bound=Callable[..., Any])

API = "/api/v1/"


def init_app(app: Flask) -> None:
    app.before_request(_require_login)
    app.after_request(_renew_cookie)


def public(view: F) -> F:
    """Let everybody call a view of the API."""
    view.is_public = True  # type: ignore[attr-defined]
    return view


def current_user() -> User:
    """Return who makes this request. Raises Unauthorized."""
    if "user" not in g:
        g.user = _identify()
    user: User = g.user
    return user


def user_or_none() -> User | None:
    """Return who makes this request, or None; for pages that then show the login."""
    try:
        return current_user()
    except Unauthorized:
        return None


def actor() -> str:
    """Return who makes this request, as a job's history names them."""
    user = current_user()
    return f"user:{user.id} {user.email}"


def session_claims(*, refresh: bool = False) -> dict[str, Any]:
    """Return the verified claims of the request's JWT. Raises Unauthorized where it has none."""
    location = "headers" if "Authorization" in request.headers else "cookies"
    try:
        verified = verify_jwt_in_request(refresh=refresh, locations=[location])
    except CSRFError:
        raise Unauthorized("The header X-CSRF-TOKEN is missing or wrong") from None
    except (JWTExtendedException, PyJWTError):
        raise Unauthorized(auth.NOT_LOGGED_IN) from None
    # None: the library lets OPTIONS through. A token of another kind has no session.
    if verified is None or "sid" not in verified[1]:
        raise Unauthorized(auth.NOT_LOGGED_IN)
    claims: dict[str, Any] = verified[1]
    return claims


def set_login_cookies(response: Response, pair: TokenPair) -> None:
    """Log a browser in: tokens that scripts cannot read, and the CSRF values that they must."""
    _set_cookie(response, "ACCESS", pair.access_token)
    _set_cookie(response, "REFRESH", pair.refresh_token)


def clear_login_cookies(response: Response) -> None:
    for kind in ("ACCESS", "REFRESH"):
        response.delete_cookie(current_app.config[f"JWT_{kind}_COOKIE_NAME"])
        response.delete_cookie(current_app.config[f"JWT_{kind}_CSRF_COOKIE_NAME"])


def _require_login() -> None:
    if not request.path.startswith(API) or request.endpoint is None:
        return
    view = current_app.view_functions[request.endpoint]
    if not getattr(view, "is_public", False) and request.method != "OPTIONS":
        current_user()


def _identify() -> User:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip().startswith(personal_tokens.PREFIX):
        user = personal_tokens.owner(token.strip())
    else:
        user = auth.user_of_session(_claims()["sid"])
    if user is None:
        raise Unauthorized(auth.NOT_LOGGED_IN)
    return user


def _claims() -> dict[str, Any]:
    """Return the access token's claims; a browser whose token ran out goes on with a new one.

    The new one comes only with an answer to reading: what changes something needs the
    double-submitted value of a live token, and its script reads once and tries again.
    """
    try:
        return session_claims()
    except Unauthorized:
        if "Authorization" in request.headers or request.method not in ("GET", "HEAD"):
            raise
        claims = session_claims(refresh=True)
    g.renewed_access_token = create_access_token(
        identity=claims["sub"], additional_claims={"sid": claims["sid"]}
    )
    return claims


def _renew_cookie(response: Response) -> Response:
    if "renewed_access_token" in g and "user" in g:
        _set_cookie(response, "ACCESS", g.renewed_access_token)
    return response


def _set_cookie(response: Response, kind: str, token: str) -> None:
    config = current_app.config
    # The cookie stays as long as a login may; the token in it says when it really ends.
    common: dict[str, Any] = {
        "max_age": settings().refresh_token_seconds,
        "secure": request.is_secure,
        "samesite": config["JWT_COOKIE_SAMESITE"],
    }
    response.set_cookie(config[f"JWT_{kind}_COOKIE_NAME"], token, httponly=True, **common)
    csrf = get_csrf_token(token)
    response.set_cookie(config[f"JWT_{kind}_CSRF_COOKIE_NAME"], csrf, **common)
