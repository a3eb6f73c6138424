"""A child trains no longer than its attempt's lease: a leash that each renewal lengthens.

A worker that cannot renew does not know whether Redis is away or only itself is cut off, and in
the second case another may start the job when the lease has expired. So at the lease's end its
child is paused (SIGSTOP), which loses nothing: when Redis answers again, the lease is either had
again and the child goes on with its next step, or it is lost and the child is killed.

Two hands hold the leash. The supervisor pauses the whole process group; and since a supervisor
may be stopped itself, a timer in the kernel stops the child without anybody's help, and another
each process that the child forked, its ranks on other devices above all.
"""

from __future__ import annotations

import ctypes
import logging
import math
import mmap
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

logger = logging.getLogger(__name__)

MESSAGE = b"lease:"  # to the child: until when, by lease_clock()
# A timer may fire while its renewal is on its way: after one so late, woken a few times.
_LATE_SECONDS = 5.0
_WAKE_SECONDS = 2.0
_FOLLOW_SECONDS = 0.25  # how soon a forked process hears of a renewal


def lease_clock() -> float:
    """Return seconds of a clock that a host's processes share, and that counts while it sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):  # Linux
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Leash:
    """The supervisor's hand: passes renewals to the child, pauses it, lets it go on."""

    def __init__(
        self, lease_until: Callable[[], float], *, clock: Callable[[], float] = lease_clock
    ) -> None:
        self._lease_until = lease_until
        self._clock = clock
        self._told: float | None = None
        self._wake_until = -math.inf
        self.paused = False

    def tend(self, pgid: int, requests: Connection) -> bool:
        """Do what the lease now asks for; tell whether the child was paused or went on just now."""
        until, now = self._lease_until(), self._clock()
        if until == math.inf:
            return False
        if until != self._told:
            if self._told is not None and now > self._told - _LATE_SECONDS:
                self._wake_until = max(now, self._told) + _WAKE_SECONDS
            self._told = until
            _send(requests, MESSAGE + repr(until).encode())
        was_paused, self.paused = self.paused, now >= until
        if self.paused:
            _signal(pgid, signal.SIGSTOP)
        elif was_paused or now < self._wake_until:
            _signal(pgid, signal.SIGCONT)
        return self.paused != was_paused


def _send(requests: Connection, message: bytes) -> None:
    try:
        requests.send_bytes(message)
    except OSError:
        logger.debug("the child has just ended")


def _signal(pgid: int, signum: signal.Signals) -> None:
    try:
        os.killpg(pgid, signum)
    except ProcessLookupError:
        logger.debug("process group %s has just ended, or does not lead itself yet", pgid)


class StopTimer:
    """The kernel's hand, in the child: stops this process at a time, unless wound up again."""

    def __init__(self) -> None:
        """Make the timer. Raises OSError where the kernel has none to give."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = ctypes.c_void_p()
        event = _SignalEvent(signo=int(signal.SIGSTOP))  # sigev_notify 0: send the signal
        clock = time.CLOCK_BOOTTIME
        if self._libc.timer_create(clock, ctypes.byref(event), ctypes.byref(self._timer)):
            raise OSError(ctypes.get_errno(), "timer_create")

    def wind(self, until: float) -> None:
        """Stop this process when :func:`lease_clock` shows ``until``; replaces an earlier time."""
        seconds = max(until, 0.001)  # all zero would mean: never
        spec = _TimerSpec()
        spec.value.seconds = int(seconds)
        spec.value.nanoseconds = int(seconds % 1 * 1e9)
        absolute = 1
        if self._libc.timer_settime(self._timer, absolute, ctypes.byref(spec), None):
            raise OSError(ctypes.get_errno(), "timer_settime")


class StopTimers:
    """A timer for this process and, since a fork inherits none, for each that it forks."""

    def __init__(self) -> None:
        """Begin; what is forked from here on has a timer. Raises OSError."""
        self._timer = StopTimer()
        # In memory that the forked ones share; none before the first renewal.
        self._until = ctypes.c_double.from_buffer(mmap.mmap(-1, ctypes.sizeof(ctypes.c_double)))
        os.register_at_fork(after_in_child=self._begin_to_follow)

    def wind(self, until: float) -> None:
        """Stop all of them at a time, unless wound up again."""
        self._until.value = until
        self._timer.wind(until)

    def _begin_to_follow(self) -> None:
        threading.Thread(target=self._follow, args=(StopTimer(),), daemon=True).start()

    def _follow(self, timer: StopTimer) -> None:
        wound = 0.0
        while True:
            until = self._until.value
            if until != wound:
                timer.wind(until)
                wound = until
            time.sleep(_FOLLOW_SECONDS)


class _SignalEvent(ctypes.Structure):
    """struct sigevent of Linux."""

    _fields_ = [
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("padding", ctypes.c_byte * 48),
    ]


class _TimeSpec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class _TimerSpec(ctypes.Structure):
    """struct itimerspec of Linux."""

    _fields_ = [("interval", _TimeSpec), ("value", _TimeSpec)]
