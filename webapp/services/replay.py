"""Events that were said and never arrived, taken from the file that has them all.

Redis may lose the last second before it dies, and a worker may die before it has published.
Either is seen as a gap in an attempt's sequence numbers, or by the reaper as an attempt without
an end. ``events.jsonl`` in the job's output folder is written before anything is published, so
the rest is recorded from there; where this host does not see the file, its worker is asked to
publish again, or what the store has of it is fetched (webapp.services.stored_files).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from adapters import wire
from adapters.contract import ContractError
from adapters.wire import JOURNAL_NAME, Event
from webapp.extensions import db
from webapp.models import Attempt
from webapp.services import stored_files
from webapp.services.broker import redis_client
from webapp.services.outputs import output_dir
from webapp.services.recorder import Recorded, record_or_set_aside

logger = logging.getLogger(__name__)

BATCH_EVENTS = 1000
REPLAY_TTL_SECONDS = 3600
_BEGINNING = re.compile(rb'"attempt":(\d+),"seq":1,')


def fill_gaps(recorded: Recorded) -> None:
    """Record what is missing, or have it published again; ``recorded`` gets what that asks for."""
    gaps, recorded.gaps = recorded.gaps, {}
    for (job_id, attempt), seq in gaps.items():
        filled = record_rest(job_id, attempt)
        recorded.add(filled)
        missing = _next_seq(job_id, attempt)
        if missing <= seq:
            logger.warning(
                "job %s attempt %s: event %s is missing here, its worker is asked for it",
                job_id, attempt, missing,
            )  # fmt: skip
            _ask_worker(job_id, attempt, seq=missing)


def record_rest(job_id: int, attempt: int) -> Recorded:
    """Record what the attempt's file has and the database has not; commits batch by batch."""
    recorded = Recorded()
    batch: list[Event] = []
    count = 0
    for event in _journal(job_id, attempt, first=_next_seq(job_id, attempt)):
        batch.append(event)
        count += 1
        if len(batch) == BATCH_EVENTS:
            recorded.add(record_or_set_aside(batch))
            batch = []
    if batch:
        recorded.add(record_or_set_aside(batch))
    if count:
        logger.warning(
            "job %s attempt %s: %s events were recorded from its file", job_id, attempt, count
        )
    return recorded


def attempts_in_file(job_id: int) -> list[int]:
    """Return the attempts that a job's files tell of, the first one first."""
    found = set()
    for path in _files(job_id):
        try:
            with path.open("rb") as file:
                for line in file:
                    if begun := _BEGINNING.search(line[:100]):
                        found.add(int(begun[1]))
        except OSError as error:
            logger.debug("a job's file is not to be had here: %s", error)
    return sorted(found)


def _files(job_id: int) -> list[Path]:
    """Return where a job's events may be: its own file, which is the newest, comes first."""
    return [output_dir(job_id) / JOURNAL_NAME, *stored_files.events_files(job_id)]


def _journal(job_id: int, attempt: int, *, first: int) -> Iterator[Event]:
    """Yield an attempt's events in their order, from a number on, as its file has them."""
    for path in _files(job_id):
        start = _beginning(path, attempt)
        if start is not None:
            yield from _events(path, start, job_id=job_id, attempt=attempt, first=first)
            return


def _events(path: Path, start: int, *, job_id: int, attempt: int, first: int) -> Iterator[Event]:
    wanted = first
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return  # being written, or cut short by the end of its worker
            try:
                event = Event.from_json(line)
            except ContractError:
                continue  # cut short by the end of an earlier worker
            if (event.job_id, event.attempt, event.seq) == (job_id, attempt, wanted):
                wanted += 1
                yield event


def _beginning(path: Path, attempt: int) -> int | None:
    """Return where an attempt's events begin; of one that was begun twice, the second time."""
    mark = b'"attempt":%d,"seq":1,' % attempt
    found, offset = None, 0
    try:
        with path.open("rb") as file:
            for line in file:
                if mark in line[:100]:
                    found = offset
                offset += len(line)
    except OSError as error:
        logger.info("the events of an attempt are not to be had here: %s", error)
    return found


def _next_seq(job_id: int, attempt: int) -> int:
    db.session.rollback()
    row = db.session.get(Attempt, (job_id, attempt), populate_existing=True)
    return 1 if row is None else row.last_seq + 1


def _ask_worker(job_id: int, attempt: int, *, seq: int) -> None:
    redis_client().set(wire.replay_key(job_id), f"{attempt}:{seq}", ex=REPLAY_TTL_SECONDS)
