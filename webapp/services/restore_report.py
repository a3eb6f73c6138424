"""What a restore has to tell a person, line by line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from modelyard.counting import counted
from webapp.services import backup_tables
from webapp.services.backup_archive import Manifest
from webapp.services.restore import Report

_NAMED = 20  # more jobs than these are counted only
_FILES_NAMED = 4
_COUNTED = ("users", "projects", "datasets", "jobs", "attempts", "metrics", "job_events")


def backup_lines(manifest: Manifest, path: Path, *, database: str) -> Iterator[str]:
    """Yield what was backed up, and what was not."""
    size = path.stat().st_size / 1000
    shown = f"{size:.0f} kB" if size < 1000 else f"{size / 1000:.1f} MB"
    yield f"{path}: {shown}, as of {manifest.created_at}"
    yield f"Database {database}, revision {manifest.revision}"
    yield f"{_counts(manifest)}; {counted(manifest.outputs, 'file')} of jobs in the index"
    if manifest.outputs_problem:
        yield f"The index lacks files: {manifest.outputs_problem}"
    yield "It holds passwords' hashes and the home folder's keys: keep it as you keep those."


def restore_lines(report: Report) -> Iterator[str]:
    """Yield what was restored, what goes on, and what a person should look at."""
    manifest = report.manifest
    yield f"Restored the backup of {manifest.created_at} (Modelyard {manifest.modelyard})"
    yield _counts(manifest)
    if report.set_aside:
        yield f"What was there before is in {report.set_aside}"
    yield from _named(
        report.going_on,
        one="job goes on, queued or running",
        many="jobs go on, queued or running",
    )
    for job_id, attempts in report.caught_up.items():
        later = f"attempt{'' if len(attempts) == 1 else 's'} {', '.join(map(str, attempts))}"
        yield f"Job {job_id}: recorded {later} from its files, later than the backup"
    names = _some(sorted(report.outputs.missing_names), most=_FILES_NAMED)
    yield from _named(
        report.outputs.missing,
        one=f"job lacks files that it had ({names})",
        many=f"jobs lack files that they had ({names})",
    )
    yield from _named(
        report.outputs.changed,
        one="job has files that were written since",
        many="jobs have files that were written since",
    )
    yield from _named(
        report.unknown_jobs,
        one="job was made after the backup and is lost; its files are still there",
        many="jobs were made after the backup and are lost; their files are still there",
    )
    yield from _named(
        report.lost_datasets,
        one="data set is not where it was",
        many="data sets are not where they were",
    )
    if report.problem:
        yield report.problem
    for name, value in report.other_settings.items():
        yield f"Set there and not so here: {name}={value}"
    yield "Everyone has to log in again. New jobs get numbers that were never in use."


def _named(things: Iterable[Any], *, one: str, many: str) -> Iterator[str]:
    found = sorted(things)
    if found:
        yield f"{counted(len(found), one, many)}: {_some(found)}"


def _some(things: Sequence[object], *, most: int = _NAMED) -> str:
    named = ", ".join(str(thing) for thing in things[:most])
    return f"{named} and {len(things) - most} more" if len(things) > most else named


def _counts(manifest: Manifest) -> str:
    counts = {name: table.rows for name, table in manifest.tables.items()}
    return backup_tables.in_words(counts, *(name for name in _COUNTED if name in counts))
