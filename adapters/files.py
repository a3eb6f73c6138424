"""Files that must never be found half written.

A file is written under a temporary name beside its own, forced to the disk, and renamed: whatever
dies at whatever moment, the old file or the new one is there, whole.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_TEMPORARY = ".writing"
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


def is_disk_full(error: BaseException | None) -> bool:
    """Tell whether the operating system found no space, or a quota used up."""
    return isinstance(error, OSError) and error.errno in _DISK_FULL


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Create or replace a file with what ``write`` puts into the stream it is given.

    Raises OSError where the disk is full or the folder cannot be written; the old file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    try:
        with temporary.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove what writers left that were killed in the middle of a file."""
    for leftover in folder.glob(f".*{_TEMPORARY}"):
        leftover.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Force a rename to the disk, so that it also outlives a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
