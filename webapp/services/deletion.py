"""Deleted jobs and projects: out of everybody's sight at once, and then gone piece by piece.

A deletion is a mark on a row, so a job with a million events costs who deletes it one small
statement. The recorder's tidier then finishes it: events, samples and metrics in batches, files,
the store's objects, and the job's own row last. Whatever dies in between leaves the mark, and the
next one goes on. A worker that was lost may write a job's folder once more after that; so a
deleted job's number is remembered for as long as such a worker could still be heard.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, select, update

from adapters.wire import FENCE_TTL_SECONDS, job_folder
from modelyard.disk import tree_bytes
from modelyard.storage import StorageError, open_store
from webapp.config import settings
from webapp.extensions import db
from webapp.models import (
    Dataset,
    DeletedJob,
    Job,
    JobEvent,
    JobStatus,
    LoadSample,
    Metric,
    Project,
)
from webapp.models.columns import utc_now
from webapp.services import event_log, stored_files, uploads
from webapp.services.outputs import output_dir
from webapp.services.statements import affected

logger = logging.getLogger(__name__)

ACTIVE = (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.CANCELLING)
BATCH_ROWS = 2000  # deleted at once: others wait for one such batch at most
REMEMBERED = timedelta(seconds=FENCE_TTL_SECONDS)
_MANY: tuple[Any, ...] = (JobEvent, LoadSample, Metric)  # the tables a job may fill with a million


class NotFinished(Exception):
    """What a deleted job has left cannot be removed now; it is tried again."""


def mark(*which: ColumnElement[bool]) -> int:
    """Delete the jobs that fit and are not under way, and return how many.

    The caller holds the order's lock (event_log.lock_order), so that no change of a status passes
    in between, and commits.
    """
    statement = update(Job).where(*which, Job.status.not_in(ACTIVE), Job.deleted_at.is_(None))
    return affected(statement.values(deleted_at=utc_now()))


def pending() -> bool:
    """Tell whether something that is deleted has left anything."""
    marked = select(Job.id).where(Job.deleted_at.is_not(None)).limit(1)
    projects = select(Project.id).where(Project.deleted_at.is_not(None)).limit(1)
    return db.session.scalar(marked) is not None or db.session.scalar(projects) is not None


def marked_jobs() -> list[int]:
    """Return the jobs that are deleted and have left something, the first one first."""
    return list(
        db.session.scalars(select(Job.id).where(Job.deleted_at.is_not(None)).order_by(Job.id))
    )


def finish(*, still_wanted: Callable[[], bool] = lambda: True) -> bool:
    """Remove all that deleted jobs and projects have left; False where something has to wait."""
    done = True
    for project_id in _marked_projects():
        event_log.lock_order(db.session())
        mark(Job.project_id == project_id)  # described while the project was being deleted
        db.session.commit()
    for job_id in marked_jobs():
        if not still_wanted():
            return False
        try:
            finish_job(job_id)
        except NotFinished as error:
            logger.warning("%s", error)
            done = False
    for project_id in _marked_projects():
        _finish_project(project_id)
    affected(delete(DeletedJob).where(DeletedJob.deleted_at < utc_now() - REMEMBERED))
    db.session.commit()
    return done and not _marked_projects()


def finish_job(job_id: int) -> None:
    """Remove all that one deleted job has left. Raises NotFinished."""
    for table in _MANY:
        _drop_rows(table, job_id)
    remove_files(job_id)
    session = db.session()
    if affected(delete(Job).where(Job.id == job_id, Job.deleted_at.is_not(None))) == 1:
        session.add(DeletedJob(job_id=job_id))
    session.commit()


def remove_files(job_id: int) -> None:
    """Remove what a job has in the outputs folder and in the store. Raises NotFinished."""
    folder = output_dir(job_id)
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        raise NotFinished(f"{folder} of a deleted job cannot be removed; see who owns it")
    if stored_files.used():
        try:
            open_store(settings().store or "").delete(f"{job_folder(job_id)}/")
        except StorageError as error:
            raise NotFinished(f"a deleted job's objects cannot be removed: {error}") from error


def left_bytes(job_id: int) -> int | None:
    """Return what a job has left on this host and in the store; None where that is nothing.

    Raises StorageError.
    """
    folder = output_dir(job_id)
    sizes = [tree_bytes(folder)] if folder.exists() else []
    if stored_files.used():
        store = open_store(settings().store or "")
        sizes += [entry.size for entry in store.list(f"{job_folder(job_id)}/")]
    return sum(sizes) if sizes else None


def remembered() -> list[int]:
    """Return the jobs that were deleted not long ago, the first one first."""
    return list(db.session.scalars(select(DeletedJob.job_id).order_by(DeletedJob.job_id)))


def _drop_rows(table: Any, job_id: int) -> None:
    """Delete a job's rows of a table, batch by batch; others get at least as long in between."""
    last = 0  # where to go on: PostgreSQL would look through the deleted rows again and again
    while True:
        began = time.monotonic()
        batch = select(table.id).where(table.job_id == job_id, table.id > last)
        batch = batch.order_by(table.id).limit(BATCH_ROWS)
        # Another tidier that is at the same job is not waited for.
        ids = list(db.session.scalars(batch.with_for_update(skip_locked=True)))
        if ids:
            affected(delete(table).where(table.id.in_(ids)))
        db.session.commit()
        if len(ids) < BATCH_ROWS:
            return
        last = ids[-1]
        time.sleep(time.monotonic() - began)


def _marked_projects() -> list[int]:
    return list(db.session.scalars(select(Project.id).where(Project.deleted_at.is_not(None))))


def _finish_project(project_id: int) -> None:
    """Remove the row of a deleted project, once none of its jobs is left."""
    db.session.rollback()
    jobs = select(Job.id).where(Job.project_id == project_id)
    uploaded = db.session.scalars(
        select(Dataset).where(Dataset.project_id == project_id, Dataset.uploaded)
    ).all()
    with uploads.leaving(uploaded):
        affected(delete(Project).where(Project.id == project_id, ~jobs.exists()))
        db.session.commit()
