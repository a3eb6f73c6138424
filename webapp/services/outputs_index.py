"""What jobs have written, as a list: kept in a backup, and compared with the files after one."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, select

from adapters.wire import job_folder
from webapp.config import settings
from webapp.models import Artifact

# A file that was recorded and then written again is newer than its row.
_CLOCK_MARGIN_SECONDS = 2.0
_JOB = re.compile(r"[1-9][0-9]{0,8}")  # a number that the database can give


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


@dataclass
class Comparison:
    """Jobs whose files are not those that an index tells of."""

    missing: dict[int, int] = field(default_factory=dict)  # how many files, by job
    changed: dict[int, int] = field(default_factory=dict)  # written again, grown, cut

    def take(self, file: OutputFile, *, with_content: bool) -> None:
        """Look at the file that an index tells of."""
        try:
            stat = file.path.stat()
        except OSError:
            self.missing[file.job] = self.missing.get(file.job, 0) + 1
            return
        if _differs(file, stat, with_content=with_content):
            self.changed[file.job] = self.changed.get(file.job, 0) + 1


def files(connection: Connection) -> Iterator[OutputFile]:
    """Yield what lies in the outputs folder, with the checksums that the database has."""
    for job_id in job_ids():
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


def job_ids() -> list[int]:
    """Return the jobs that have a folder among the outputs, in the database or not."""
    folder = (settings().outputs / job_folder(0)).parent
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if _JOB.fullmatch(path.name))


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
