"""The demo, as a person runs it: a real model trained through the API, the queue and a worker."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.services import Spawned, wait_for

COMMAND = [sys.executable, "-m", "modelyard", "demo", "--port", "0"]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    # Other tests compute beside this one: two threads that wait for each other at every operation
    # are then slower than one, by ten times and more.
    home = str(tmp_path / "home")
    return {**os.environ, "MODELYARD_HOME": home, "MODELYARD_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_demo_trains_a_model_and_ends_with_zero(environ: dict[str, str]) -> None:
    done = subprocess.run(
        [*COMMAND, "--exit"], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    accuracy = re.search(r"^Final accuracy +([\d.]+)", done.stdout, re.MULTILINE)
    assert accuracy is not None
    assert float(accuracy[1]) >= 0.98
    checkpoint = re.search(r"^Best checkpoint +(.+)$", done.stdout, re.MULTILINE)
    assert checkpoint is not None
    assert Path(checkpoint[1]).is_file()
    epochs = re.findall(r"^epoch (\d+)/(\d+)  loss .* images/s", done.stdout, re.MULTILINE)
    assert [int(epoch) for epoch, _ in epochs] == list(range(1, int(epochs[0][1]) + 1))
    assert re.search(r"^Login +admin@modelyard.local / \S+$", done.stdout, re.MULTILINE)


@pytest.mark.timeout(600)
def test_a_demo_that_is_stopped_ends_with_another_status_and_leaves_no_process(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    with Spawned([*COMMAND, "--exit"], environ=environ, log=tmp_path / "log") as demo:
        wait_for(lambda: "job is running" in demo.output(), timeout_seconds=240, what="training")
        below = psutil.Process(demo.pid).children(recursive=True)
        demo.process.send_signal(signal.SIGINT)
        assert demo.wait(timeout_seconds=60) == 1
    wait_for(lambda: not any(map(is_alive, below)), what="the end of what it had started")


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
