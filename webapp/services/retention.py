"""What is kept, and for how long: the one place that removes files which nobody asked to remove.

`modelyard gc` lists or removes all of it; the recorder's tidier does the same once a day, but for
what only a person may judge. Nothing here touches a job that has not ended, nor a file that is of
no kind known here: such are named and left.
"""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path

from sqlalchemy import select

from adapters.wire import job_folder
from modelyard.disk import tree_bytes
from modelyard.storage import StorageError
from webapp.config import settings
from webapp.extensions import db
from webapp.models import DeletedJob, Job
from webapp.services import (
    backup_tables,
    deletion,
    last_checkpoints,
    outputs_index,
    store_objects,
    stored_files,
    uploads,
)
from webapp.services.deletion import ACTIVE, NotFinished
from webapp.services.errors import Conflict
from webapp.services.outputs import output_dir

logger = logging.getLogger(__name__)

IDLE_SECONDS = 24 * 3600.0  # what was written since may still be written
_OURS = {"jobs", ".modelyard-outputs"}  # in the outputs folder
# What writers name what is not yet whole: adapters.files, a best model's folder, plots.
_TEMPORARY = re.compile(r"\..+\.writing|\.best-\w+|\.plots-\w+")


class Reason(StrEnum):
    """Why something is to go, in words for a table."""

    DELETED = "deleted jobs"
    UNKNOWN_JOB = "jobs that the database does not know"
    LAST = "last checkpoints past their days"
    TEMPORARY = "temporary files of killed writers"
    UPLOAD = "uploads that were broken off"
    UNKNOWN_UPLOAD = "uploads of no data set"
    STORE_UNKNOWN = "objects in the store of no job or data set"
    STORE_LOOSE = "objects in the store that no index names"


@dataclass(frozen=True)
class Item:
    """One thing that is to go."""

    reason: Reason
    name: str  # where it lies, below the outputs, the uploads or the store
    size: int  # bytes
    remove: Callable[[], object] = field(repr=False)


@dataclass
class Report:
    """What goes or went, and what could not."""

    items: list[Item] = field(default_factory=list)
    failed: list[tuple[Item, str]] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)  # is not of Modelyard, and is left

    @property
    def size(self) -> int:
        return sum(item.size for item in self.items)

    def by_reason(self) -> dict[Reason, tuple[int, int]]:
        """Return how many things and bytes, by reason."""
        found: dict[Reason, tuple[int, int]] = {}
        for item in self.items:
            count, size = found.get(item.reason, (0, 0))
            found[item.reason] = (count + 1, size + item.size)
        return found


def look() -> Report:
    """Return what would go; nothing is changed. Raises StorageError where the store is away."""
    return Report(items=list(_items(by_person=True)), foreign=_foreign())


def collect(*, by_person: bool, still_wanted: Callable[[], bool] = lambda: True) -> Report:
    """Remove what is to go, and return what went. Raises StorageError where the store is away."""
    report = Report(foreign=_foreign())
    for item in _items(by_person=by_person):
        if not still_wanted():
            break
        try:
            item.remove()
        except (OSError, StorageError, NotFinished, Conflict) as error:
            db.session.rollback()
            report.failed.append((item, str(error)))
            logger.warning("%s cannot be removed: %s", item.name, error)
        else:
            report.items.append(item)
    return report


def _items(*, by_person: bool) -> Iterator[Item]:
    yield from _deleted()
    yield from _last_checkpoints()
    yield from _temporary()
    yield from _broken_uploads()
    if by_person:  # a restored database knows less than is there
        yield from _unknown_jobs()
        yield from _unknown_uploads()
        if stored_files.used():
            yield from _objects()


def _deleted() -> Iterator[Item]:
    for job_id in deletion.marked_jobs():
        size = deletion.left_bytes(job_id) or 0
        yield Item(Reason.DELETED, job_folder(job_id), size, partial(deletion.finish_job, job_id))
    for job_id in deletion.remembered():
        written = deletion.left_bytes(job_id)
        if written is not None:  # by a worker that was lost, once more
            remove = partial(deletion.remove_files, job_id)
            yield Item(Reason.DELETED, job_folder(job_id), written, remove)


def _unknown_jobs() -> Iterator[Item]:
    last = _last_id()
    for job_id in _unknown_ids():
        folder = output_dir(job_id)
        if job_id <= last and _idle(folder):
            yield Item(
                Reason.UNKNOWN_JOB, job_folder(job_id), tree_bytes(folder),
                partial(_remove_tree, folder),
            )  # fmt: skip


def _unknown_ids() -> list[int]:
    known = set(db.session.scalars(select(Job.id))) | set(
        db.session.scalars(select(DeletedJob.job_id))
    )
    db.session.rollback()
    return [job_id for job_id in outputs_index.job_ids() if job_id not in known]


def _last_id() -> int:
    """Return the greatest id that this database ever gave: a later one is another's."""
    with db.engine.connect() as connection:
        return backup_tables.last_ids(connection).get("jobs", 0)


def _last_checkpoints() -> Iterator[Item]:
    for job_id in last_checkpoints.due():
        size = sum(tree_bytes(path) for path in last_checkpoints.files(job_id))
        yield Item(
            Reason.LAST, f"{job_folder(job_id)}/checkpoints/last", size,
            partial(last_checkpoints.remove, job_id),
        )  # fmt: skip


def _temporary() -> Iterator[Item]:
    """Find what killed writers left, of jobs that have ended: one that goes on tidies up itself."""
    under_way = set(db.session.scalars(select(Job.id).where(Job.status.in_(ACTIVE))))
    known = set(db.session.scalars(select(Job.id).where(Job.deleted_at.is_(None))))
    db.session.rollback()
    for job_id in outputs_index.job_ids():
        if job_id in known - under_way:
            for path in _temporaries(output_dir(job_id)):
                yield Item(
                    Reason.TEMPORARY, str(path.relative_to(settings().outputs)), tree_bytes(path),
                    partial(_remove_idle, path),
                )  # fmt: skip


def _temporaries(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob(".*")):
        if _TEMPORARY.fullmatch(path.name) and _idle(path):
            yield path


def _broken_uploads() -> Iterator[Item]:
    folder = uploads.uploads_folder()
    for token in uploads.broken_off():
        size = tree_bytes(folder / token) + tree_bytes(folder / f"{token}.zip")
        yield Item(Reason.UPLOAD, token, size, uploads.sweep)


def _unknown_uploads() -> Iterator[Item]:
    folder = uploads.uploads_folder()
    for token in uploads.of_no_dataset():
        if _idle(folder / token):
            remove = partial(uploads.remove_of_no_dataset, token)
            yield Item(Reason.UNKNOWN_UPLOAD, token, tree_bytes(folder / token), remove)


def _objects() -> Iterator[Item]:
    idle, last = timedelta(seconds=IDLE_SECONDS), _last_id()
    for reason, found in (
        (Reason.STORE_UNKNOWN, store_objects.of_no_job(last_id=last, idle=idle)),
        (Reason.STORE_LOOSE, store_objects.of_no_index(idle=idle)),
    ):
        for prefix, objects in found:
            yield Item(reason, prefix, objects.size, partial(store_objects.delete, objects))


def _foreign() -> list[str]:
    """Return what lies among the outputs and is not of this instance."""
    outputs = settings().outputs
    found = [path for path in _entries(outputs) if path.name not in _OURS]
    found += [path for path in _entries(outputs / "jobs") if not path.name.isdecimal()]
    last = _last_id()
    found += [output_dir(job_id) for job_id in _unknown_ids() if job_id > last]
    return sorted(str(path) for path in found)


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _idle(path: Path) -> bool:
    """Tell whether nothing in a folder, or a file, was written for a day."""
    since = time.time() - IDLE_SECONDS
    try:
        return all(each.lstat().st_mtime < since for each in (path, *path.rglob("*")))
    except OSError:
        return False  # something is at work in it


def _remove_idle(path: Path) -> None:
    if _idle(path):
        _remove_tree(path)


def _remove_tree(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
