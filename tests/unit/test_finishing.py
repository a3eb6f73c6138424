"""After training: an evaluation and a model card are written, and nothing there fails the job."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adapters import finishing, model_card
from adapters.contract import (
    Best,
    DatasetFormat,
    ErrorKind,
    Result,
    StopReason,
    TaskType,
    TrainingError,
    TrainingJob,
)
from adapters.data.reading import read_for
from adapters.evaluation.run import MOST_WRONG, evaluate
from adapters.finishing import RememberingReporter, finish
from tests.predictors import ByColour
from tests.shapes import compose


@dataclass
class Told:
    """A reporter that keeps what it is told."""

    stop: StopReason | None = None
    lines: list[str] = field(default_factory=list)
    artifacts: dict[str, str] = field(default_factory=dict)
    phases: list[str] = field(default_factory=list)

    def progress(self, **told: Any) -> None:
        self.phases.append(told.get("phase", "train"))

    def metrics(self, **told: Any) -> None:
        pass

    def decided(self, name: str, value: Any, *, why: str) -> None:
        pass

    def artifact(self, path: Path, *, kind: str) -> None:
        assert path.is_file()
        self.artifacts[path.name] = kind

    def log(self, line: str) -> None:
        self.lines.append(line)

    def should_stop(self) -> StopReason | None:
        return self.stop


class Loads:
    framework = "timm"

    def __init__(self, predictor: Any) -> None:
        self._predictor = predictor

    def train(self, job: TrainingJob, reporter: Any) -> Result:
        raise NotImplementedError

    def load(self, job: TrainingJob) -> Any:
        if isinstance(self._predictor, Exception):
            raise self._predictor
        return self._predictor


def placed(
    tmp_path: Path,
    task_type: TaskType = TaskType.IMAGE_CLASSIFICATION,
    format: DatasetFormat = DatasetFormat.IMAGEFOLDER,
    **fields: Any,
) -> TrainingJob:
    data = compose(tmp_path / "shapes", format=format, task_type=task_type, train=6, val=9)
    job = TrainingJob(
        id=7,
        attempt=2,
        framework="timm",
        model_name="resnet18",
        task_type=task_type,
        dataset_path=data,
        dataset_format=format,
        dataset_fingerprint="ab" * 32,
        epochs=3,
        batch_size=0,
        learning_rate=0.01,
        **fields,
    )
    output_dir = tmp_path / "outputs"
    output_dir.mkdir()
    return job.placed(output_dir=output_dir, weights_dir=tmp_path, compute_device="cpu")


def result(job: TrainingJob) -> Result:
    return Result(
        epochs_completed=3,
        best=Best(epoch=2, metric="top1", value=0.66),
        best_model_path=str(job.checkpoints_dir / "best.safetensors"),
    )


def finished(job: TrainingJob, predictor: Any, told: Told | None = None) -> Told:
    told = told or Told()
    reporter = RememberingReporter(told)
    reporter.decided("batch_size", 64, why="the largest that fits")
    reporter.metrics(epoch=2, values={"top1": 0.66, "val_loss": 0.5})
    finish(job, Loads(predictor), result(job), reporter)
    return told


def test_a_classifier_is_evaluated_and_its_worst_images_are_pictures(tmp_path: Path) -> None:
    job = placed(tmp_path)
    told = finished(job, ByColour(read_for(job).classes))
    assert job.output_dir is not None
    whole = json.loads((job.output_dir / "evaluation/evaluation.json").read_text())
    assert (whole["version"], whole["attempt"], whole["task_type"]) == (1, 2, job.task_type)
    val = whole["splits"]["val"]
    assert (val["images"], val["images_in_split"]) == (9, 9)
    content = read_for(job)
    order = [content.classes.index(name) for name in ("square", "triangle", "disc")]
    matrix = np.array(val["confusion"]["matrix"])[np.ix_(order, order)]
    assert matrix.tolist() == [[3, 0, 0], [0, 3, 0], [3, 0, 0]]
    assert len(val["wrong"]) == 3 <= MOST_WRONG
    for entry in val["wrong"]:
        assert told.artifacts[entry["file"]] == "evaluation"
        with Image.open(job.output_dir / "evaluation/wrong" / entry["file"]) as picture:
            assert picture.format == "JPEG"
        assert entry["image"].startswith("val/")
        assert (entry["truth"], entry["predicted"]) == (["disc"], ["square"])
    assert set(told.phases) == {"evaluate"}


@pytest.mark.parametrize("task_type", [TaskType.OBJECT_DETECTION, TaskType.ORIENTED_DETECTION])
def test_a_detector_is_evaluated_in_objects(tmp_path: Path, task_type: TaskType) -> None:
    job = placed(tmp_path, task_type, DatasetFormat.YOLO)
    finished(job, ByColour())
    assert job.output_dir is not None
    whole = json.loads((job.output_dir / "evaluation/evaluation.json").read_text())
    val = whole["splits"]["val"]
    by_name = {row["name"]: row for row in val["classes"]}
    assert by_name["triangle"]["recall"] > by_name["disc"]["recall"] == 0
    matrix = np.array(val["confusion"]["matrix"])
    assert matrix[2, 0] > 0, "discs are taken for squares"
    assert val["most_confused"][0] == {
        "truth": "disc", "predicted": "square", "count": int(matrix[2, 0])
    }  # fmt: skip
    with Image.open(job.output_dir / "evaluation/wrong/val-01.jpg") as picture:
        assert picture.width > 1.8 * picture.height, "truth and prediction, side by side"


def test_the_model_card_tells_what_a_person_must_know(tmp_path: Path) -> None:
    job = placed(tmp_path, hyperparameters={"mixup": 0.2}, seed=5)
    told = finished(job, ByColour(read_for(job).classes))
    assert job.output_dir is not None
    card = (job.output_dir / "model_card.md").read_text()
    assert told.artifacts["model_card.md"] == "model_card"
    for expected in (
        "ab" * 32,
        "| Seed | 5 |",
        "| mixup | 0.2 | given |",
        "| weight\\_decay | ",
        "| batch\\_size | 64 | the largest that fits |",
        "Best epoch: 2, by top1 0.6600.",
        "### Evaluation of the best model: val",
        "| disc | 2 | 3 |",
        'path = "checkpoints/best.safetensors"',
        "Apache-2.0",
        "To be filled in by a person",
        model_card.plain(model_card.modelyard_version()),
    ):
        assert expected in card


def test_what_users_wrote_cannot_change_the_card() -> None:
    name = "a|b <script>alert(1)</script>\n# [x](javascript:y) `z` *w*"
    escaped = model_card.plain(name)
    assert "\n" not in escaped
    for character in "|<[`*#":
        assert escaped.count(character) == escaped.count(f"\\{character}") > 0


def test_a_failed_evaluation_is_told_and_the_card_still_written(tmp_path: Path) -> None:
    error = TrainingError(ErrorKind.CHECKPOINT_INVALID, "checkpoint 'best' cannot be read")
    job = placed(tmp_path)
    told = finished(job, error)
    assert "There is no evaluation: checkpoint 'best' cannot be read" in told.lines
    assert set(told.artifacts) == {"model_card.md"}
    assert job.output_dir is not None
    assert "The best model was not evaluated." in (job.output_dir / "model_card.md").read_text()


def test_a_library_that_breaks_is_told_by_its_error(tmp_path: Path) -> None:
    told = finished(placed(tmp_path), ZeroDivisionError("division by zero"))
    assert "There is no evaluation: ZeroDivisionError: division by zero" in told.lines


def test_a_request_to_stop_ends_the_evaluation(tmp_path: Path) -> None:
    job = placed(tmp_path)
    told = finished(job, ByColour(read_for(job).classes), Told(stop=StopReason.NOW))
    assert any("asked to end" in line for line in told.lines)
    assert set(told.artifacts) == {"model_card.md"}


def test_classes_that_have_changed_since_are_refused(tmp_path: Path) -> None:
    told = finished(placed(tmp_path), ByColour(("disc", "square", "triangle", "star")))
    assert any("not those that the model was trained on" in line for line in told.lines)


def test_an_evaluation_is_bounded_in_images_and_in_time(tmp_path: Path) -> None:
    job = placed(tmp_path)
    content = read_for(job)
    predictor = ByColour(content.classes)
    evaluate(job, content=content, predictor=predictor, most_images=4)
    assert job.output_dir is not None
    report = job.output_dir / "evaluation/evaluation.json"
    assert json.loads(report.read_text())["splits"]["val"]["images"] == 4
    evaluate(job, content=content, predictor=predictor, seconds=-1)
    told = json.loads(report.read_text())["splits"]["val"]
    assert (told["images"], told["images_in_split"]) == (9, 9), "one batch is always looked at"


def test_the_evaluation_never_takes_long_beside_the_training() -> None:
    assert finishing.EVALUATION_SHARE <= 0.1
