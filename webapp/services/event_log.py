"""The events that browsers are told: appended in the transaction of what they tell of.

A status and its event are stored together or not at all, in every execution mode, and the ids
are a total order that outlives Redis. See docs/architecture.md for why the browser is not fed
from the Redis stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, literal_column, text
from sqlalchemy.orm import Session

from webapp.models import JobEvent

_ORDER_LOCK = 0x6D6F646C  # any constant: the one advisory lock of the event log
# Who holds it and asks for nothing more for so long has been stopped, or its host is gone: the
# database would keep it for hours, and nobody could start, cancel or record anything.
FROZEN_SECONDS = 30

# Written out, not bound: SQLite must see that the partial index ix_job_events_progress fits.
IS_PROGRESS = JobEvent.type == literal_column("'progress'")


def lock_order(session: Session) -> None:
    """Let one transaction at a time change jobs and append events; call before the first read.

    Without it, ids would become visible out of their order (PostgreSQL hands them out before
    the commit: a reader could see 11, go on from there, and miss 10), and what was read before
    a change could be stale.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(
            text(
                "SELECT pg_advisory_xact_lock(:key), "
                "set_config('idle_in_transaction_session_timeout', :limit, true)"
            ),
            {"key": _ORDER_LOCK, "limit": f"{FROZEN_SECONDS}s"},
        )
    else:
        # SQLite has one writer at a time: this takes the role, and changes nothing.
        session.execute(text("UPDATE job_events SET id = id WHERE 0"))


def append(
    session: Session,
    *,
    job_id: int,
    project_id: int,
    attempt: int,
    type: str,
    time: datetime,
    data: Mapping[str, Any],
    log_start: int | None = None,
) -> None:
    """Add an event. The caller has called :func:`lock_order` and commits."""
    session.add(
        JobEvent(
            job_id=job_id,
            project_id=project_id,
            attempt=attempt,
            type=type,
            time=time,
            data=dict(data),
            log_start=log_start,
        )
    )


def drop_superseded_progress(session: Session, job_ids: Sequence[int]) -> None:
    """Forget these jobs' progress events; the newest is appended after this."""
    session.execute(delete(JobEvent).where(JobEvent.job_id.in_(job_ids), IS_PROGRESS))


def drop_superseded_load(session: Session, job_ids: Sequence[int]) -> None:
    """Forget these jobs' load events; the table load_samples has them all."""
    is_load = JobEvent.type == literal_column("'load'")  # as above: ix_job_events_load
    session.execute(delete(JobEvent).where(JobEvent.job_id.in_(job_ids), is_load))
