"""What lies in the store and is of nothing: found by listing it, which only `modelyard gc` does."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import select

from modelyard.storage import Entry, ObjectDamaged, ObjectMissing, Store, open_store
from modelyard.stored_outputs import Index, StoredFile, StoredOutputs
from webapp.config import settings
from webapp.extensions import db
from webapp.models import DatasetCopy, Job
from webapp.services.deletion import ACTIVE

logger = logging.getLogger(__name__)


@dataclass
class Objects:
    """Objects that go together."""

    size: int = 0  # bytes
    newest: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    entries: list[Entry] = field(default_factory=list)

    def add(self, entry: Entry) -> None:
        self.size += entry.size
        self.newest = max(self.newest, entry.modified or datetime.now(UTC))  # not told: just now
        self.entries.append(entry)


def of_no_job(*, last_id: int, idle: timedelta) -> Iterator[tuple[str, Objects]]:
    """Yield the prefixes of jobs that the database does not know, but once had.

    And those of data sets' copies that it does not know. Only where nothing was added for a
    while. Raises StorageError.
    """
    jobs = {f"jobs/{id}/" for id in db.session.scalars(select(Job.id))}
    copies = {f"datasets/{name}/" for name in db.session.scalars(select(DatasetCopy.fingerprint))}
    db.session.rollback()
    before = datetime.now(UTC) - idle
    for top, known in (("jobs", jobs), ("datasets", copies)):
        for prefix, found in _by_prefix(top).items():
            number = prefix.split("/")[1]
            is_job = number.isdecimal() and int(number) <= last_id
            if prefix not in known and found.newest < before and (is_job or top == "datasets"):
                yield prefix, found


def of_no_index(*, idle: timedelta) -> Iterator[tuple[str, Objects]]:
    """Yield what torn uploads of ended jobs have left: objects that no index names."""
    ended = select(Job.id).where(Job.status.not_in(ACTIVE), Job.deleted_at.is_(None))
    ids = set(db.session.scalars(ended))
    db.session.rollback()
    before = datetime.now(UTC) - idle
    for prefix, objects in _by_prefix("jobs").items():
        number = prefix.split("/")[1]
        if not number.isdecimal() or int(number) not in ids:
            continue
        try:
            named = _named(StoredOutputs(_store(), int(number)))
        except (ObjectMissing, ObjectDamaged) as error:
            logger.warning("%s is left as it is: %s", prefix, error)
            continue
        loose = Objects()
        for entry in objects.entries:
            if "/objects/" in entry.key and entry.key not in named:
                loose.add(entry)
        if loose.entries and loose.newest < before:
            yield prefix, loose


def delete(objects: Objects) -> None:
    """Remove objects. Raises StorageError."""
    store = _store()
    for entry in objects.entries:
        store.delete(entry.key)


def delete_last(job_id: int) -> None:
    """Remove a job's `last` from its indexes, and then its objects. Raises StorageError."""
    outputs = StoredOutputs(_store(), job_id)
    for attempt in outputs.attempts():
        files = _without_last(outputs.index(attempt).files)
        outputs.write(Index(files, attempt))
        outputs.drop_objects(
            outputs.attempt_prefix(attempt), keep=[file.key for file in files.values()]
        )


def _without_last(files: Mapping[str, StoredFile]) -> dict[str, StoredFile]:
    return {name: file for name, file in files.items() if not _is_last(name)}


def _is_last(name: str) -> bool:
    folder, _, rest = name.partition("/")
    return folder == "checkpoints" and rest.partition("/")[0].partition(".")[0] == "last"


def _named(outputs: StoredOutputs) -> set[str]:
    """Return the objects that a job's indexes name. Raises StorageError."""
    files = list(outputs.exports().files.values())
    for attempt in outputs.attempts():
        files += outputs.index(attempt).files.values()
    return {file.key for file in files}


def _by_prefix(top: str) -> dict[str, Objects]:
    """Return what lies below each prefix of two parts, as 'jobs/7/'."""
    found: dict[str, Objects] = {}
    for entry in _store().list(f"{top}/"):
        parts = entry.key.split("/")
        if len(parts) > 2:
            found.setdefault(f"{parts[0]}/{parts[1]}/", Objects()).add(entry)
    return found


def _store() -> Store:
    url = settings().store
    assert url is not None
    return open_store(url)
