"""The rule of checkpoints: `best` is kept for as long as its job, `last` while it can be of use.

`last` is what a job goes on from. While a job is under way, it is never touched. When the job has
ended, it can be resumed for MODELYARD_KEEP_LAST_DAYS; then `last` is removed, the job says so when
it is resumed, and its event file, which nothing is appended to any more, is compressed.
"""

from __future__ import annotations

import gzip
import shutil
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import delete, or_, select, update

from adapters.files import write_atomically
from adapters.wire import JOURNAL_NAME
from webapp.config import settings
from webapp.extensions import db
from webapp.models import Artifact, Job, JobStatus, LastCheckpoint
from webapp.models.columns import utc_now
from webapp.services import event_log, store_objects, stored_files
from webapp.services.outputs import output_dir
from webapp.services.statements import affected

ENDED = tuple(status for status in JobStatus if status.ended)
_LAST = "last"  # `checkpoints/last`, a folder, or `checkpoints/last.*`: as adapters name it


def due() -> list[int]:
    """Return the jobs whose `last` is to go: past its days, or begun to be removed."""
    days = settings().keep_last_days
    past = Job.completed_at < utc_now() - timedelta(days=days)
    kept_for_ever = days == 0
    begun = Job.last_checkpoint == LastCheckpoint.REMOVING
    statement = select(Job.id).where(
        Job.status.in_(ENDED),
        Job.deleted_at.is_(None),
        begun if kept_for_ever else or_(begun, (Job.last_checkpoint == LastCheckpoint.KEPT) & past),
    )
    return list(db.session.scalars(statement.order_by(Job.id)))


def files(job_id: int) -> list[Path]:
    """Return what a job's `last` consists of on this host."""
    folder = output_dir(job_id) / "checkpoints"
    return [*folder.glob(_LAST), *folder.glob(f"{_LAST}.*")]


def remove(job_id: int) -> None:
    """Remove a job's `last` and compress its event file. Raises OSError, StorageError.

    From the first step on the job cannot be resumed; if this process dies after it, the next one
    goes on. A job that was resumed before is left alone.
    """
    if not _begin(job_id):
        return
    for path in files(job_id):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if stored_files.used():
        store_objects.delete_last(job_id)
    _compress(output_dir(job_id) / JOURNAL_NAME)
    name = Artifact.name
    of_last = or_(name.startswith("checkpoints/last."), name.startswith("checkpoints/last/"))
    affected(delete(Artifact).where(Artifact.job_id == job_id, of_last))
    _set(job_id, LastCheckpoint.GONE, only_from=LastCheckpoint.REMOVING)
    db.session.commit()


def _begin(job_id: int) -> bool:
    event_log.lock_order(db.session())  # a resume comes before, or is refused
    _set(job_id, LastCheckpoint.REMOVING, only_from=LastCheckpoint.KEPT)
    now = db.session.scalar(
        select(Job.last_checkpoint).where(Job.id == job_id, Job.status.in_(ENDED))
    )
    db.session.commit()
    return now == LastCheckpoint.REMOVING


def _set(job_id: int, to: LastCheckpoint, *, only_from: LastCheckpoint) -> None:
    affected(
        update(Job)
        .where(Job.id == job_id, Job.status.in_(ENDED), Job.last_checkpoint == only_from)
        .values(last_checkpoint=to)
    )


def _compress(journal: Path) -> None:
    """Replace an event file by one a tenth as large; it is read again by people only."""
    if not journal.is_file():
        return

    def write(stream: BinaryIO) -> None:
        with journal.open("rb") as plain, gzip.open(stream, "wb") as packed:
            shutil.copyfileobj(plain, packed)

    write_atomically(journal.with_name(f"{journal.name}.gz"), write)
    journal.unlink()
