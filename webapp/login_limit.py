"""How often a login may fail, by the API and by the page together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from flask import Response, current_app
from flask_limiter.util import get_remote_address
from limits import parse_many

from modelyard.settings import SettingsError
from webapp.extensions import limiter

F = TypeVar("F", bound=Callable[..., Any])

_HOST_FACTOR = 5  # people behind one network address share its limit, so it is wider


def check_limit(text: str) -> str:
    """Return a setting's text. Raises SettingsError where it is no limit."""
    try:
        parse_many(text)
    except ValueError:
        raise SettingsError(
            f"MODELYARD_LOGIN_LIMIT is '{text}' but must be like '10 per minute'"
        ) from None
    return text


def limit_failed_logins(email: Callable[[], str]) -> Callable[[F], F]:
    """Answer 429 after repeated failures for one account, or from one host.

    ``email`` reads from the request which account is tried. A failure is an answer of 401.
    """

    def decorate(view: F) -> F:
        limited: Any = view
        for limit, key in ((_account_limit, lambda: _key(email())), (_host_limit, _host)):
            share = limiter.shared_limit(limit, scope="login", key_func=key, deduct_when=_failed)
            limited = share(limited)
        return cast("F", limited)

    return decorate


def _key(email: str) -> str:
    return f"account:{email.lower()[:254]}"


def _host() -> str:
    return f"host:{get_remote_address()}"


def _account_limit() -> str:
    return str(current_app.config["LOGIN_LIMIT"])


def _host_limit() -> str:
    limits = parse_many(_account_limit())
    return ";".join(
        f"{limit.amount * _HOST_FACTOR} per {limit.multiples} {limit.GRANULARITY.name}"
        for limit in limits
    )


def _failed(response: Response) -> bool:
    return response.status_code == 401
