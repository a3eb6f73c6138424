"""Files that a job wrote: found by their recorded name, and only below the job's own folder.

Where hosts share no folder, what this one has not is had from the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from webapp.extensions import db
from webapp.models import Artifact, Job
from webapp.services import stored_files
from webapp.services.errors import NotFound
from webapp.services.outputs import output_dir
from webapp.services.stored_files import Passing

# A file that was recorded and then written again (checkpoints/last is, each epoch) is newer
# than its row. Its hash is not known yet.
_CLOCK_MARGIN_SECONDS = 2.0


@dataclass(frozen=True)
class StoredFile:
    path: Path
    sha256: str | None  # None: it was written again since it was recorded


def find(job: Job, name: str) -> StoredFile:
    """Return an artifact's file, which lies on this host. Raises NotFound, Unavailable."""
    found = _find(job, name, whole=True)
    assert isinstance(found, StoredFile)
    return found


def open_file(job: Job, name: str) -> StoredFile | Passing:
    """Return an artifact's file, or its stream from the store. Raises NotFound, Unavailable."""
    return _find(job, name, whole=False)


def _find(job: Job, name: str, *, whole: bool) -> StoredFile | Passing:
    artifact = db.session.scalar(
        select(Artifact).where(Artifact.job_id == job.id, Artifact.name == name)
    )
    if artifact is None:
        raise NotFound(f"Job {job.id} has no artifact of this name")
    if stored_files.used():
        db.session.expunge(artifact)
        db.session.rollback()  # hold no connection while the store is waited for
        shown = stored_files.show(artifact, whole=whole)
        if isinstance(shown, Passing):
            return shown
        if shown is not None:
            return StoredFile(path=shown.path, sha256=shown.sha256)
    return _local(artifact)


def _local(artifact: Artifact) -> StoredFile:
    root = output_dir(artifact.job_id).resolve()
    path = (root / artifact.name).resolve()
    # The name came from a worker: it must not lead out, be it by '..', by a link or absolute.
    if not path.is_relative_to(root) or not path.is_file():
        raise NotFound(f"The file of artifact {artifact.id} is not there any more")
    stat = path.stat()
    written_again = (
        stat.st_size != artifact.size
        or stat.st_mtime > artifact.created_at.timestamp() + _CLOCK_MARGIN_SECONDS
    )
    return StoredFile(path=path, sha256=None if written_again else artifact.sha256)
