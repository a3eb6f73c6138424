"""What jobs have written, as a list: kept in a backup, and compared with the files after one."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, select

from adapters.wire import job_folder
from modelyard.storage import ObjectDamaged, ObjectMissing, Store, open_store
from modelyard.stored_outputs import StoredOutputs
from webapp.config import settings
from webapp.models import Artifact
from webapp.services import stored_files

logger = logging.getLogger(__name__)

# A file that was recorded and then written again is newer than its row.
_CLOCK_MARGIN_SECONDS = 2.0
_JOB = re.compile(r"[1-9][0-9]{0,8}")  # a number that the database can give
_KEY = re.compile(rf"jobs/({_JOB.pattern})/(?:attempts/([0-9]{{1,9}})/)?")


@dataclass(frozen=True)
class OutputFile:
    job: int
    name: str  # below the job's folder
    size: int
    modified: float  # seconds since 1970
    sha256: str | None  # None: it was never recorded, or written again since

    @property
    def path(self) -> Path:
        """Where it lies on this host. Raises ValueError where its name leads elsewhere."""
        folder = (settings().outputs / job_folder(self.job)).resolve()
        path = (folder / self.name).resolve()
        if not path.is_relative_to(folder) or path == folder:
            raise ValueError(f"'{self.name}' is no name of a file of job {self.job}")
        return path


class Comparison:
    """Jobs whose files are not those that an index tells of, which it tells job by job."""

    def __init__(self, *, with_content: bool) -> None:
        self.missing: dict[int, int] = {}  # how many files, by job
        self.missing_names: set[str] = set()
        self.changed: dict[int, int] = {}  # written again, grown, cut
        self._with_content = with_content
        self._store = _store()
        self._job = 0
        self._stored: dict[str, OutputFile] = {}  # what the store has of that job

    def take(self, file: OutputFile) -> None:
        """Look at the file that an index tells of. Raises StorageError."""
        differs = self._differs(file)
        if differs is None:
            self.missing[file.job] = self.missing.get(file.job, 0) + 1
            self.missing_names.add(file.name)
        elif differs:
            self.changed[file.job] = self.changed.get(file.job, 0) + 1

    def _differs(self, file: OutputFile) -> bool | None:
        """Tell whether a file has changed; None where it is gone."""
        if self._store is not None:
            there = self._in_store(self._store, file)
            return None if there is None else there.sha256 != file.sha256
        try:
            return _differs(file, file.path.stat(), with_content=self._with_content)
        except FileNotFoundError:
            return None

    def _in_store(self, store: Store, file: OutputFile) -> OutputFile | None:
        if self._job != file.job:
            self._job = file.job
            self._stored = {one.name: one for one in _files_of(store, file.job)}
        return self._stored.get(file.name)


def files(connection: Connection) -> Iterator[OutputFile]:
    """Yield what jobs have written, job by job: in the store, or in the outputs folder.

    There with the checksums that the database has. Raises StorageError.
    """
    store = _store()
    if store is not None:
        for job_id in sorted(_stored_attempts(store)):
            yield from _files_of(store, job_id)
        return
    for job_id in job_ids():
        yield from _files_below(connection, job_id)


def known_jobs() -> dict[int, int]:
    """Return the jobs that have left anything, each with the newest attempt in the store.

    Raises StorageError.
    """
    store = _store()
    stored = {} if store is None else _stored_attempts(store)
    return {job_id: stored.get(job_id, 0) for job_id in sorted({*job_ids(), *stored})}


def job_ids() -> list[int]:
    """Return the jobs that have a folder among the outputs, in the database or not."""
    folder = (settings().outputs / job_folder(0)).parent
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if _JOB.fullmatch(path.name))


def _store() -> Store | None:
    return open_store(settings().store or "") if stored_files.used() else None


def _stored_attempts(store: Store) -> dict[int, int]:
    """Return the newest attempt that has anything in the store, by job."""
    found: dict[int, int] = {}
    for entry in store.list("jobs/"):
        if key := _KEY.match(entry.key):
            job_id = int(key[1])
            found[job_id] = max(found.get(job_id, 0), int(key[2] or 0))
    return found


def _files_of(store: Store, job_id: int) -> Iterator[OutputFile]:
    try:
        found = StoredOutputs(store, job_id).everything().files.values()
    except (ObjectDamaged, ObjectMissing) as error:
        logger.warning("job %s: what it has in the store cannot be told: %s", job_id, error)
        return
    for file in found:
        yield OutputFile(
            job=job_id, name=file.name, size=file.size, modified=file.modified, sha256=file.sha256
        )


def _files_below(connection: Connection, job_id: int) -> Iterator[OutputFile]:
    recorded = _recorded(connection, job_id)
    folder = settings().outputs / job_folder(job_id)
    for path in _below(folder):
        try:
            stat = path.stat()
        except OSError:
            continue  # replaced or removed just now: the job is at work
        name = path.relative_to(folder).as_posix()
        yield OutputFile(
            job=job_id, name=name, size=stat.st_size, modified=stat.st_mtime,
            sha256=_known_sha256(recorded.get(name), stat),
        )  # fmt: skip


def _below(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(place) / name
            if path.is_file() and not path.is_symlink():
                yield path


def _recorded(connection: Connection, job_id: int) -> Mapping[str, tuple[int, str, float]]:
    columns = (Artifact.name, Artifact.size, Artifact.sha256, Artifact.created_at)
    rows = connection.execute(select(*columns).where(Artifact.job_id == job_id))
    return {row.name: (row.size, row.sha256, row.created_at.timestamp()) for row in rows}


def _known_sha256(recorded: tuple[int, str, float] | None, stat: os.stat_result) -> str | None:
    if recorded is None:
        return None
    size, sha256, time = recorded
    unchanged = stat.st_size == size and stat.st_mtime <= time + _CLOCK_MARGIN_SECONDS
    return sha256 if unchanged else None


def _differs(file: OutputFile, stat: os.stat_result, *, with_content: bool) -> bool:
    if stat.st_size != file.size:
        return True
    if file.sha256 is None:
        return stat.st_mtime > file.modified + _CLOCK_MARGIN_SECONDS
    if not with_content:
        return False
    with file.path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() != file.sha256
