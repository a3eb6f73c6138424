"""A backup brought back, wholly or not at all; everything is checked before anything is touched.

A backup is older than the world around it: workers, Redis and the jobs' files may know of later
attempts and jobs. So no number is given again that may be in use (webapp.services.
restore_database), people log in anew, and what the files tell of later attempts is recorded
(webapp.services.catching_up); what only Redis knows, the reaper finds.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import select

from adapters.wire import JOURNAL_NAME
from modelyard.settings import write_private
from modelyard.storage import StorageError
from webapp.config import settings
from webapp.extensions import db
from webapp.models import Dataset, Job, JobStatus
from webapp.services import outputs_index, schema
from webapp.services.backup import SECRETS, backup_to, chosen_settings, database
from webapp.services.backup_archive import BackupError, Manifest, members_below, verify
from webapp.services.catching_up import catch_up
from webapp.services.outputs import output_dir
from webapp.services.outputs_index import Comparison, OutputFile
from webapp.services.restore_database import refuse_users, restore_database, what_is_there

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1024 * 1024
_CLOCK_MARGIN_SECONDS = 2.0
_UNDER_WAY = (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.CANCELLING)


@dataclass
class Report:
    """What a restore did, and what a person should look at."""

    manifest: Manifest
    set_aside: Path | None  # the backup of what was there before
    outputs: Comparison
    caught_up: dict[int, list[int]] = field(default_factory=dict)  # later attempts by job
    going_on: list[int] = field(default_factory=list)  # jobs that are queued or running
    lost_datasets: list[str] = field(default_factory=list)  # whose folders are not here
    unknown_jobs: list[int] = field(default_factory=list)  # have files, and are not in the backup
    problem: str | None = None
    other_settings: dict[str, str] = field(default_factory=dict)  # set there, not so here


def restore(path: Path, *, replace: bool = False, check_outputs: bool = False) -> Report:
    """Bring a backup back into the application's database and home folder.

    ``replace``: what is there is backed up, and replaced. ``check_outputs``: also compare the
    content of the jobs' files. Raises BackupError, with nothing changed.
    """
    with _nobody_at_work():
        manifest = verify(path)
        _refuse_newer(manifest)
        jobs = _jobs_with_files()
        report = Report(
            manifest,
            set_aside=_make_room(replace=replace),
            outputs=Comparison(with_content=check_outputs),
            unknown_jobs=[id for id in jobs if id > (manifest.tables["jobs"].last_id or 0)],
        )
        with _secrets(path, replace=replace):
            restore_database(path, manifest, last_job=max(jobs, default=0))
        if any(name.startswith("outputs/") for name in manifest.members):
            _restore_outputs(path)
        _look_around(path, report)
        _catch_up(report, jobs)
        return report


@contextmanager
def _nobody_at_work() -> Iterator[None]:
    """Keep `modelyard up` and recorders of this home away. Raises BackupError where one runs."""
    home = settings().home
    home.mkdir(parents=True, exist_ok=True)
    with (home / "up.lock").open("a+") as up, (home / "runner.lock").open("a+") as runner:
        for lock, name in ((up, "modelyard up"), (runner, "modelyard recorder")):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BackupError(f"'{name}' runs on {home}; stop it first") from None
        yield


def _refuse_newer(manifest: Manifest) -> None:
    if manifest.revision not in schema.revisions():
        raise BackupError(
            f"The backup is of revision {manifest.revision}, made by Modelyard "
            f"{manifest.modelyard}; this version knows revisions up to "
            f"{schema.newest_revision()}: upgrade Modelyard first"
        )


def _make_room(*, replace: bool) -> Path | None:
    """Refuse a database that has data, or back it up. Returns where to."""
    held = what_is_there()
    if held and not replace:
        raise BackupError(
            f"The database {database()} already holds {held}; restore into an empty one, or say "
            "--replace, which first backs up what is there"
        )
    refuse_users()
    if not held:
        return None
    folder = settings().home / "backups"
    folder.mkdir(mode=0o700, exist_ok=True)
    kept = folder / f"before-restore-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.tar.gz"
    backup_to(kept)
    return kept


def _jobs_with_files() -> dict[int, int]:
    try:
        return outputs_index.known_jobs()
    except StorageError as error:
        raise BackupError(
            f"The store is needed to know which numbers of jobs are in use: {error}"
        ) from error


@contextmanager
def _secrets(path: Path, *, replace: bool) -> Iterator[None]:
    """Put the backup's secrets into the home folder; as they were if what follows fails."""
    before: dict[Path, str | None] = {}
    try:
        for name, content in members_below(path, "home"):
            place = settings().home / name
            if name not in SECRETS or (place.exists() and not replace):
                continue
            before[place] = place.read_text() if place.exists() else None
            write_private(place, content.read().decode())
        yield
    except BaseException:
        for place, was in before.items():
            if was is None:
                place.unlink(missing_ok=True)
            else:
                write_private(place, was)
        raise


def _restore_outputs(path: Path) -> None:
    """Put back the files that the backup holds and that are not here."""
    for name, content in members_below(path, "outputs"):
        job, _, rest = name.partition("/")
        place = OutputFile(job=int(job), name=rest, size=0, modified=0, sha256=None).path
        if place.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f".{place.name}.{os.getpid()}")
        with partial.open("wb") as file:
            while chunk := content.read(_CHUNK_BYTES):
                file.write(chunk)
        partial.replace(place)


def _look_around(path: Path, report: Report) -> None:
    """Compare the jobs' files and the settings with those of the backup."""
    try:
        for _, content in members_below(path, "index"):
            for line in content:
                report.outputs.take(OutputFile(**json.loads(line)))
    except StorageError as error:
        report.problem = f"Not all files of jobs were looked for: {error}"
    datasets = db.session.scalars(select(Dataset).order_by(Dataset.id))
    report.lost_datasets = [one.name for one in datasets if not Path(one.path).is_dir()]
    db.session.rollback()
    here, there = chosen_settings(settings()), report.manifest.settings
    report.other_settings = {n: value for n, value in there.items() if here.get(n) != value}


def _catch_up(report: Report, jobs: Mapping[int, int]) -> None:
    """Record what files tell of later attempts, and note which jobs go on."""
    since = datetime.fromisoformat(report.manifest.created_at).timestamp() - _CLOCK_MARGIN_SECONDS
    for job_id, stored in jobs.items():
        job = db.session.get(Job, job_id)
        if job is None:
            continue
        newer = stored > job.attempt or _written_since(job_id, since)
        if not (job.status in _UNDER_WAY or newer):
            continue
        if later := catch_up(job_id, ask_store=True):
            report.caught_up[job_id] = later
    waiting = select(Job.id).where(Job.status.in_(_UNDER_WAY)).order_by(Job.id)
    report.going_on = list(db.session.scalars(waiting))
    db.session.rollback()


def _written_since(job_id: int, time: float) -> bool:
    try:
        return (output_dir(job_id) / JOURNAL_NAME).stat().st_mtime >= time
    except OSError:
        return False
