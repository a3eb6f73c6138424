"""What a restore has to tell a person, line by line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

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
    yield _counts(manifest) + f"; {manifest.outputs} files of jobs in the index"
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
    yield from _jobs("go on, queued or running", report.going_on)
    for job_id, attempts in report.caught_up.items():
        numbers = ", ".join(str(number) for number in attempts)
        yield f"Job {job_id}: attempt {numbers}, later than the backup, was recorded from its files"
    names = _some(sorted(report.outputs.missing_names), most=_FILES_NAMED)
    yield from _jobs(f"lack files that they had ({names})", report.outputs.missing)
    yield from _jobs("have files that were written since", report.outputs.changed)
    yield from _jobs(
        "were made after the backup and are lost; their files are still there", report.unknown_jobs
    )
    if lost := report.lost_datasets:
        yield f"{len(lost)} data sets are not where they were: {_some(lost)}"
    if report.problem:
        yield report.problem
    for name, value in report.other_settings.items():
        yield f"Set there and not so here: {name}={value}"
    yield "Everyone has to log in again. New jobs get numbers that were never in use."


def _jobs(what: str, ids: Iterable[int]) -> Iterator[str]:
    ids = sorted(ids)
    if not ids:
        return
    yield f"{len(ids)} jobs {what}: {_some(ids)}"


def _some(things: Sequence[object], *, most: int = _NAMED) -> str:
    named = ", ".join(str(thing) for thing in things[:most])
    return f"{named} and {len(things) - most} more" if len(things) > most else named


def _counts(manifest: Manifest) -> str:
    tables = manifest.tables
    return ", ".join(f"{tables[name].rows} {name}" for name in _COUNTED if name in tables)
