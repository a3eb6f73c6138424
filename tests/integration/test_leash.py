"""A real process on a leash: it pauses at its lease's end, also when nobody pulls."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

import psutil
import pytest

from tests.services import wait_for
from workers.leash import MESSAGE, Leash, StopTimer, lease_clock


def _walk(requests: Connection) -> None:
    """Lead a group and burn time in one long C call after the other, winding the timer up."""
    os.setsid()
    timer = StopTimer()
    while True:
        if requests.poll():
            timer.wind(float(requests.recv_bytes().removeprefix(MESSAGE)))
        sum(range(100_000))


class Dog:
    def __init__(self) -> None:
        context = multiprocessing.get_context("fork")
        theirs, self.requests = context.Pipe(duplex=False)
        self.process = context.Process(target=_walk, args=(theirs,))
        self.process.start()
        self.pid = self.process.pid or 0
        self.seen = psutil.Process(self.pid)
        wait_for(lambda: os.getpgid(self.pid) == self.pid, what="its own group")

    def stopped(self) -> bool:
        return bool(self.seen.status() == psutil.STATUS_STOPPED)

    def runs(self) -> bool:
        return bool(self.seen.status() in (psutil.STATUS_RUNNING, psutil.STATUS_SLEEPING))


@pytest.fixture
def dog() -> Iterator[Dog]:
    dog = Dog()
    yield dog
    os.killpg(dog.pid, signal.SIGKILL)
    dog.process.join()


def test_the_kernel_stops_a_child_whose_supervisor_says_nothing_more(dog: Dog) -> None:
    until = lease_clock() + 0.6
    dog.requests.send_bytes(MESSAGE + repr(until).encode())
    wait_for(dog.stopped, timeout_seconds=5, what="the end of the lease")
    assert 0 <= lease_clock() - until < 1


def test_a_renewal_winds_the_timer_up_again(dog: Dog) -> None:
    lease_until = lease_clock() + 0.5
    leash = Leash(lambda: lease_until)
    begun = lease_clock()
    while lease_clock() < begun + 1.5:
        lease_until = lease_clock() + 0.5
        leash.tend(dog.pid, dog.requests)
        assert dog.runs()
        time.sleep(0.02)


def test_a_child_goes_on_when_its_lease_is_had_again(dog: Dog) -> None:
    lease_until = lease_clock() + 0.3
    leash = Leash(lambda: lease_until)
    assert not leash.tend(dog.pid, dog.requests)
    wait_for(lambda: leash.tend(dog.pid, dog.requests), timeout_seconds=5, what="the pause")
    assert leash.paused
    wait_for(dog.stopped, timeout_seconds=5, what="the stop")
    lease_until = lease_clock() + 60
    assert leash.tend(dog.pid, dog.requests)
    wait_for(dog.runs, timeout_seconds=5, what="the child going on")


def test_a_child_that_the_kernel_stopped_goes_on_though_its_supervisor_noticed_nothing(
    dog: Dog,
) -> None:
    lease_until = lease_clock() + 0.3
    leash = Leash(lambda: lease_until)
    leash.tend(dog.pid, dog.requests)
    wait_for(dog.stopped, timeout_seconds=5, what="the end of the lease")
    lease_until = lease_clock() + 60  # renewed before the supervisor looked
    leash.tend(dog.pid, dog.requests)
    wait_for(dog.runs, timeout_seconds=5, what="the child going on")
