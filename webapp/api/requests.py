"""Bodies: JSON objects of modest size, or a clear refusal before any view is called.

What takes a file reads its body itself, see :mod:`webapp.api.multipart`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from flask import Flask, current_app, request
from flask.json.provider import DefaultJSONProvider
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from webapp.api.authentication import API
from webapp.services.errors import Invalid

F = TypeVar("F", bound=Callable[..., Any])

_METHODS_WITH_BODY = ("POST", "PUT", "PATCH")
_MAX_DEPTH = 20
_FORM_BYTES = 100_000  # of a form, beside its file


class StrictJson(DefaultJSONProvider):
    """JSON without NaN and Infinity, which are none, and with keys in the order they were put."""

    sort_keys = False

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        return super().loads(s, parse_constant=_refuse, parse_float=_number, **kwargs)


def reads_its_body(view: F) -> F:
    """Leave a request's body to a view of the API: it is no JSON, and may be very large."""
    view.reads_its_body = True  # type: ignore[attr-defined]
    return view


def takes_file(*, max_bytes: int) -> Callable[[F], F]:
    """Let a view take a form in place of JSON, with a file of modest size that memory can hold."""

    def mark(view: F) -> F:
        view.max_file_bytes = max_bytes  # type: ignore[attr-defined]
        return view

    return mark


def init_app(app: Flask) -> None:
    app.json = StrictJson(app)
    app.before_request(_check_body)


def _check_body() -> None:
    """Refuse a body that is too large, not JSON, or not an object."""
    if not request.path.startswith(API) or request.method not in _METHODS_WITH_BODY:
        return
    view = current_app.view_functions.get(request.endpoint or "")
    if getattr(view, "reads_its_body", False):
        return
    max_file_bytes: int | None = getattr(view, "max_file_bytes", None)
    if max_file_bytes is not None:
        request.max_content_length = max_file_bytes + _FORM_BYTES
    limit = request.max_content_length
    if limit is not None and (request.content_length or 0) > limit:
        raise RequestEntityTooLarge
    if max_file_bytes is not None:
        if request.content_length and request.mimetype != "multipart/form-data":
            raise UnsupportedMediaType
        return
    if not request.get_data(cache=True):
        return
    if request.mimetype != "application/json":
        raise UnsupportedMediaType
    try:
        body = request.get_json(silent=False)
        if _depth(body) > _MAX_DEPTH:
            raise Invalid({"body": ["The body is nested too deeply"]})
        json.dumps(body, ensure_ascii=False).encode()  # no half of a surrogate pair
    except Invalid:
        raise
    except Exception as error:
        raise Invalid({"body": ["The body is not valid JSON"]}) from error
    if not isinstance(body, dict):
        raise Invalid({"body": ["The body must be a JSON object"]})


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _number(text: str) -> float | int:
    """Read a number with a point or an exponent; 3.0 is the integer 3, as JSON Schema has it."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    whole = number.is_integer() and abs(number) <= 2**53
    return int(number) if whole else number


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((_depth(item) for item in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((_depth(item) for item in value), default=0)
    return 0
