"""How numbers and times read in templates; the same forms as ``static/js/format.js``."""

from __future__ import annotations

from datetime import datetime

from flask import Flask

from adapters.wire import format_time, parse_time
from modelyard.counting import counted
from modelyard.disk import readable
from webapp.models import Attempt
from webapp.models.columns import utc_now

MISSING = "–"
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def init_app(app: Flask) -> None:
    """Offer the forms as template filters."""
    for form in (actor, ago, duration, full_time, iso, number, percent, took, words):
        app.jinja_env.filters[form.__name__] = form
    app.jinja_env.filters["size"] = readable
    app.jinja_env.filters["counted"] = counted


def iso(time: datetime | str) -> str:
    """Return a time as the API writes it."""
    return time if isinstance(time, str) else format_time(time)


def full_time(time: datetime | str) -> str:
    """Return a time in full, for a title."""
    return _aware(time).strftime("%Y-%m-%d %H:%M:%S UTC")


def ago(time: datetime | str, now: datetime | None = None) -> str:
    """Return how long ago a time was."""
    seconds = round(((now or utc_now()) - _aware(time)).total_seconds())
    if seconds < 5:
        return "just now"
    if seconds < _MINUTE:
        return f"{seconds} s ago"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE} min ago"
    if seconds < _DAY:
        return f"{seconds // _HOUR} h ago"
    return f"{seconds // _DAY} d ago"


def duration(seconds: float | None) -> str:
    """Return a length of time in its two largest units."""
    if seconds is None:
        return MISSING
    whole = max(0, round(seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def percent(fraction: float | None) -> str:
    """Return a fraction in percent; zero is a value, None is missing."""
    return MISSING if fraction is None else f"{100 * fraction:.1f} %"


def number(value: float | None) -> str:
    """Return a number to four significant digits."""
    if value is None:
        return MISSING
    size = abs(value)
    if size != 0 and (size < 0.001 or size >= 1e6):
        return _exponential(value)
    return f"{float(f'{value:.4g}'):.10g}"


def words(name: str) -> str:
    """Return 'Image classification' for 'image_classification'."""
    return name.replace("_", " ").capitalize()


def actor(text: str) -> str:
    """Return who changed a status: the address of 'user:3 a@b.c', 'worker gpu1', 'reaper'."""
    kind, _, rest = text.partition(":")
    if kind == "user":
        return rest.partition(" ")[2] or f"user {rest}"
    return f"{kind} {rest}".strip()


def took(attempt: Attempt) -> str:
    """Return how long an attempt took that started and ended."""
    assert attempt.started_at is not None
    assert attempt.ended_at is not None
    return duration((attempt.ended_at - attempt.started_at).total_seconds())


def _aware(time: datetime | str) -> datetime:
    return parse_time(time) if isinstance(time, str) else time


def _exponential(value: float) -> str:
    """Return 1.00e-5 as JavaScript's toExponential writes it, where Python writes 1.00e-05."""
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    sign = exponent[0]
    return f"{mantissa}e{sign}{exponent[1:].lstrip('0')}"
