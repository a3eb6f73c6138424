"""The command line: what it lists, what it imports, how it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from modelyard.cli import COMMANDS, cli


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "modelyard", *arguments],
        env={"PATH": "/usr/bin:/bin", **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_help_lists_every_command_and_imports_none() -> None:
    code = (
        "import sys; from modelyard.cli import cli; cli(['--help'], standalone_mode=False); "
        "assert not [m for m in sys.modules if m.startswith('modelyard.commands')]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_itself(name: str) -> None:
    answer = CliRunner().invoke(cli, [name, "--help"])
    assert answer.exit_code == 0, answer.output
    assert f"Usage: cli {name}" in answer.output


def test_an_unknown_command_is_refused() -> None:
    done = run("upp")
    assert done.returncode == 2
    assert "upp" in done.stderr


def test_a_refusal_is_one_sentence_without_a_traceback(tmp_path: Path) -> None:
    done = run("worker", HOME=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("modelyard: REDIS_URL is not set; set it to")
    assert 'eval "$(modelyard env)"' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_of_an_unknown_framework_is_told_the_known_ones(tmp_path: Path) -> None:
    arguments = ["worker", "--frameworks", "timn", "--broker", "redis://127.0.0.1:1/0"]
    done = run(*arguments, HOME=str(tmp_path))
    assert done.returncode == 2
    assert "timm, ultralytics" in done.stderr
