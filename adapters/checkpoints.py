"""Checkpoints that are never found half written, and that run no code when they are read."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from adapters.contract import ErrorKind, TrainingError
from adapters.files import remove_leftovers, write_atomically

__all__ = ["load_checkpoint", "remove_leftovers", "save_checkpoint", "write_atomically"]


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


def load_own_checkpoint(
    path: Path,
    *,
    format: str,
    identity: Mapping[str, Any],
    versions: Mapping[str, str],
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Read a checkpoint of this very job, and log where other versions made it.

    Raises TrainingError(CHECKPOINT_INVALID) where it is of another job or of other data.
    """
    state = load_checkpoint(path, format=format)
    then = state["identity"]
    differing = [name for name in identity if then.get(name) != identity[name]]
    if differing:
        raise TrainingError(
            ErrorKind.CHECKPOINT_INVALID,
            f"checkpoint '{path}' was made with other {', '.join(differing)}",
            hint="Give the job the data set and settings it began with, or clone it and "
            "start the clone: it trains from the beginning.",
        )
    if state["versions"] != versions:
        log(f"continuing a checkpoint of {state['versions']} with {versions}")
    return state


def _check_sums(path: Path) -> None:
    """Compare the file with the sums in it, which torch writes but does not read."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"'{damaged}' in it does not match its sum")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


def _invalid(path: Path, reason: str) -> TrainingError:
    return TrainingError(
        ErrorKind.CHECKPOINT_INVALID,
        f"checkpoint '{path}' cannot be used: {reason}",
        hint="Clone the job and start the clone: it trains from the beginning.",
    )
