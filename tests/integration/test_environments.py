"""A host with only its own requirements file: what it can do, and what it never imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def environment(folder: Path, requirements: str) -> Path:
    """Return the interpreter of a fresh environment with one requirements file."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    command += ["--no-compile"]  # what is imported is compiled then, and little is imported
    done = subprocess.run(
        [*command, "--requirement", str(ROOT / "requirements" / requirements)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        reason = f"pip could not install {requirements}: {done.stderr[-500:]}"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return python


@pytest.fixture(scope="module")
def web_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("web") / "venv", "web.txt")


@pytest.fixture(scope="module")
def worker_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("worker") / "venv", "worker.txt")


def run(python: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, *arguments], cwd=ROOT, env={**os.environ, **environ},
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip


def test_a_web_host_builds_the_application_without_torch(web_python: Path, tmp_path: Path) -> None:
    code = (
        "import sys, webapp; webapp.create_app(); "
        "assert not {'torch', 'timm', 'ultralytics', 'transformers'} & set(sys.modules)"
    )
    done = run(
        web_python, "-c", code,
        MODELYARD_HOME=str(tmp_path), REDIS_URL="redis://127.0.0.1:1/0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert run(web_python, "-c", "import torch").returncode != 0


def test_a_worker_host_needs_nothing_of_the_web_application(worker_python: Path) -> None:
    code = "import sys, workers.app; assert not {'flask', 'sqlalchemy', 'torch'} & set(sys.modules)"
    done = run(worker_python, "-c", code, REDIS_URL="redis://127.0.0.1:1/0")
    assert done.returncode == 0, done.stderr
    assert run(worker_python, "-c", "import flask").returncode != 0


@pytest.mark.parametrize("command", ["worker", "doctor", "health"])
def test_a_worker_host_has_the_commands_it_needs(worker_python: Path, command: str) -> None:
    done = run(worker_python, "-m", "modelyard", command, "--help")
    assert done.returncode == 0, done.stderr


def test_a_worker_host_without_a_framework_is_told_what_to_install(worker_python: Path) -> None:
    done = run(worker_python, "-m", "modelyard", "worker", REDIS_URL="redis://127.0.0.1:1/0")
    assert done.returncode == 2
    assert "pip install -r requirements/timm.txt" in done.stderr


def test_a_command_of_the_web_host_says_what_a_worker_host_lacks(
    worker_python: Path, tmp_path: Path
) -> None:
    done = run(worker_python, "-m", "modelyard", "demo", MODELYARD_HOME=str(tmp_path))
    assert done.returncode == 2
    assert "needs the package 'httpx'" in done.stderr


def test_a_worker_host_checks_itself(worker_python: Path, tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "outputs").mkdir()
    done = run(
        worker_python, "-m", "modelyard", "doctor",
        MODELYARD_HOME=str(tmp_path), REDIS_URL=redis_url, MODELYARD_FRAMEWORKS="timm",
    )  # fmt: skip
    assert "FAIL  timm" in done.stdout, done.stdout + done.stderr
    assert "not needed on a worker host" in done.stdout
    assert done.returncode == 1
