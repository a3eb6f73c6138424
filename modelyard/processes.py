"""What `modelyard up` asks of the operating system about processes.

Linux lets a process die with its parent and lets a parent adopt orphaned grandchildren. Where
the kernel offers neither, services are still ended in order; only a SIGKILL of `up` itself
would then leave them running.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable

import psutil

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def adopt_orphans() -> None:
    """Become the parent of every orphan below this process, so that none escapes its end."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> Callable[[], None]:
    """Return a `preexec_fn` after which the new process is killed when this one dies.

    The signal follows the thread that starts the process, so start services from the main thread.
    """
    parent = os.getpid()

    def before_exec() -> None:
        if _libc is None:
            return
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel was told
            os._exit(1)

    return before_exec


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
    for child in psutil.Process().children():
        if child.pid in besides:
            continue
        try:
            os.waitpid(child.pid, os.WNOHANG)
        except ChildProcessError:
            continue


def free_port() -> int:
    """Return a loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_in_use(host: str, port: int) -> bool:
    """Tell whether something already listens on an address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
        return False


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
