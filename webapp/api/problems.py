"""Every error as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import logging
from typing import Any

from flask import Flask, Response, g, jsonify, make_response, request
from pydantic import ValidationError
from sqlalchemy.exc import InvalidRequestError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from webapp.extensions import db
from webapp.fields import field_errors
from webapp.services.errors import ServiceError, Unauthorized

logger = logging.getLogger(__name__)

_DETAILS = {
    404: "There is nothing at this address",
    405: "This address does not take the method {method}",
    413: "The body is larger than the API takes",
    415: "Send the body as application/json, a file as multipart/form-data",
    429: "Too many failed attempts; wait as long as Retry-After says",
}
_OWN_WORDS = (413, 415)  # where a view that takes a file has something else to say


def init_app(app: Flask) -> None:
    app.register_error_handler(ServiceError, _service_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(OperationalError, _database_error)
    app.register_error_handler(PoolTimeout, _database_error)
    app.register_error_handler(InvalidRequestError, _deleted_meanwhile)
    app.register_error_handler(Exception, _internal_error)


def problem(
    status: int, title: str, detail: str, errors: dict[str, list[str]] | None = None
) -> Response:
    """Return a problem as a response."""
    slug = title.lower().replace(" ", "-")
    body: dict[str, Any] = {
        "type": f"urn:modelyard:problem:{slug}",
        "title": title,
        "status": status,
        "detail": detail,
    }
    if errors is not None:
        body["errors"] = errors
    response = jsonify(body)
    response.status_code = status
    response.mimetype = "application/problem+json"
    return response


def invalid_input(error: ValidationError) -> Response:
    """Say which fields of a request are wrong, without repeating what was sent."""
    errors = field_errors(error)
    field, messages = next(iter(errors.items()))
    return problem(422, "Some fields are wrong", f"{field}: {messages[0]}", errors)


def _service_error(error: ServiceError) -> Response:
    db.session.rollback()
    response = problem(error.status, error.title, error.detail, getattr(error, "errors", None))
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _http_error(error: HTTPException) -> Response:
    if error.response is not None:  # an answer that was made elsewhere, with abort(response)
        return make_response(error.response)
    if not _is_api():
        return make_response(error.get_response())
    status = error.code or 500
    detail = _DETAILS.get(status, error.description or error.name).format(method=request.method)
    if status in _OWN_WORDS and error.description not in (None, type(error).description):
        detail = str(error.description)  # a view's own
    response = problem(status, error.name, detail)
    original = error.get_response()
    for name in ("Allow", "Retry-After"):
        if name in original.headers:
            response.headers[name] = original.headers[name]
    return response


def _database_error(error: Exception) -> Response:
    db.session.rollback()
    logger.error("request %s: the database does not answer", g.get("request_id"), exc_info=error)
    return problem(503, "Service unavailable", "The database does not answer; try again soon")


def _deleted_meanwhile(error: InvalidRequestError) -> Response:
    if "Could not refresh instance" not in str(error):
        return _internal_error(error)
    db.session.rollback()
    return problem(404, "Not found", "It was deleted meanwhile")


def _internal_error(error: Exception) -> Response:
    db.session.rollback()
    logger.error("request %s failed", g.get("request_id"), exc_info=error)
    detail = f"Something went wrong here, not with you; the log has it as {g.get('request_id')}"
    return problem(500, "Internal error", detail)


def _is_api() -> bool:
    return request.path.startswith("/api/")
