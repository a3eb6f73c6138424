"""Who has a GPU, as a table; and the slots of a worker beside somebody else's processes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from modelyard.gpu_guard import GpuGuard
from modelyard.gpu_holders import find_holder
from modelyard.gpu_locks import GpuLocks
from modelyard.gpus import Gpu, GpuProcess, GpuView, list_gpu_processes, list_gpus
from tests.driver import Driver
from tests.services import wait_for
from workers.devices import Slots
from workers.gpu_release import GpuRelease

Make = Callable[..., GpuGuard]

OURS, PYTHON, XORG, HIDDEN = 10, 20, 30, 40
NAMES = {OURS: "python", PYTHON: "python", XORG: "Xorg"}


def gpu(used: int, *, memory: int = 24000, index: int = 0) -> Gpu:
    return Gpu(index, "Some GPU", memory, used, 0, uuid=f"GPU-{index}")


def on(pid: int, memory: int | None, *, index: int = 0) -> GpuProcess:
    return GpuProcess(pid, memory, f"GPU-{index}")


@pytest.mark.parametrize(
    ("used", "processes", "trains", "text"),
    [
        (10, [], False, None),
        (18700, [on(PYTHON, 18637)], False, "process 20 (python, 18.2 GB), which is not ours"),
        (9000, [on(PYTHON, 3000), on(XORG, 6000)], False, "process 30 (Xorg, 5.9 GB) and 1 more"),
        (700, [on(XORG, 400)], False, None),  # a desktop
        (2100, [on(PYTHON, 2000)], False, None),
        (2200, [on(PYTHON, 2100)], False, "process 20"),
        (20000, [on(OURS, 19000)], True, None),
        (22500, [on(OURS, 19000), on(PYTHON, 3000)], True, "process 20 (python, 2.9 GB)"),
        # Not told: the memory in use speaks, and on doubt the GPU is ours.
        (18000, [], False, "has 17.6 GB held by processes that nvidia-smi does not name"),
        (18000, [], True, None),
        (5900, [], False, None),
        (18000, [on(HIDDEN, 17000)], False, "does not name"),  # a pid of another container
        (18000, [on(HIDDEN, 17000)], True, None),  # it may be our own, by the host's number
        (18000, [on(PYTHON, None)], False, "is held by process 20 (python, 17.6 GB)"),
        (18000, [on(PYTHON, None), on(OURS, None)], True, None),
    ],
)  # fmt: skip
def test_a_gpu_is_held_where_others_fill_it(
    used: int, processes: list[GpuProcess], trains: bool, text: str | None
) -> None:
    found = find_holder(
        gpu(used), processes, ours=frozenset({OURS}), trains=trains, name_of=NAMES.get
    )
    assert (found is None) == (text is None)
    if found is not None:
        assert str(text) in found.text


def test_a_gpu_whose_memory_is_not_told_is_nobody_elses() -> None:
    unknown = gpu(0, memory=0)
    assert find_holder(unknown, [], ours=frozenset(), trains=False) is None


def test_a_small_gpu_allows_others_a_tenth() -> None:
    held = [on(PYTHON, 900)]
    for memory, free in ((8192, False), (10240, True)):
        found = find_holder(
            gpu(1000, memory=memory), held, ours=frozenset(), trains=False, name_of=NAMES.get
        )
        assert (found is None) == free


def test_what_the_driver_does_not_tell_of_processes_is_left_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(tmp_path / "bin")
    monkeypatch.setenv("PATH", driver.path)
    (driver.folder / "processes").write_text(
        "12, 500, GPU-0\n13, [N/A], GPU-0\n14, [Insufficient Permissions], GPU-1\n[Not Supported]\n"
    )
    assert list_gpu_processes() == [on(12, 500), on(13, None), on(14, None, index=1)]
    (driver.folder / "nvidia-smi").write_text("#!/bin/sh\nexit 6\n")
    assert list_gpu_processes() == []


def test_a_gpu_that_fell_off_the_bus_is_no_slot_and_the_others_are(
    host: tuple[Driver, Make],
) -> None:
    driver, make = host
    guard = make(["cuda:0", "cuda:1"])
    (driver.folder / "gpus").write_text(
        "0, Some GPU, 24000, 10, 0, GPU-0\n"
        "Unable to determine the device handle for GPU 0000:02:00.0: Unknown Error\n"
    )
    guard.look()
    assert (guard.usable("cuda:0"), guard.usable("cuda:1")) == (True, False)
    (driver.folder / "gpus").write_text("")  # it fails altogether, and nobody knows why
    guard.look()
    assert guard.usable("cuda:1")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Driver, Make]:
    """Give two GPUs, and guards of them as several workers of the host have them."""
    driver = Driver(tmp_path / "bin")
    monkeypatch.setenv("PATH", driver.path)

    def guard(devices: list[str], *, worker: str = "a") -> GpuGuard:
        locks = GpuLocks(tmp_path / "gpus", gpus=list_gpus(), worker=worker)
        made = GpuGuard(devices, locks=locks, trains_on=list)
        made.look()
        return made

    return driver, guard


def test_a_held_gpu_is_no_slot_until_it_is_free(host: tuple[Driver, Make]) -> None:
    driver, make = host
    driver.processes = {1: (1, 20000)}  # of this host, and none of ours
    driver.tell()
    guard = make(["cuda:0", "cuda:1"])
    slots = Slots(["cuda:0", "cuda:1"], guard=guard)
    assert (slots.unusable(), slots.room(tasks=0), slots.room(tasks=1)) == (1, True, False)
    assert slots.take(job_id=1, wait_seconds=0) == "cuda:0"
    assert slots.take(job_id=2, wait_seconds=0) is None
    driver.processes = {}
    driver.tell()
    guard.look()
    assert slots.room(tasks=1)
    assert slots.take(job_id=2, wait_seconds=0) == "cuda:1"


def test_our_own_processes_hold_no_gpu_unless_they_outlive_their_attempt(
    host: tuple[Driver, Make],
) -> None:
    driver, make = host
    driver.processes = {os.getpid(): (0, 20000)}
    driver.tell()
    guard = make(["cuda:0"])
    assert guard.usable("cuda:0")
    guard.disown({os.getpid()})
    assert not guard.usable("cuda:0")


def test_a_process_that_bears_the_number_of_one_that_was_left_is_another(
    host: tuple[Driver, Make], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, make = host
    driver.processes = {os.getpid(): (0, 20000)}
    driver.tell()
    guard = make(["cuda:0"])
    guard.disown({os.getpid()})
    assert not guard.usable("cuda:0")
    with monkeypatch.context() as patched:
        # What psutil tells processes apart by is now another time of start.
        patched.setattr(psutil.Process, "_get_ident", lambda self: (self.pid, 1e9))
        guard.look()
        assert guard.usable("cuda:0")
        guard.disown(())
    guard.look()
    assert guard.usable("cuda:0")  # what is over was forgotten


def test_of_two_workers_one_has_a_gpu(host: tuple[Driver, Make]) -> None:
    _, make = host
    first, second = make(["cuda:0", "cuda:1"]), make(["cuda:0", "cuda:1"], worker="b")
    assert first.take("cuda:0", job_id=12)
    assert first.usable("cuda:0")  # its own lock is no hindrance: a second slot may share it
    holder = second.holder(0)
    assert holder is not None
    assert (holder.text, holder.worker, holder.job_id) == (
        "is training job 12 for worker a", "a", 12,
    )  # fmt: skip
    assert not second.take("cuda:1,0", job_id=13)
    assert first.usable("cuda:1")  # of two that were wanted, none was kept
    first.give_back("cuda:0")
    assert second.take("cuda:1,0", job_id=13)


def test_on_a_full_disk_a_gpu_is_had_and_given_back_all_the_same(
    host: tuple[Driver, Make], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*what: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    _, make = host
    first, second = make(["cuda:0"]), make(["cuda:0"], worker="b")
    monkeypatch.setattr("modelyard.gpu_locks.os.pwrite", full)
    assert first.take("cuda:0", job_id=12)
    assert not second.usable("cuda:0")
    first.give_back("cuda:0")
    assert first.usable("cuda:0")
    assert second.usable("cuda:0")


def test_a_look_that_fails_does_not_end_the_looking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = iter([GpuView((gpu(20000),)), None, GpuView((gpu(10),))])
    last = GpuView((gpu(10),))

    def view() -> GpuView:
        seen = next(views, last)
        if seen is None:
            raise RuntimeError("it cannot be seen")
        return seen

    monkeypatch.setattr("modelyard.gpu_guard.LOOK_SECONDS", 0.01)
    locks = GpuLocks(tmp_path, gpus=[gpu(0)], worker="a")
    guard = GpuGuard(["cuda:0"], locks=locks, trains_on=list, view=view)
    guard.start()
    try:
        wait_for(lambda: guard.usable("cuda:0"), what="a look after the one that failed")
    finally:
        guard.stop()


def test_slots_of_one_worker_share_a_gpu_that_is_named_twice(host: tuple[Driver, Make]) -> None:
    _, make = host
    slots = Slots(["cuda:0", "cuda:0"], guard=make(["cuda:0"]))
    other = make(["cuda:0"], worker="b")
    assert [slots.take(job_id=n, wait_seconds=0) for n in (1, 2)] == ["cuda:0", "cuda:0"]
    slots.give_back("cuda:0")
    assert not other.usable("cuda:0")
    slots.give_back("cuda:0")
    assert other.usable("cuda:0")


class Views:
    """What nvidia-smi shows, one view after the other; the last for ever."""

    def __init__(self, *views: GpuView) -> None:
        self.left = list(views)

    def __call__(self) -> GpuView:
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]


def view(used: int, *processes: GpuProcess) -> GpuView:
    return GpuView((gpu(used), gpu(20000, index=1)), processes)


@pytest.mark.parametrize(
    ("after", "text"),
    [
        ([view(100)], None),
        ([view(9000, on(OURS, 8900)), view(9000), view(400)], None),
        ([view(9000, on(OURS, 8900))], "GPU 0 still has 8.7 GB held by process 10"),
        ([view(9000, on(OURS, None))], "GPU 0 still has memory held by process 10"),
        ([view(9000)], "GPU 0 has 8.7 GB more in use than before this attempt"),
        ([view(9000, on(PYTHON, 8900))], None),  # somebody else came meanwhile
        ([GpuView()], None),  # nvidia-smi does not answer any more
    ],
)
def test_an_attempt_is_over_when_its_gpus_have_let_go(
    after: list[GpuView], text: str | None
) -> None:
    release = GpuRelease("cuda:0", view=Views(view(100), *after))
    held = release.wait([OURS], at_most=lambda: 120 if text is None else 0.5)
    assert (held is None) == (text is None)
    if held is not None:
        assert str(text) in held.text


def test_where_slots_share_a_gpu_the_others_memory_is_not_waited_for() -> None:
    release = GpuRelease("cuda:0", alone=False, view=Views(view(9000)))
    assert release.wait([OURS], at_most=lambda: 0.5) is None


def test_without_a_gpu_nothing_is_looked_at() -> None:
    def never() -> GpuView:
        raise AssertionError

    assert GpuRelease("cpu", view=never).wait([OURS], at_most=lambda: 30) is None
