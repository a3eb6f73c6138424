"""Every framework trains every task it names on every format it names, and its models are of use.

What is trained here is tiny (shapes at 64 pixels, two epochs, random weights), but all of it is
real: the reader of the format, the library's training, the evaluation, the export and its
comparison. A new line in a framework's ``formats`` is a new case without a change here.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters import get_adapter
from adapters.contract import DatasetFormat, Result, StopReason, TaskType, TrainingJob
from adapters.exporting import TOLERANCE, export
from adapters.finishing import RememberingReporter, finish
from adapters.frameworks import FRAMEWORKS
from adapters.wire import ExportFormat
from tests.shapes import CLASSES, SIDE, compose

T = TaskType
# Without them the second epoch of a YOLO model is still warming up, on other images.
_STILL: dict[str, Any] = {"warmup_epochs": 0.0, "plots": False}
_UNMOVED = _STILL | {"mosaic": 0.0, "scale": 0.0, "translate": 0.0}
# The smallest model of each framework and task, and the hyperparameters that let two epochs show.
MODELS: dict[tuple[str, TaskType], tuple[str, dict[str, Any]]] = {
    ("timm", T.IMAGE_CLASSIFICATION): ("test_resnet", {"augment": False, "warmup_epochs": 0.0}),
    ("ultralytics", T.IMAGE_CLASSIFICATION): ("yolo11n-cls", _STILL),
    ("ultralytics", T.OBJECT_DETECTION): ("yolo11n", _UNMOVED),
    ("ultralytics", T.INSTANCE_SEGMENTATION): ("yolo11n-seg", _UNMOVED),
    ("ultralytics", T.POSE_ESTIMATION): ("yolo11n-pose", _UNMOVED),
    ("ultralytics", T.ORIENTED_DETECTION): ("yolo11n-obb", _UNMOVED),
    ("ultralytics", T.SEMANTIC_SEGMENTATION): ("yolo26n-sem", _UNMOVED),
    ("huggingface", T.IMAGE_CLASSIFICATION): (
        "resnet-test",
        {"augment": False, "warmup_epochs": 0.0},
    ),
    ("huggingface", T.OBJECT_DETECTION): ("yolos-test", {"augment": False, "warmup_epochs": 0.0}),
    ("huggingface", T.SEMANTIC_SEGMENTATION): (
        "segformer-test",
        {"augment": False, "warmup_epochs": 0.0},
    ),
}
LEARNING_RATE = {"timm": 3e-3, "ultralytics": 2e-3, "huggingface": 1e-2}


@dataclass(frozen=True)
class Case:
    framework: str
    task_type: TaskType
    format: DatasetFormat
    multi_label: bool

    def __str__(self) -> str:
        several = "-multi" if self.multi_label else ""
        return f"{self.framework}-{self.task_type}-{self.format}{several}"


def _cases() -> Iterator[Case]:
    for info in FRAMEWORKS.values():
        for task_type, formats in info.formats.items():
            for format in formats:
                if task_type != T.IMAGE_CLASSIFICATION:
                    yield Case(info.name, task_type, format, False)
                    continue
                if format == DatasetFormat.IMAGEFOLDER:
                    yield Case(info.name, task_type, format, False)
                if info.multi_label:
                    yield Case(info.name, task_type, format, True)


CASES = list(_cases())


class Recorder:
    """Keeps what an adapter reports."""

    def __init__(self) -> None:
        self.measured: dict[int, dict[str, float]] = {}
        self.artifacts: list[tuple[str, Path]] = []
        self.lines: list[str] = []

    def progress(self, **told: Any) -> None:
        assert 0 <= told["step"] <= told["steps"]

    def metrics(self, *, epoch: int, values: Mapping[str, float], step: int | None = None) -> None:
        assert epoch not in self.measured
        self.measured[epoch] = dict(values)

    def decided(self, name: str, value: float | str, *, why: str) -> None:
        self.lines.append(f"{name} is {value}: {why}")

    def artifact(self, path: Path, *, kind: str) -> None:
        assert path.exists()
        self.artifacts.append((kind, path))

    def log(self, line: str) -> None:
        self.lines.append(line)

    def should_stop(self) -> StopReason | None:
        return None


@dataclass(frozen=True)
class Trained:
    job: TrainingJob
    result: Result
    recorder: Recorder


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tests share the machine; a second thread only waits for the first."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], Trained]:
    """Return a function that trains a case when it is first asked for."""
    return cache(lambda case: _train(case, tmp_path_factory.mktemp(str(case))))


def _train(case: Case, folder: Path) -> Trained:
    model_name, hyperparameters = MODELS[case.framework, case.task_type]
    data = compose(
        folder / "data",
        format=case.format,
        task_type=case.task_type,
        multi_label=case.multi_label,
        train=32,
    )
    job = TrainingJob(
        id=1,
        attempt=1,
        framework=case.framework,
        model_name=model_name,
        task_type=case.task_type,
        dataset_path=data,
        dataset_format=case.format,
        epochs=2,
        batch_size=4,
        learning_rate=LEARNING_RATE[case.framework],
        image_size=SIDE,
        hyperparameters={"workers": 0, **hyperparameters},
    ).placed(output_dir=folder / "output", weights_dir=folder / "weights", compute_device="cpu")
    adapter, recorder = get_adapter(case.framework), Recorder()
    reporter = RememberingReporter(recorder)
    result = adapter.train(job, reporter)
    finish(job, adapter, result, reporter)
    return Trained(job, result, recorder)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_model_is_trained_evaluated_and_exported(
    case: Case, trained: Callable[[Case], Trained]
) -> None:
    found = trained(case)
    _check_losses(found)
    _check_artifacts(found)
    # ONNX of what each format led to, TorchScript once for a model.
    first = next(c for c in CASES if (c.framework, c.task_type) == (case.framework, case.task_type))
    _check_exports(found, formats=list(ExportFormat) if case == first else [ExportFormat.ONNX])


def _check_losses(found: Trained) -> None:
    measured = found.recorder.measured
    assert sorted(measured) == [1, 2]
    for values in measured.values():
        assert all(math.isfinite(value) for value in values.values())
    assert measured[2]["train_loss"] < measured[1]["train_loss"]
    assert found.result.epochs_completed == 2
    assert found.result.stopped is None
    assert found.result.best is not None
    assert found.result.best.metric in measured[found.result.best.epoch]


def _check_artifacts(found: Trained) -> None:
    kinds = {kind for kind, _ in found.recorder.artifacts}
    assert {"checkpoint", "evaluation", "model_card"} <= kinds, found.recorder.lines
    assert found.job.output_dir is not None
    evaluation = json.loads((found.job.output_dir / "evaluation/evaluation.json").read_text())
    assert evaluation["task_type"] == found.job.task_type
    for kind, path in found.recorder.artifacts:
        assert path.is_relative_to(found.job.output_dir), kind


def _check_exports(found: Trained, *, formats: Sequence[ExportFormat]) -> None:
    predictor = get_adapter(found.job.framework).load(found.job)
    assert set(CLASSES) <= set(predictor.classes)
    for format in formats:
        exported = export(found.job, predictor, format)
        assert exported.largest_difference <= TOLERANCE
        assert exported.path.stat().st_size > 0


# What a person does with a model who has never heard of Modelyard.
PLAIN = {
    "timm": """
import json, safetensors, timm, torch
with safetensors.safe_open(path, framework="pt") as file:
    told = json.loads(file.metadata()["modelyard"])
classes = len(told["classes"])
model = timm.create_model(
    told["model_name"], num_classes=classes, checkpoint_path=path, **told["model_arguments"]
)
output = model.eval()(torch.zeros(1, *told["data_config"]["input_size"]))
assert output.shape == (1, classes), output.shape
""",
    "ultralytics": """
import numpy
from ultralytics import YOLO
[result] = YOLO(path).predict(numpy.zeros((64, 64, 3), numpy.uint8), verbose=False, imgsz=64)
assert set(result.names.values()) >= {"square", "triangle", "disc"}, result.names
""",
    "huggingface": """
import torch
from transformers import AutoConfig, AutoImageProcessor
import transformers
config = AutoConfig.from_pretrained(path)
kind = getattr(transformers, config.architectures[0])
model, told = kind.from_pretrained(path, output_loading_info=True)
assert not told["missing_keys"] and not told["unexpected_keys"], told
processor = AutoImageProcessor.from_pretrained(path)
inputs = processor(images=torch.zeros(3, 64, 64, dtype=torch.uint8), return_tensors="pt")
assert torch.isfinite(model.eval()(**inputs).logits).all()
assert set(config.id2label.values()) >= {"square", "triangle", "disc"}, config.id2label
""",
}


@pytest.mark.timeout(900)  # trains every case where it is the only test
@pytest.mark.parametrize("framework", sorted(FRAMEWORKS))
def test_its_models_load_in_the_plain_library(
    framework: str, trained: Callable[[Case], Trained], tmp_path: Path
) -> None:
    paths = {
        str(case): trained(case).result.best_model_path
        for case in CASES
        if case.framework == framework
    }
    code = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "def load(path):\n"
        + "".join(f"    {line}\n" for line in PLAIN[framework].strip().splitlines())
        + "for name, path in zip(sys.argv[1::2], sys.argv[2::2]):\n"
        "    print(name, flush=True); load(path)\n"
    )
    arguments = [part for pair in paths.items() for part in pair]
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1",
             "YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0", "MPLCONFIGDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
