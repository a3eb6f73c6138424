"""The blueprint of all pages: who may see them, what every template knows, how refusals look."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from webapp.api.authentication import user_or_none
from webapp.config import settings
from webapp.services.errors import ServiceError, Unauthorized

blueprint = Blueprint(
    "dashboard",
    __name__,
    template_folder="templates",
    static_folder="static",
    static_url_path="/static/dashboard",
)

_OPEN = frozenset({"dashboard.login", "dashboard.log_in", "dashboard.static"})


@blueprint.before_request
def _require_login() -> ResponseReturnValue | None:
    if request.endpoint in _OPEN or user_or_none() is not None:
        return None
    if _wants_part():
        return _refuse(Unauthorized("Log in again"))
    here = request.full_path.rstrip("?")
    return redirect(url_for("dashboard.login", next=None if here == "/" else here))


@blueprint.context_processor
def _known_to_templates() -> dict[str, Any]:
    return {"user": user_or_none(), "flower_url": settings().flower_url, "section": "projects"}


@blueprint.errorhandler(ServiceError)
def _refuse(error: ServiceError) -> ResponseReturnValue:
    page = render_template("dashboard/error.html", title=error.title, detail=error.detail)
    return make_response(page, error.status)


def local_target(url: str, *, default: str) -> str:
    """Return where to go after the login: a path of this site, whatever was asked for."""
    parts = urlsplit(url)
    outside = parts.scheme or parts.netloc or not url.startswith("/") or url.startswith("//")
    return default if outside or "\\" in url else url


def _wants_part() -> bool:
    """Tell whether a script asks for a part of a page, and cannot follow to the login."""
    return request.headers.get("Sec-Fetch-Mode") not in (None, "navigate")
