"""A real process on a leash: it pauses at its lease's end, also when nobody pulls."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest
import torch

from adapters.contract import Reporter
from adapters.ranks import Rank, devices_of, on_ranks
from tests.services import wait_for
from tests.timm_jobs import Recorder, make_job
from workers.leash import MESSAGE, Leash, StopTimers, lease_clock


def _walk(requests: Connection) -> None:
    """Lead a group and burn time in one long C call after the other, winding the timer up."""
    os.setsid()
    timers = StopTimers()
    while True:
        if requests.poll():
            timers.wind(float(requests.recv_bytes().removeprefix(MESSAGE)))
        sum(range(100_000))


def _walk_in_step(requests: Connection) -> None:
    """Train on two ranks, as a child with two devices does; the timers are wound up beside it."""
    os.setsid()
    timers = StopTimers()

    def listen() -> None:
        while True:
            timers.wind(float(requests.recv_bytes().removeprefix(MESSAGE)))

    threading.Thread(target=listen, daemon=True).start()
    torch.set_num_threads(1)
    job = make_job(Path("data"), Path("output"), compute_device="cpu*2")
    on_ranks(_in_step, job=job, reporter=Recorder(), devices=devices_of(job.compute_device))


def _in_step(rank: Rank, reporter: Reporter) -> None:
    while True:
        rank.sum(torch.ones(1))


class Dog:
    def __init__(self, walk: Callable[[Connection], None] = _walk, *, ranks: int = 0) -> None:
        context = multiprocessing.get_context("fork")
        theirs, self.requests = context.Pipe(duplex=False)
        self.process = context.Process(target=walk, args=(theirs,))
        self.process.start()
        self.pid = self.process.pid or 0
        child = psutil.Process(self.pid)
        wait_for(lambda: os.getpgid(self.pid) == self.pid, what="its own group")
        wait_for(lambda: len(child.children()) == ranks, what="its ranks")
        self.seen = [child, *child.children()]

    def stopped(self) -> bool:
        return {process.status() for process in self.seen} == {psutil.STATUS_STOPPED}

    def runs(self) -> bool:
        halted = {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
        return halted.isdisjoint(process.status() for process in self.seen)

    def tended(self, leash: Leash) -> bool:
        """Do what its supervisor does all the time; tell whether it is walking then."""
        leash.tend(self.pid, self.requests)
        return self.runs()


@pytest.fixture
def dog() -> Iterator[Dog]:
    yield from kept(Dog())


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dog]:
    """A child with two ranks beside it, which do not stop for its sake."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # killed, they leave their files
    yield from kept(Dog(_walk_in_step, ranks=2))


def kept(dog: Dog) -> Iterator[Dog]:
    yield dog
    os.killpg(dog.pid, signal.SIGKILL)
    dog.process.join()


def test_the_kernel_stops_a_child_whose_supervisor_says_nothing_more(dog: Dog) -> None:
    until = lease_clock() + 0.6
    dog.requests.send_bytes(MESSAGE + repr(until).encode())
    wait_for(dog.stopped, timeout_seconds=30, what="the end of the lease")
    assert lease_clock() >= until


def test_a_child_goes_on_when_its_lease_is_had_again(dog: Dog) -> None:
    lease_until = lease_clock() + 60
    leash = Leash(lambda: lease_until)
    assert not leash.tend(dog.pid, dog.requests)
    lease_until = lease_clock()
    assert leash.tend(dog.pid, dog.requests)
    assert leash.paused
    wait_for(dog.stopped, what="the stop")
    lease_until = lease_clock() + 60
    assert leash.tend(dog.pid, dog.requests)
    wait_for(lambda: dog.tended(leash), what="the child going on")


def test_a_child_that_the_kernel_stopped_goes_on_though_its_supervisor_noticed_nothing(
    dog: Dog,
) -> None:
    lease_until = lease_clock() + 1
    leash = Leash(lambda: lease_until)
    leash.tend(dog.pid, dog.requests)
    wait_for(dog.stopped, what="the end of the lease")
    lease_until = lease_clock() + 60  # renewed before the supervisor looked
    wait_for(lambda: dog.tended(leash), what="the child going on")
    assert not leash.paused


def test_the_kernel_stops_each_rank_at_the_end_of_the_lease_and_all_go_on_with_it(
    pack: Dog,
) -> None:
    lease_until = lease_clock() + 2
    leash = Leash(lambda: lease_until)
    leash.tend(pack.pid, pack.requests)
    wait_for(pack.stopped, timeout_seconds=30, what="the end of the lease")  # nobody pulls
    assert lease_clock() >= lease_until
    lease_until = lease_clock() + 60
    wait_for(lambda: pack.tended(leash), what="all of them going on")
    spent = [sum(process.cpu_times()[:2]) for process in pack.seen[1:]]

    def both_train() -> bool:
        leash.tend(pack.pid, pack.requests)
        now = [sum(process.cpu_times()[:2]) for process in pack.seen[1:]]
        return all(after > before for before, after in zip(spent, now, strict=True))

    wait_for(both_train, what="steps of both ranks")


def test_renewals_reach_the_child_and_its_ranks(pack: Dog) -> None:
    lease_until = lease_clock() + 6
    leash = Leash(lambda: lease_until)
    leash.tend(pack.pid, pack.requests)
    first_end, lease_until = lease_until, lease_clock() + 60
    leash.tend(pack.pid, pack.requests)
    wait_for(lambda: lease_clock() > first_end + 0.3, what="the end that was put off")
    assert pack.runs()
