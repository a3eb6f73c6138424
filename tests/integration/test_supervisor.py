"""The supervisor with real processes: nothing it started outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.services import PATIENCE_SECONDS, wait_for

# A supervisor of its own process, as `modelyard up` is, over one service given as Python code.
SUPERVISE = """
import sys
from pathlib import Path
from modelyard.supervisor import Service, Supervisor
supervisor = Supervisor(say=lambda line: print(line, flush=True))
supervisor.handle_signals()
for stage, code in enumerate(sys.argv[3:]):
    command = [sys.executable, "-c", code]
    log = Path(sys.argv[1]) / f"s{stage}.log"
    supervisor.start(
        Service(
            f"s{stage}", command, log, about="runs", stop_stage=stage,
            stop_seconds=float(sys.argv[2]),
        )
    )
supervisor.watch()
supervisor.stop()
"""

SLEEP = "import time, os; print(os.getpid(), flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP
# Two forks and a session of its own: the way a process hides from whoever started it.
DAEMON = f"""
import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal = __import__("signal"); signal.signal(signal.SIGTERM, signal.SIG_IGN)
        exec({SLEEP!r})
    os._exit(0)
os.wait()
exec({SLEEP!r})
"""
NOTES_ITS_END = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("ended", time.monotonic(), flush=True), sys.exit()))
print("ready", flush=True)
time.sleep(600)
"""


class Up:
    """A supervisor process over services that log into a folder."""

    def __init__(self, folder: Path, *services: str, stop_seconds: float) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISE, str(folder), str(stop_seconds), *services],
            stdout=(folder / "said").open("w"),
        )

    def pids(self, *, of: int = 0) -> list[int]:
        log = self.folder / f"s{of}.log"
        return [int(line) for line in log.read_text().split()] if log.exists() else []

    def wait_for_pids(self, count: int) -> list[int]:
        wait_for(lambda: len(self.pids()) >= count, what=f"{count} processes")
        return self.pids()

    def said(self) -> str:
        return (self.folder / "said").read_text()

    def stop(self) -> float:
        """Ask it to stop and return how many seconds it took."""
        asked = time.monotonic()
        self.process.terminate()
        self.process.wait(timeout=PATIENCE_SECONDS)
        return time.monotonic() - asked


@pytest.fixture
def up(tmp_path: Path) -> Iterator[type]:
    """Start supervisors that are certainly gone after the test."""
    started: list[Up] = []

    class Started(Up):
        def __init__(self, *services: str, stop_seconds: float = 1) -> None:
            super().__init__(tmp_path, *services, stop_seconds=stop_seconds)
            started.append(self)

    yield Started
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()


def test_a_service_that_dies_is_started_again(up: type[Up]) -> None:
    instance = up(SLEEP)
    (first,) = instance.wait_for_pids(1)
    os.kill(first, signal.SIGKILL)
    second = instance.wait_for_pids(2)[1]
    assert psutil.pid_exists(second)
    assert "starting it again in 0.5 s" in instance.said()


def test_a_stop_ends_a_service_that_ignores_sigterm(up: type[Up]) -> None:
    instance = up(STUBBORN)
    (pid,) = instance.wait_for_pids(1)
    assert instance.stop() > 0.9
    assert not psutil.pid_exists(pid)


def test_a_stop_ends_children_of_children_that_hid(up: type[Up]) -> None:
    instance = up(DAEMON)
    pids = instance.wait_for_pids(2)
    instance.stop()
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_services_die_with_a_supervisor_that_is_killed(up: type[Up]) -> None:
    instance = up(STUBBORN)
    (pid,) = instance.wait_for_pids(1)
    instance.process.kill()
    wait_for(lambda: not psutil.pid_exists(pid), what="the service's end")


def test_services_end_in_the_order_of_their_stages(up: type[Up]) -> None:
    instance = up(NOTES_ITS_END, NOTES_ITS_END, stop_seconds=60)
    logs = [instance.folder / "s0.log", instance.folder / "s1.log"]
    wait_for(lambda: all(log.exists() and "ready" in log.read_text() for log in logs))
    instance.stop()
    ends = [float(log.read_text().rpartition("ended ")[2]) for log in logs]
    assert ends == sorted(ends)


def test_a_second_signal_does_not_wait_for_the_grace(up: type[Up]) -> None:
    instance = up(STUBBORN, STUBBORN, STUBBORN, stop_seconds=300)
    instance.wait_for_pids(1)
    wait_for(lambda: instance.pids(of=1) and instance.pids(of=2))
    instance.process.terminate()
    wait_for(lambda: "stopping" in instance.said())
    instance.stop()


def test_ended_orphans_leave_no_zombie(up: type[Up]) -> None:
    orphan = "import os; pid = os.fork(); pid or (os.fork() or os._exit(0), os._exit(0)); os.wait()"
    instance = up(f"{orphan}; exec({SLEEP!r})")
    (service,) = instance.wait_for_pids(1)  # by now the orphan is the supervisor's, dead or alive

    def below() -> list[int]:
        return [p.pid for p in psutil.Process(instance.process.pid).children(recursive=True)]

    wait_for(lambda: below() == [service], what="the end of the orphan, of which nothing is left")


def test_a_log_that_grew_large_is_put_aside_at_the_start(up: type[Up], tmp_path: Path) -> None:
    (tmp_path / "s0.log").write_bytes(b"x" * 5_000_001)
    instance = up(SLEEP)
    wait_for(lambda: (tmp_path / "s0.log.1").exists())
    assert instance.wait_for_pids(1)


SIGNALS_AT_ANY_MOMENT = """
import os, random, signal, threading, time
from modelyard.supervisor import Supervisor
for _ in range(300):
    supervisor = Supervisor(say=lambda line: None)
    supervisor.handle_signals()
    pause = random.random() / 500
    threading.Timer(pause, os.kill, (os.getpid(), signal.SIGTERM)).start()
    supervisor.watch()
"""


def test_a_signal_at_any_moment_is_a_stop_and_never_a_hang() -> None:
    subprocess.run([sys.executable, "-c", SIGNALS_AT_ANY_MOMENT], check=True)
