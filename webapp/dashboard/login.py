"""The login form. It sets the cookies that the other pages and the API's calls from them need."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Response, current_app, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_limiter.util import get_remote_address
from werkzeug.exceptions import TooManyRequests

from webapp.dashboard import session
from webapp.dashboard.blueprint import blueprint, local_target
from webapp.extensions import limiter
from webapp.services import auth
from webapp.services.errors import Unauthorized

_HOST_FACTOR = 5  # people behind one address share its limit


def _account() -> str:
    return f"login:{request.form.get('email', '').lower()[:254]}"


def _host() -> str:
    return f"host:{get_remote_address()}"


def _account_limit() -> str:
    return str(current_app.config["LOGIN_LIMIT"])


def _host_limit() -> str:
    count, _, rest = _account_limit().partition(" ")
    return f"{int(count) * _HOST_FACTOR} {rest}"


def _failed(response: Response) -> bool:
    return response.status_code == 401


@blueprint.get("/login")
def login() -> ResponseReturnValue:
    """Show the form, or go on where there is a login already."""
    if session.user_or_none() is not None:
        return redirect(_target())
    return _form()


@blueprint.get("/session")
def keep_session() -> ResponseReturnValue:
    """Exchange the tokens where they are over; scripts ask when a call was answered with 401."""
    return "", 204


@blueprint.post("/login", endpoint="login")
@limiter.limit(_account_limit, key_func=_account, deduct_when=_failed)
@limiter.limit(_host_limit, key_func=_host, deduct_when=_failed)
def log_in() -> ResponseReturnValue:
    """Take the form. One that another site sent would log a person in as somebody else."""
    if not _from_this_site():
        return make_response(_form("This form was not sent from this site; try again"), 400)
    try:
        pair = auth.login(
            email=request.form.get("email", "")[:254],
            password=request.form.get("password", "")[:1000],
        )
    except Unauthorized as error:
        return make_response(_form(error.detail), 401)
    session.begin(pair)
    return redirect(_target(), 303)


@blueprint.errorhandler(TooManyRequests)
def _too_many(error: TooManyRequests) -> ResponseReturnValue:
    return make_response(_form("Too many failed attempts; wait a minute, then try again"), 429)


def _form(problem: str = "") -> str:
    return render_template(
        "dashboard/login.html",
        problem=problem,
        email=request.form.get("email", ""),
        next_url=request.values.get("next", ""),
    )


def _target() -> str:
    return local_target(request.values.get("next", ""), default=url_for("dashboard.projects"))


def _from_this_site() -> bool:
    """Tell whether the form is one of ours, as far as the browser says."""
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.host
