"""A job's log, put together from the pieces that were recorded; offsets are bytes of UTF-8."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select

from webapp.extensions import db
from webapp.models import Attempt, Job, JobEvent
from webapp.services.errors import NotFound

MAX_BYTES = 1024 * 1024  # of one answer; the next begins at its next_offset
_ROWS_AT_ONCE = 200
_CONTINUATION = bytes(range(0x80, 0xC0))  # what no character of UTF-8 begins with


@dataclass(frozen=True)
class LogText:
    text: bytes
    next_offset: int


def read(
    job: Job, *, attempt: int | None = None, offset: int = 0, tail: int | None = None
) -> LogText:
    """Return an attempt's log (default: the present one's) from a byte on, or its last lines.

    Raises NotFound where there was no such attempt.
    """
    number = job.attempt if attempt is None else attempt
    if number == 0:
        return LogText(b"", 0)
    if db.session.get(Attempt, (job.id, number)) is None:
        raise NotFound(f"Job {job.id} has no attempt {number}")
    if tail is not None:
        return _tail(job.id, number, lines=tail)
    return _from(job.id, number, offset)


def _from(job_id: int, attempt: int, offset: int) -> LogText:
    first = db.session.scalar(
        select(func.max(JobEvent.id)).where(*_pieces(job_id, attempt), JobEvent.log_start <= offset)
    )
    text = b""
    start = offset
    while first is not None and len(text) < MAX_BYTES:
        rows = db.session.execute(
            select(JobEvent.id, JobEvent.log_start, JobEvent.data)
            .where(*_pieces(job_id, attempt), JobEvent.id >= first)
            .order_by(JobEvent.id)
            .limit(_ROWS_AT_ONCE)
        ).all()
        for _, log_start, data in rows:
            piece = data["text"].encode()
            text += piece[max(0, start - log_start) :]
            start = max(start, log_start + len(piece))
        first = rows[-1].id + 1 if len(rows) == _ROWS_AT_ONCE else None
    if len(text) > MAX_BYTES:
        text = _without_half_a_character(text[:MAX_BYTES])
    return LogText(text, offset + len(text))


def _tail(job_id: int, attempt: int, *, lines: int) -> LogText:
    if lines == 0:
        size = db.session.scalar(
            select(Attempt.log_size).where(Attempt.job_id == job_id, Attempt.number == attempt)
        )
        return LogText(b"", size or 0)
    pieces: list[bytes] = []
    end, size, newlines = 0, 0, 0
    before: int | None = None
    while newlines <= lines and size < MAX_BYTES:
        query = select(JobEvent.id, JobEvent.log_start, JobEvent.data).where(
            *_pieces(job_id, attempt)
        )
        if before is not None:
            query = query.where(JobEvent.id < before)
        rows = db.session.execute(query.order_by(JobEvent.id.desc()).limit(_ROWS_AT_ONCE)).all()
        for row in rows:
            piece = row.data["text"].encode()
            end = end or row.log_start + len(piece)
            pieces.append(piece)
            size += len(piece)
            newlines += piece.count(b"\n")
        if len(rows) < _ROWS_AT_ONCE:
            break
        before = rows[-1].id
    text = _last_lines(b"".join(reversed(pieces)), lines)
    if len(text) > MAX_BYTES:
        text = text[-MAX_BYTES:].lstrip(_CONTINUATION)
    return LogText(text, end)


def _pieces(job_id: int, attempt: int) -> list[ColumnElement[bool]]:
    return [
        JobEvent.job_id == job_id,
        JobEvent.attempt == attempt,
        JobEvent.type == "log",
    ]


def _last_lines(text: bytes, lines: int) -> bytes:
    end = len(text) - 1 if text.endswith(b"\n") else len(text)
    for _ in range(lines):
        end = text.rfind(b"\n", 0, end)
        if end < 0:
            return text
    return text[end + 1 :]


def _without_half_a_character(text: bytes) -> bytes:
    """Cut off a character that was cut through: its first byte says how long it is."""
    whole = text.rstrip(_CONTINUATION)
    if whole == text and whole[-1] < 0x80:
        return text
    first = whole[-1]
    width = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    return text if len(text) - len(whole) + 1 == width else whole[:-1]
