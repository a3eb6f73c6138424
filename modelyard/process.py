"""Processes that must not outlive the one that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

import psutil

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: a new process of a threaded one must not wait for the loader's lock.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(parent_pid: int, signum: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent ends (Linux; else no effect).

    The signal follows the parent's *thread* that made this process, so make it from one that
    lives as long as the process. Exits at once where the parent has ended already.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signum))
    if os.getppid() != parent_pid:
        os._exit(1)


def group_members(pgid: int) -> list[int]:
    """Return the processes of a group that are still there; zombies hold nothing."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == pgid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, PermissionError, psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def kill_group(pgid: int, *, wait_seconds: float) -> list[int]:
    """Kill a process group and wait until it is gone; return what is left of it then.

    A process in uninterruptible sleep (a dead network disk, a wedged driver) can be left.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            os.killpg(pgid, signal.SIGKILL)
        except ProcessLookupError:
            return []
        except PermissionError:  # macOS says so of a group of zombies
            pass
        left = group_members(pgid)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)
