"""What `modelyard gc` says: a table for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modelyard.disk import readable
from webapp.services.retention import Report

_SHOWN = 10  # of each reason, by name


def lines(report: Report, *, dry_run: bool) -> Iterator[str]:
    """Yield the lines of a report."""
    counts = report.by_reason()
    if not counts:
        yield "Nothing is to go" if dry_run else "Nothing was to go"
    width = max((len(reason) for reason in counts), default=0)
    for reason, (count, size) in counts.items():
        yield f"{reason:<{width}}  {count:>6}  {readable(size):>10}"
        named = [item for item in report.items if item.reason == reason]
        for item in named[:_SHOWN]:
            yield f"    {item.name}  {readable(item.size)}"
        if len(named) > _SHOWN:
            yield f"    and {len(named) - _SHOWN} more"
    if counts:
        yield f"{readable(report.size)} {'would be' if dry_run else 'were'} freed"
    for item, why in report.failed:
        yield f"left: {item.name}: {why}"
    for path in report.foreign:
        yield f"not of this instance, left: {path}"


def as_json(report: Report, *, dry_run: bool) -> dict[str, Any]:
    """Return a report as JSON has it."""
    return {
        "dry_run": dry_run,
        "bytes": report.size,
        "items": [
            {"reason": item.reason.name.lower(), "name": item.name, "bytes": item.size}
            for item in report.items
        ],
        "failed": [{"name": item.name, "error": why} for item, why in report.failed],
        "foreign": report.foreign,
    }
