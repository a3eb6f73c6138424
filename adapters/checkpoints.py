"""Files that must never be found half written, and checkpoints that run no code when read.

A file is written under a temporary name beside its own, forced to the disk, and renamed: whatever
dies at whatever moment, the old file or the new one is there, whole.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from adapters.contract import ErrorKind, TrainingError

_TEMPORARY = ".writing"


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


def save_checkpoint(path: Path, state: Mapping[str, Any], *, format: str) -> None:
    """Write a checkpoint of tensors, numbers, texts and containers of them."""
    content = {"format": format, **state}
    # Given a stream, torch passes on the operating system's own error, 'disk full' above all;
    # given a path it raises a RuntimeError that says nothing.
    write_atomically(path, lambda stream: torch.save(content, stream))


def load_checkpoint(path: Path, *, format: str) -> dict[str, Any]:
    """Read a checkpoint that :func:`save_checkpoint` wrote, onto the CPU.

    Raises TrainingError(CHECKPOINT_INVALID) where it is torn, damaged, of another format, or
    holds anything that would have to be unpickled as an arbitrary object.
    """
    try:
        _check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError) as error:
        raise _invalid(path, _first_line(error)) from error
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        # What torch's reader of old formats trips over in a file that is something else.
        raise _invalid(path, f"not a checkpoint ({_first_line(error)})") from error
    if not isinstance(content, dict) or content.get("format") != format:
        raise _invalid(path, f"it is not of the format '{format}'")
    return content


def _check_sums(path: Path) -> None:
    """Compare the file with the sums in it, which torch writes but does not read."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"'{damaged}' in it does not match its sum")


def _sync_folder(folder: Path) -> None:
    """Force a rename to the disk, so that it also outlives a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


def _invalid(path: Path, reason: str) -> TrainingError:
    return TrainingError(
        ErrorKind.CHECKPOINT_INVALID,
        f"checkpoint '{path}' cannot be used: {reason}",
        hint="Clone the job and start the clone: it trains from the beginning.",
    )
