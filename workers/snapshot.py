"""An attempt's files as they were at one moment, kept as hard links while training replaces them.

Adapters write a checkpoint beside and rename it, so a link goes on to name the content of its
moment. `last` and the `best` that it speaks of must be of the same one, or a continuation would
not end with the same bits.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from adapters.wire import JOURNAL_NAME
from modelyard.stored_copies import below

QUIET_SECONDS = 5.0  # a file that nobody announced is taken for written after so long
_TRIES = 20
# The tree that Ultralytics reads the data set through, made anew by each attempt.
_NOT_KEPT = ("ultralytics/data",)

Version = tuple[int, int, int]  # inode, size, time of the last write


class StillChanging(Exception):
    """Files change faster than they can be linked."""


@dataclass(frozen=True)
class Held:
    """A file as it was at the moment."""

    name: str  # below the job's folder
    link: Path
    version: Version
    modified: float  # seconds since 1970


def hold(
    folder: Path,
    scratch: Path,
    *,
    announced: Collection[str] | None,
    but: Mapping[str, Version],
) -> tuple[list[Held], set[str]]:
    """Link files into an empty scratch folder, and return them with the names of all there are.

    ``announced``: the files that are known to be whole; None: all are, for nothing writes any
    more. ``but``: versions that need no link. Raises StillChanging, and OSError.
    """
    for _ in range(_TRIES):
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        try:
            versions = {name: version_of(folder / name) for name in _names(folder, announced)}
            held = [
                _link(folder / name, scratch / str(number), name=name, version=version)
                for number, (name, version) in enumerate(versions.items())
                if but.get(name) != version
            ]
            if all(version_of(folder / name) == v for name, v in versions.items()):
                return held, set(versions)
        except FileNotFoundError:
            continue  # replaced or removed just now
    raise StillChanging


def version_of(path: Path) -> Version:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _names(folder: Path, announced: Collection[str] | None) -> Iterator[str]:
    for name in below(folder, besides=_NOT_KEPT):
        if name == JOURNAL_NAME:
            continue
        if announced is None or name in announced or _is_quiet(folder, name):
            yield name


def _is_quiet(folder: Path, name: str) -> bool:
    """Tell whether a file that nobody announced seems to be written; no checkpoint ever."""
    if name.startswith("checkpoints/"):
        return False
    return time.time() - (folder / name).stat().st_mtime > QUIET_SECONDS


def _link(path: Path, link: Path, *, name: str, version: Version) -> Held:
    try:
        os.link(path, link)
    except FileNotFoundError:
        raise
    except OSError:  # a disk without links
        shutil.copy2(path, link)
    return Held(name, link, version, path.stat().st_mtime)
