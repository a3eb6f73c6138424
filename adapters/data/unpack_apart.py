"""Unpacking an archive in a process of its own, as a server must."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from adapters.data import child
from adapters.data.archive_names import ArchiveRefused
from adapters.data.unpack import Limits, Progress, unpack

_MEMORY_BYTES = 2 * 1024**3  # a directory of a million entries takes half of it
_TIMEOUT_SECONDS = 4 * 3600.0


def unpack_apart(
    archive: Path,
    into: Path,
    *,
    limits: Limits,
    progress: Progress | None = None,
    held: Sequence[int] = (),
    timeout_seconds: float = _TIMEOUT_SECONDS,
) -> Path:
    """Do what unpack() does, in a child process that keeps the descriptors ``held`` open.

    After any exception the caller removes ``into``: a child that was killed could not.
    """
    answer = child.ask(
        __name__,
        {
            "archive": os.fspath(archive),
            "into": os.fspath(into),
            "limits": dataclasses.asdict(limits),
        },
        doing="unpacking the archive",
        timeout_seconds=timeout_seconds,
        progress=progress,
        held=held,
    )
    if "error" in answer:
        raise ArchiveRefused(answer["error"])
    return Path(answer["path"])


def main() -> None:
    """Unpack what the question on standard input names."""
    asked = child.question(memory_bytes=_MEMORY_BYTES)
    archive, into, limits = Path(asked["archive"]), Path(asked["into"]), Limits(**asked["limits"])
    try:
        path = unpack(archive, into, limits=limits, progress=child.Teller())
        child.say({"path": os.fspath(path)})
    except BrokenPipeError:  # the process that asked has ended
        shutil.rmtree(into, ignore_errors=True)
    except ArchiveRefused as error:
        child.say({"error": str(error)})
    except OSError as error:
        child.say({"error": f"the disk refuses: {error.strerror}"})
    except MemoryError:
        child.say({"error": "the archive takes too much memory to read"})


if __name__ == "__main__":
    main()
