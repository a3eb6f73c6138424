"""`python -m workers.train`: a person, a terminal and no service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.samples import make_samples
from tests.services import wait_for
from tests.worker_service import ROOT

# Each test starts processes that import torch and a framework, some of them three.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_samples(tmp_path_factory.mktemp("samples"), names=["digits"])["digits"]


def command(digits: Path, output: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "workers.train", "--framework", "timm", "--model", "test_resnet",
        "--dataset", str(digits), "--image-size", "32", "--output", str(output), *more,
    ]  # fmt: skip


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "MODELYARD_HOME": str(home), "MODELYARD_THREADS": "1"}


def run(arguments: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=ROOT, env=environment(home), capture_output=True, text=True, check=False
    )


def test_a_job_trains_in_the_foreground_and_tells_where_its_model_is(
    digits: Path, tmp_path: Path
) -> None:
    done = run(command(digits, tmp_path / "o", "--epochs", "1", "--set", "mixup=0.2"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "epoch 1:" in done.stdout
    assert "completed: 1 epoch, accuracy" in done.stdout
    assert (tmp_path / "o/checkpoints/best.safetensors").exists()
    assert (tmp_path / "o/events.jsonl").exists()


def test_a_job_begins_with_anothers_weights_and_finds_its_batch_size(
    digits: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert run(command(digits, first, "--epochs", "2"), tmp_path).returncode == 0
    more = ("--epochs", "1", "--batch-size", "0", "--from-job", str(first))
    done = run(command(digits, second, *more), tmp_path)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in (second / "events.jsonl").read_text().splitlines()]
    decided = {e["data"]["name"]: e["data"] for e in events if e["type"] == "decided"}
    assert int(decided["batch_size"]["value"]) > 0
    assert decided["batch_size"]["why"]
    assert top1s(second)[0] > top1s(first)[0] + 0.1  # it did not begin at random

    (tmp_path / "empty").mkdir()
    refused = run(command(digits, tmp_path / "o", "--initial", str(tmp_path / "empty")), tmp_path)
    assert refused.returncode == 1
    assert "There is no best model below" in " ".join(refused.stdout.split())


def top1s(output: Path) -> list[float]:
    events = map(json.loads, (output / "events.jsonl").read_text().splitlines())
    return [e["data"]["values"]["top1"] for e in events if e["type"] == "metrics"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--set", "mixpu=0.2"], "hyperparameters: mixpu: Extra inputs are not permitted"),
        (["--set", "mixup"], "NAME=VALUE"),
        (["--dataset", "/nowhere"], "/nowhere"),
        (["--framework", "tensorflow"], "tensorflow"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence_and_nothing_is_made(
    digits: Path, tmp_path: Path, more: list[str], words: str
) -> None:
    done = run(command(digits, tmp_path / "o", *more), tmp_path)
    assert done.returncode not in (0, -signal.SIGINT)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "o").exists()


def test_ctrl_c_writes_a_checkpoint_and_resume_goes_on_from_it(
    digits: Path, tmp_path: Path
) -> None:
    output = tmp_path / "o"
    arguments = command(digits, output, "--epochs", "3")
    process = subprocess.Popen(
        arguments, cwd=ROOT, env=environment(tmp_path), stdout=subprocess.PIPE, text=True
    )
    events = output / "events.jsonl"
    wait_for(
        lambda: events.exists() and '"metrics"' in events.read_text(),
        timeout_seconds=300,
        what="the first epoch",
    )
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 3, printed
    assert "--resume goes on" in printed
    done = run([*arguments, "--resume"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "completed: 3 epochs" in done.stdout
