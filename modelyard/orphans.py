"""Processes whose parent ended before them, and how `modelyard up` keeps hold of them.

Linux lets a process adopt every orphan below it. Elsewhere an orphan goes to the system, and
only the services themselves are ended in order.
"""

from __future__ import annotations

import ctypes
import os
import sys

import psutil

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def adopt_orphans() -> None:
    """Become the parent of every orphan below this process, so that none escapes its end."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def orphans_of(session: int) -> list[psutil.Process]:
    """Return this process's adopted children that belong to the session of a dead service."""
    return [child for child in psutil.Process().children() if _session(child.pid) == session]


def descendants() -> list[psutil.Process]:
    """Return every process below this one, children of children too."""
    return list(psutil.Process().children(recursive=True))


def kill_all(processes: list[psutil.Process]) -> None:
    """End processes at once; those already gone are no error."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def reap(*, besides: set[int]) -> None:
    """Collect adopted children that ended, so that no zombie stays.

    The process ids in `besides` are services, waited for elsewhere.
    """
    if sys.platform != "linux":
        return
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        # A service in front is collected by its owner first; the next call sees what is behind.
        if ended is None or ended.si_pid in besides:
            return
        os.waitpid(ended.si_pid, os.WNOHANG)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
