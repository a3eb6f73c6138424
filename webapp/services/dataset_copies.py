"""The copies of data sets in the store, for workers that do not see their folders.

A queued job is put on the broker's queue once its data set lies in the store: until then the gate
(:func:`at_hand`) holds its message back, and no worker knows of it. The recorder starts a process
that packs what is wanted: see webapp.packer and webapp.services.dataset_claims.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from adapters.data.unpack import in_words as size_in_words
from webapp.config import settings
from webapp.extensions import db
from webapp.models import CopyStatus, Dataset, DatasetCopy, Job
from webapp.models.columns import utc_now
from webapp.services import broker
from webapp.services.statements import affected

logger = logging.getLogger(__name__)

C = CopyStatus


def needed() -> bool:
    """Tell whether data sets are copied: where a store is set and workers are elsewhere."""
    return bool(settings().store) and broker.uses_broker()


def want(dataset: Dataset) -> None:
    """Ask for the copy of a data set that was just looked at, and commit."""
    if needed() and dataset.status == "valid":
        _want(_of_dataset(dataset))
        db.session.commit()


def at_hand(job: Job) -> bool:
    """Tell whether a job may be sent, and ask for its data set's copy where it may not; commits."""
    if not needed():
        return True
    copy = _copy(job.dataset_fingerprint)
    if copy is None or copy.status != C.STORED:
        _want(_wanted_for(job))
        db.session.commit()
        copy = _copy(job.dataset_fingerprint)
    stored = copy is not None and copy.status == C.STORED
    db.session.commit()
    return stored


def is_held_back() -> ColumnElement[bool]:
    """Return the condition that a job's copy is being made, and that it is sent right after it.

    To ask for the copy (:func:`at_hand`) would change nothing.
    """
    being_made = select(DatasetCopy.fingerprint).where(
        DatasetCopy.fingerprint == Job.dataset_fingerprint,
        DatasetCopy.status.in_((C.WANTED, C.PACKING)),
    )
    to_follow = select(Dataset.id).where(
        Dataset.id == Job.dataset_id,
        Dataset.status == "valid",
        Dataset.fingerprint != Job.dataset_fingerprint,
        Job.started_at.is_(None),
    )
    return and_(being_made.exists(), ~to_follow.exists())


def report_damage(session: Session, fingerprint: str) -> None:
    """Have a copy packed again that a worker found missing or torn; the caller commits."""
    values = {"status": C.WANTED, "damaged": True, "updated_at": utc_now()}
    statement = update(DatasetCopy).where(DatasetCopy.fingerprint == fingerprint)
    if affected(statement.where(DatasetCopy.status == C.STORED).values(values), session=session):
        logger.warning("the copy of data set %s is damaged and is packed again", fingerprint[:12])


def waiting_reasons(jobs: Sequence[Job]) -> dict[int, str]:
    """Return why jobs wait whose data set is not yet in the store, by their ids."""
    if not needed():
        return {}
    fingerprints = {job.dataset_fingerprint for job in jobs}
    statement = select(DatasetCopy).where(DatasetCopy.fingerprint.in_(fingerprints))
    copies = {copy.fingerprint: copy for copy in db.session.scalars(statement)}
    found = {job.id: copies.get(job.dataset_fingerprint) for job in jobs}
    return {
        id: _reason(copy) for id, copy in found.items() if copy is None or copy.status != C.STORED
    }


def in_words(dataset: Dataset) -> str | None:
    """Return how far a data set's copy is, for its page; None where none is made."""
    copy = _copy(dataset.fingerprint) if needed() else None
    if copy is None:
        return None
    if copy.status == C.STORED:
        return f"Yes, {size_in_words(copy.size or 0)}"
    if copy.status == C.PACKING:
        return f"Being put there, {_percent(copy)} %"
    return f"Not yet: {copy.error}" if copy.error else "Not yet"


def _percent(copy: DatasetCopy) -> int:
    return min(99, 100 * copy.done // copy.total) if copy.total else 0


def _want(wanted: dict[str, Any]) -> None:
    """Ask for a copy that is not there; one that could not be made is tried again."""
    anew = {"status": C.WANTED, "error": None, "tries": 0, "try_at": None, "updated_at": utc_now()}
    again = update(DatasetCopy).where(
        DatasetCopy.fingerprint == wanted["fingerprint"], DatasetCopy.status == C.FAILED
    )
    if not affected(again.values({**wanted, **anew})):
        dialect = db.session.get_bind().dialect.name
        insert: Any = (postgresql if dialect == "postgresql" else sqlite).insert(DatasetCopy)
        # Of two who ask at once, one does.
        values = {**wanted, **anew, "done": 0}
        db.session.execute(insert.values(values).on_conflict_do_nothing())


def _wanted(source: Dataset | Job, *, fingerprint: str, path: str, format: str) -> dict[str, Any]:
    return {
        "fingerprint": fingerprint,
        "path": path,
        "format": format,
        "task_type": source.task_type,
        "split_seed": source.split_seed,
        "val_share": source.val_share,
    }


def _of_dataset(dataset: Dataset) -> dict[str, Any]:
    return _wanted(
        dataset, fingerprint=dataset.fingerprint, path=dataset.path, format=dataset.format
    )


def _wanted_for(job: Job) -> dict[str, Any]:
    """Return what a job needs; one that never began follows its data set's newest check."""
    dataset = db.session.get(Dataset, job.dataset_id) if job.dataset_id is not None else None
    if dataset is not None and dataset.status == "valid":
        if dataset.fingerprint == job.dataset_fingerprint:
            return _of_dataset(dataset)
        if job.started_at is None:
            job.dataset_fingerprint = dataset.fingerprint
            return _of_dataset(dataset)
    return _wanted(
        job,
        fingerprint=job.dataset_fingerprint,
        path=job.dataset_path,
        format=job.dataset_format,
    )


def _copy(fingerprint: str) -> DatasetCopy | None:
    return db.session.get(DatasetCopy, fingerprint, populate_existing=True)


def _reason(copy: DatasetCopy | None) -> str:
    if copy is None:
        return "Its data set is about to be put into the store"
    if copy.error is not None and copy.status != C.PACKING:
        return f"Its data set could not be put into the store and is tried again: {copy.error}"
    if copy.status == C.PACKING:
        return f"Its data set is being put into the store ({_percent(copy)} %)"
    return "Its data set waits to be put into the store"
