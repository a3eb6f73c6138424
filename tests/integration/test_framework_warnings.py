"""What frameworks say reaches the job's log, whichever way they say it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.data_sets import make_imagefolder
from tests.worker_service import ROOT

# A framework that trains nothing and says everything, each library by its own means. They are
# imported with it, in the template, as adapters import them.
LOUD = """
import logging, sys, warnings
import timm, torch, transformers, ultralytics
from pydantic import BaseModel
from adapters.catalog import ModelEntry
from adapters.contract import DatasetFormat, Result, TaskType
from adapters.frameworks import FrameworkInfo

class Nothing(BaseModel):
    pass

TASK = TaskType.IMAGE_CLASSIFICATION
INFO = FrameworkInfo(
    name="loud", title="Loud", licence="MIT", task_types=(TASK,), optimizers=("none",),
    formats={TASK: (DatasetFormat.IMAGEFOLDER,)}, hyperparameters=Nothing,
    models=(ModelEntry("loud", "loud", (str(TASK),), 0.1, 32, False),),
)

class LoudAdapter:
    framework = "loud"

    def train(self, job, reporter):
        logging.getLogger("timm.models").warning("timm warns")
        ultralytics.utils.LOGGER.warning("ultralytics warns")
        transformers.utils.logging.get_logger("transformers.trainer").warning("transformers warns")
        transformers.utils.logging.get_logger("transformers.trainer").warning_once("once")
        warnings.warn("python warns", UserWarning)
        warnings.warn("python deprecates", FutureWarning)
        torch.tensor([1.0, 2.0]).reshape(2, 1).T.resize_(4, 1)
        torch.searchsorted(torch.arange(6).reshape(2, 3).T, torch.zeros(3, 1, dtype=torch.int64))
        print("a line to stderr", file=sys.stderr)
        reporter.metrics(epoch=1, values={"top1": 0.5})
        return Result(1)

    def load(self, job):
        raise NotImplementedError
"""


@pytest.fixture
def loud(tmp_path: Path) -> Path:
    """Return a folder with the framework in it, as an installer would leave it."""
    site = tmp_path / "site"
    info = site / "loud-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[modelyard.adapters]\nloud = loud:LoudAdapter\n[modelyard.frameworks]\nloud = loud:INFO\n"
    )
    (site / "loud.py").write_text(LOUD)
    return site


def test_warnings_of_every_framework_are_lines_of_the_log(tmp_path: Path, loud: Path) -> None:
    data = make_imagefolder(tmp_path / "data")
    # Without what importing the adapters in other tests left in this process.
    theirs = ("YOLO_", "HF_", "TRANSFORMERS_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    environ = {**clean, "PYTHONPATH": str(loud), "MODELYARD_HOME": str(tmp_path / "home")}
    command = [
        sys.executable, "-m", "workers.train", "--framework", "loud", "--model", "loud",
        "--dataset", str(data), "--epochs", "1", "--device", "cpu",
        "--output", str(tmp_path / "out"),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert (tmp_path / "out" / "events.jsonl").exists(), done.stderr
    events = map(json.loads, (tmp_path / "out" / "events.jsonl").read_text().splitlines())
    log = "\n".join(line for e in events if e["type"] == "log" for line in e["data"]["lines"])
    for said in (
        "timm warns",
        "ultralytics warns",
        "transformers warns",
        "once",
        "python warns",
        "python deprecates",
        "non-contiguous",  # torch.searchsorted, from C++
        "a line to stderr",
    ):
        assert said in log, f"{said!r} is not in:\n{log}"
