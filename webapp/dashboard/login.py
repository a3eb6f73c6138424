"""The login form. It sets the cookies that the other pages and the API's calls from them need."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import TooManyRequests

from webapp.api.authentication import set_login_cookies, user_or_none
from webapp.dashboard.blueprint import blueprint, local_target
from webapp.login_limit import limit_failed_logins
from webapp.services import auth
from webapp.services.errors import Unauthorized


def _email() -> str:
    return request.form.get("email", "")[:254]


@blueprint.get("/login")
def login() -> ResponseReturnValue:
    """Show the form, or go on where there is a login already."""
    if user_or_none() is not None:
        return redirect(_target())
    return _form()


@blueprint.post("/login")
@limit_failed_logins(_email)
def log_in() -> ResponseReturnValue:
    """Take the form. One that another site sent would log a person in as somebody else."""
    if not _from_this_site():
        return make_response(_form("This form was not sent from this site; try again"), 400)
    try:
        pair = auth.login(email=_email(), password=request.form.get("password", "")[:1000])
    except Unauthorized as error:
        return make_response(_form(error.detail), 401)
    response = make_response(redirect(_target(), 303))
    set_login_cookies(response, pair)
    return response


@blueprint.errorhandler(TooManyRequests)
def _too_many(error: TooManyRequests) -> ResponseReturnValue:
    return make_response(_form("Too many failed attempts; wait a minute, then try again"), 429)


def _form(problem: str = "") -> str:
    return render_template(
        "dashboard/login.html",
        problem=problem,
        email=_email(),
        next_url=request.values.get("next", ""),
    )


def _target() -> str:
    return local_target(request.values.get("next", ""), default=url_for("dashboard.projects"))


def _from_this_site() -> bool:
    """Tell whether the form is one of ours, as far as the browser says."""
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.host
