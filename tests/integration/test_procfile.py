"""The Procfile, run by honcho against an outside Redis and PostgreSQL."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import urllib.request
from functools import partial
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.services import PATIENCE_SECONDS, Spawned, answers, own_port

ROOT = Path(__file__).parents[2]
WORKERS = ["timm", "ultralytics", "huggingface"]
PROCESSES = ["release", "web", "recorder", *(f"worker_{name}" for name in WORKERS), "flower"]


@pytest.fixture
def environ(tmp_path: Path, redis_url: str, postgres_url: str) -> dict[str, str]:
    shutil.copy(ROOT / "Procfile", tmp_path)
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "PYTHONUNBUFFERED": "1",
        "REDIS_URL": redis_url,
        "DATABASE_URL": postgres_url,
        "MODELYARD_HOME": str(tmp_path / "home"),
        "MODELYARD_FLOWER_PORT": str(own_port()),
    }


def honcho(*arguments: str, environ: dict[str, str], folder: Path) -> Spawned:
    command = ["honcho", "--no-colour", *arguments]
    return Spawned(command, environ=environ, log=folder / "honcho.log", cwd=folder)


def test_the_procfile_has_a_process_for_each_part() -> None:
    names = re.findall(r"^(\w+):", (ROOT / "Procfile").read_text(), re.MULTILINE)
    assert names == PROCESSES


def test_release_prepares_the_database_and_ends(environ: dict[str, str], tmp_path: Path) -> None:
    with honcho("start", "release", environ=environ, folder=tmp_path) as release:
        assert release.wait() == 0, release.output()
    dsn = environ["DATABASE_URL"].replace("+psycopg", "")
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)


@pytest.mark.timeout(600)
def test_honcho_runs_the_whole_of_it(environ: dict[str, str], tmp_path: Path) -> None:
    port = own_port()
    # honcho counts up by a hundred from one process of the file to the next.
    base = port - 100 * PROCESSES.index("web")
    with honcho("start", "--port", str(base), environ=environ, folder=tmp_path) as everything:
        url = f"http://127.0.0.1:{port}/readyz"
        everything.wait_for(lambda: _is_ready(url), what="the web process")
        for name in [*WORKERS, "recorder", "flower"]:
            part = "worker" if name in WORKERS else name
            own = {**environ, "MODELYARD_WORKER_NAME": f"{os.uname().nodename}-{name}"}
            healthy = partial(answers, ["modelyard", "health", part], own)
            everything.wait_for(healthy, what=f"an answer of {name}")
        assert everything.alive(), everything.output()
        below = psutil.Process(everything.pid).children(recursive=True)
        everything.process.send_signal(signal.SIGTERM)
        everything.wait()
    _, alive = psutil.wait_procs(below, timeout=PATIENCE_SECONDS)
    assert not alive, [process.cmdline() for process in alive]


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False
