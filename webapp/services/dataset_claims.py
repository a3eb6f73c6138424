"""Who packs which data set: claims that lapse, so that one that is killed is followed by another.

Of several packers, on several hosts, one has the claim to a data set. What two do all the same,
where one was stopped and woken, are the same objects, for their names follow from their content.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, or_, select, update
from sqlalchemy.orm import Session

from adapters.contract import ErrorKind
from webapp.extensions import db
from webapp.models import CopyStatus, Dataset, DatasetCopy, Job, JobStatus
from webapp.models.columns import utc_now
from webapp.services import event_log
from webapp.services.job_actions import close_attempt
from webapp.services.lifecycle import transition
from webapp.services.statements import affected

SILENT = timedelta(seconds=30)  # after which a claim lapses
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 2.0, 300.0
_NEEDING = (JobStatus.PENDING, JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.CANCELLING)

C = CopyStatus


def anything_to_do() -> bool:
    """Tell whether a packer would find work now."""
    return (
        db.session.scalar(select(DatasetCopy.fingerprint).where(_claimable()).limit(1)) is not None
    )


def claim(packer: str) -> DatasetCopy | None:
    """Return a copy that is now this packer's to make or to remove, and commit."""
    statement = select(DatasetCopy).where(_claimable()).order_by(DatasetCopy.updated_at)
    for copy in list(db.session.scalars(statement)):
        removing = copy.status == C.REMOVING
        taken = affected(
            update(DatasetCopy)
            .where(
                DatasetCopy.fingerprint == copy.fingerprint,
                DatasetCopy.status == copy.status,
                DatasetCopy.updated_at == copy.updated_at,
            )
            .values(
                status=C.REMOVING if removing else C.PACKING,
                packer=packer, updated_at=utc_now(), done=0, total=None,
            )
        )  # fmt: skip
        db.session.commit()
        if taken:
            return db.session.get(DatasetCopy, copy.fingerprint, populate_existing=True)
    return None


def tell(session: Session, fingerprint: str, packer: str, **values: Any) -> bool:
    """Write how far a packer is; False where the claim is not (any more) its own.

    A ``status`` among the values ends the claim.
    """
    if "status" in values:
        values["packer"] = None
    return bool(
        affected(
            update(DatasetCopy)
            .where(DatasetCopy.fingerprint == fingerprint, DatasetCopy.packer == packer)
            .where(DatasetCopy.status.in_((C.PACKING, C.REMOVING)))
            .values(updated_at=utc_now(), **values),
            session=session,
        )
    )


def stored(fingerprint: str, packer: str, *, size: int) -> list[Job]:
    """Note that a copy is whole, commit, and return the jobs that waited for it."""
    done = tell(
        db.session(), fingerprint, packer, status=C.STORED, size=size, damaged=False,
        error=None, tries=0, try_at=None,
    )  # fmt: skip
    db.session.commit()
    return _queued(fingerprint) if done else []


def postpone(fingerprint: str, packer: str, *, error: str | None, tries: int) -> None:
    """Give a copy back, to be tried again: at once where nothing went wrong; commits."""
    pause = min(_FIRST_PAUSE_SECONDS * 2**tries, _LONGEST_PAUSE_SECONDS)
    try_at = utc_now() + timedelta(seconds=pause) if error else None
    tell(
        db.session(), fingerprint, packer, status=C.WANTED, error=error,
        tries=tries, try_at=try_at,
    )  # fmt: skip
    db.session.commit()


def give_up(fingerprint: str, packer: str, *, error: str) -> None:
    """Note that a copy cannot be made, fail the jobs that wait for it, and commit."""
    session = db.session()
    event_log.lock_order(session)
    if tell(session, fingerprint, packer, status=C.FAILED, error=error):
        for job in _queued(fingerprint):
            _fail(session, job, error)
    session.commit()


def forget_unused() -> None:
    """Have those copies removed that no data set and no job under way needs; commits."""
    of_datasets = select(Dataset.id).where(Dataset.fingerprint == DatasetCopy.fingerprint)
    of_jobs = select(Job.id).where(
        Job.dataset_fingerprint == DatasetCopy.fingerprint, Job.status.in_(_NEEDING)
    )
    affected(
        update(DatasetCopy)
        .where(DatasetCopy.status.in_((C.STORED, C.FAILED)))
        .where(~of_datasets.exists(), ~of_jobs.exists())
        # Not in use a moment ago either: who has just looked at it may be about to register it.
        .where(DatasetCopy.updated_at < utc_now() - SILENT)
        .values(status=C.REMOVING)
    )
    db.session.commit()


def removed(fingerprint: str, packer: str) -> None:
    """Forget a copy whose objects are gone, and commit."""
    affected(
        delete(DatasetCopy).where(
            DatasetCopy.fingerprint == fingerprint,
            DatasetCopy.status == C.REMOVING,
            DatasetCopy.packer == packer,
        )
    )
    db.session.commit()


def paths_of(copy: DatasetCopy) -> list[str]:
    """Return where the content was seen, the likeliest first."""
    statement = select(Dataset.path).where(Dataset.fingerprint == copy.fingerprint)
    return list(dict.fromkeys([copy.path, *db.session.scalars(statement)]))


def _claimable() -> ColumnElement[bool]:
    now = utc_now()
    due = or_(DatasetCopy.try_at.is_(None), DatasetCopy.try_at <= now)
    silent = DatasetCopy.updated_at < now - SILENT
    return or_(
        and_(DatasetCopy.status == C.WANTED, due),
        and_(DatasetCopy.status.in_((C.PACKING, C.REMOVING)), silent),
    )


def _fail(session: Session, job: Job, reason: str) -> None:
    error = {
        "kind": str(ErrorKind.DATASET_INVALID),
        "message": f"Its data set cannot be put into the store: {reason}",
        "hint": "Validate the data set again, then resume the job; clone it where it has begun "
        "or names its folder itself.",
    }
    close_attempt(session, job, outcome="not_sent", reason=error["message"])
    transition(
        session, job, to=JobStatus.FAILED, only_from=frozenset({JobStatus.QUEUED}),
        actor="packer", reason=error["message"], error=error, completed_at=utc_now(),
    )  # fmt: skip


def _queued(fingerprint: str) -> list[Job]:
    statement = (
        select(Job)
        .where(Job.dataset_fingerprint == fingerprint, Job.status == JobStatus.QUEUED)
        .order_by(Job.priority.desc(), Job.queued_at, Job.id)
    )
    return list(db.session.scalars(statement, execution_options={"populate_existing": True}))
