# ruff: noqa: PTH110, PTH117, PTH118
# os.path and not pathlib: it answers False where pathlib raises (a name too long), and is faster.
"""Keeping what a user names inside the folders that an administrator allowed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from adapters.data.description import DatasetError


class OutsideRoots(DatasetError):
    """A path leads out of the allowed folders, directly, through '..' or through a link."""


def resolve_inside(path: str | Path, roots: Sequence[Path]) -> Path:
    """Return the real path of a file or folder that exists below one of the roots.

    A relative path must exist below exactly one root. Raises OutsideRoots where the path leads
    out, whether or not anything lies there, and DatasetError where nothing does.
    """
    text = os.fspath(path)
    shown = printable(text)
    if not text.strip() or not is_path(text):
        raise DatasetError(f"'{shown}' is not a path; name a folder below an allowed data folder")
    if ".." in Path(text).parts:
        raise OutsideRoots(f"'{shown}' contains '..'; name the folder directly")
    real_roots = real_paths(roots)
    if not os.path.isabs(text):
        text = _below_one_root(text, real_roots)
    real = os.path.realpath(text)
    if not is_inside(real, real_roots):
        listed = ", ".join(real_roots) or "none is set"
        raise OutsideRoots(f"'{shown}' is not below an allowed data folder ({listed})")
    if not os.path.exists(real):
        raise DatasetError(f"nothing lies at '{shown}'")
    return Path(real)


def real_paths(folders: Sequence[Path]) -> tuple[str, ...]:
    """Return the folders with every link in them resolved."""
    return tuple(os.path.realpath(folder) for folder in folders)


def is_inside(real: str, real_roots: Sequence[str]) -> bool:
    """Tell whether a real path is one of the real roots or lies below one."""
    return any(real == root or real.startswith(root.rstrip("/") + "/") for root in real_roots)


@contextmanager
def unreadable_as_dataset_error(path: Path) -> Iterator[None]:
    """Turn what the file system refuses while a data set is read into a DatasetError."""
    try:
        yield
    except OSError as failure:
        reason = failure.strerror or "the file system refuses"
        raise DatasetError(f"'{printable(str(path))}' cannot be read: {reason}") from failure


def is_path(text: str) -> bool:
    """Tell whether the system takes the text as a path at all."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def printable(name: str) -> str:
    """Return a name that every database and terminal takes: bytes that are no text are escaped."""
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _below_one_root(relative: str, real_roots: Sequence[str]) -> str:
    places = [os.path.join(root, relative) for root in real_roots]
    found = [place for place in places if os.path.lexists(place)]
    shown = printable(relative)
    if not found:
        raise DatasetError(f"no allowed data folder has '{shown}'")
    if len(found) > 1:
        raise DatasetError(
            f"'{shown}' lies below {len(found)} of the allowed data folders; give its absolute path"
        )
    return found[0]
