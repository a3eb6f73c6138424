"""Locks on files, which the kernel lets go of however their holder ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def take(path: Path, *, new: bool, shared: bool = False, wait: bool = False) -> int | None:
    """Return a descriptor that holds the lock of a file, None where it is gone or held by others.

    ``new``: make the file where it is not there. ``wait``: until nobody else holds the lock. Who
    holds it alone may remove the file: a lock on a file that is no longer at its place is none.
    Close the descriptor to let go.
    """
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if new else 0), 0o600)
    except FileNotFoundError:
        return None
    try:
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(lock, how if wait else how | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), path.stat()):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None
