"""Every task of Ultralytics on every format, from the data to a model that is used and exported."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adapters import batch_size, get_adapter
from adapters.contract import (
    ACCURACY_METRIC,
    DatasetFormat,
    ErrorKind,
    StopReason,
    TaskType,
    TrainingError,
    TrainingJob,
)
from adapters.exporting import TOLERANCE, export
from adapters.prediction import Predictor
from adapters.ultralytics_training import predictor as predictor_module
from adapters.ultralytics_training.trainer import CheckpointingTrainer
from adapters.wire import ExportFormat
from tests.integration.test_matrix import MODELS
from tests.integration.test_ultralytics_adapter import (
    ListReporter,
    Trained,
    _assert_same_weights,
    _one_thread,
    _stop_at,
    _train,
    _without_speed,
)
from tests.shapes import CLASSES, KEYPOINTS, SIDE, compose

__all__ = ["_one_thread"]  # a fixture, used by being here

BOXES = {"precision", "recall", "map50", "map50_95"}
MASKS = {"mask_precision", "mask_recall", "mask_map50", "mask_map50_95"}
POSES = {"pose_precision", "pose_recall", "pose_map50", "pose_map50_95"}
ALWAYS = {"train_loss", "val_loss", "learning_rate", "images_per_second"}


@dataclasses.dataclass(frozen=True)
class Case:
    """A model trained on a format of data, and what it measures."""

    model: str
    task: TaskType
    format: DatasetFormat
    metrics: frozenset[str]
    losses: frozenset[str]

    def __str__(self) -> str:
        return f"{self.model}-{self.format}"


def _case(
    model: str, task: TaskType, format: DatasetFormat, metrics: set[str], losses: str
) -> Case:
    return Case(model, task, format, frozenset(metrics), frozenset(losses.split()))


CASES = [
    _case("yolo11n-cls", TaskType.IMAGE_CLASSIFICATION, DatasetFormat.IMAGEFOLDER,
          {"top1", "top5"}, ""),
    _case("yolo26n", TaskType.OBJECT_DETECTION, DatasetFormat.COCO, BOXES, "box cls l1"),
    _case("yolo11n-seg", TaskType.INSTANCE_SEGMENTATION, DatasetFormat.COCO, BOXES | MASKS,
          "box seg cls dfl sem"),
    _case("yolo26n-seg", TaskType.INSTANCE_SEGMENTATION, DatasetFormat.YOLO, BOXES | MASKS,
          "box seg cls l1 sem"),
    _case("yolo11n-pose", TaskType.POSE_ESTIMATION, DatasetFormat.YOLO, BOXES | POSES,
          "box pose kobj cls dfl"),
    _case("yolo26n-pose", TaskType.POSE_ESTIMATION, DatasetFormat.COCO, BOXES | POSES,
          "box pose kobj cls l1 rle"),
    _case("yolo11n-obb", TaskType.ORIENTED_DETECTION, DatasetFormat.YOLO, BOXES,
          "box cls dfl angle"),
    _case("yolo26n-sem", TaskType.SEMANTIC_SEGMENTATION, DatasetFormat.MASKS,
          {"mean_iou", "pixel_accuracy"}, "ce dice aux"),
]  # fmt: skip
IN_THE_MATRIX = {model for model, _ in MODELS.values()}
SEMANTIC = {
    format: _case("yolo26n-sem", TaskType.SEMANTIC_SEGMENTATION, format, set(), "")
    for format in (DatasetFormat.YOLO, DatasetFormat.COCO)
}
RTDETR = _case(
    "yolov8n-rtdetr", TaskType.OBJECT_DETECTION, DatasetFormat.YOLO, BOXES, "giou cls l1"
)


def _job(case: Case, folder: Path, output: Path, **changes: Any) -> TrainingJob:
    data = folder / f"{case.task}-{case.format}"
    if not data.exists():
        compose(data, format=case.format, task_type=case.task, train=12, val=6)
    options = {"plots": False, **changes.pop("options", {})}
    job = TrainingJob(
        id=7,
        attempt=1,
        framework="ultralytics",
        model_name=case.model,
        task_type=case.task,
        dataset_path=data,
        dataset_format=case.format,
        epochs=2,
        batch_size=4,
        learning_rate=0.002,
        image_size=SIDE,
        hyperparameters=options,
    )
    placed = job.placed(output_dir=output, weights_dir=folder / "weights", compute_device="cpu")
    return dataclasses.replace(placed, **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tasks")


@pytest.fixture(scope="module")
def all_trained(folder: Path) -> dict[Case, Trained]:
    """Each case trained once for two epochs, when it is first asked for."""
    return {}


@pytest.fixture(params=CASES, ids=str)
def trained(
    request: pytest.FixtureRequest, folder: Path, all_trained: dict[Case, Trained]
) -> tuple[Case, Trained]:
    case: Case = request.param
    return case, _trained(case, folder, all_trained)


def _trained(case: Case, folder: Path, all_trained: dict[Case, Trained]) -> Trained:
    if case not in all_trained:
        all_trained[case] = _train(_job(case, folder, folder / str(case)))
    return all_trained[case]


def test_a_task_trains_and_tells_its_metrics_by_name(trained: tuple[Case, Trained]) -> None:
    case, run = trained
    parts = {f"{split}_{part}_loss" for split in ("train", "val") for part in case.losses}
    assert [epoch for epoch, _ in run.reporter.measured] == [1, 2]
    for _, values in run.reporter.measured:
        assert set(values) == case.metrics | parts | ALWAYS
        assert all(math.isfinite(value) for value in values.values())
    assert run.result.epochs_completed == 2
    assert run.result.best is not None
    assert run.result.best.metric == ACCURACY_METRIC[case.task]
    measured = dict(run.reporter.measured)
    assert run.result.accuracy == measured[run.result.best.epoch][run.result.best.metric]
    assert ("precision" in dict(run.reporter.decisions)) is True
    assert run.job.output_dir is not None
    assert not (run.job.output_dir / "ultralytics" / "data").exists()


def test_a_task_stopped_midway_and_resumed_ends_with_the_same_weights(
    trained: tuple[Case, Trained], folder: Path, tmp_path: Path
) -> None:
    case, whole = trained
    job = _job(case, folder, tmp_path / "out")
    stopped = _train(job, ListReporter(_stop_at(StopReason.NOW, epoch=2, step=1)))
    assert stopped.result.stopped is StopReason.NOW
    resumed = _train(dataclasses.replace(job, resume=True, attempt=2))
    assert resumed.reporter.progressed[0]["step"] == 1
    told = [*stopped.reporter.measured, *resumed.reporter.measured]
    assert _without_speed(told) == _without_speed(whole.reporter.measured)
    _assert_same_weights(resumed, whole)


def test_a_model_says_of_images_of_any_size_what_the_plain_library_says(
    trained: tuple[Case, Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics import YOLO

    case, run = trained
    # Models of two epochs are sure of nothing.
    monkeypatch.setattr(predictor_module, "_LEAST_SCORE_OF_OUTLINES", 0.001)
    predictor = get_adapter("ultralytics").load(run.job)
    assert set(CLASSES) <= set(predictor.classes)
    assert predictor.network().dynamic_batch
    images = _images(run.job.dataset_path)
    plain = YOLO(str(run.result.best_model_path)).predict(
        images, imgsz=SIDE, conf=0.001, retina_masks=True, rect=False, max_det=100, verbose=False,
        device="cpu", save=False, project=str(run.job.output_dir),
    )  # fmt: skip
    predictions = predictor.predict(images)
    assert len(predictions) == len(images)
    for image, prediction, result in zip(images, predictions, plain, strict=True):
        _compare[case.task](prediction, result, image)


def _images(data: Path) -> list[Image.Image]:
    paths = sorted(path for path in data.rglob("*.png") if "masks" not in path.parts)[:2]
    found = [Image.open(path).convert("RGB") for path in paths]
    wide = Image.new("RGB", (150, 70), (20, 20, 20))
    wide.paste(found[0], (40, 3))
    return [*found, wide]


def _compare_scores(prediction: Any, result: Any, image: Image.Image) -> None:
    assert prediction.scores.sum() == pytest.approx(1, abs=1e-4)
    assert np.allclose(prediction.scores, result.probs.data.numpy(), atol=1e-4)


def _compare_classes(prediction: Any, result: Any, image: Image.Image) -> None:
    assert prediction.mask.shape == (image.height, image.width)
    mask = result.semantic_mask
    assert np.array_equal(prediction.mask, np.asarray(getattr(mask, "data", mask)).squeeze())


def _compare_objects(prediction: Any, result: Any, image: Image.Image) -> None:
    found = prediction.objects[:100]
    assert found
    scores = [thing.score for thing in prediction.objects]
    assert scores == sorted(scores, reverse=True)
    given = result.boxes if result.boxes is not None else result.obb
    order = np.argsort(-given.conf.numpy(), kind="stable")
    assert np.allclose([t.score for t in found], given.conf.numpy()[order], atol=1e-4)
    assert all(0 <= edge <= 1 for thing in found for edge in thing.box)
    for thing, i in zip(found, order, strict=True):
        if result.boxes is not None:
            assert np.allclose(thing.box, np.clip(result.boxes.xyxyn[i].numpy(), 0, 1), atol=1e-4)
        else:
            corners = (result.obb.xyxyxyxy[i].numpy() / (image.width, image.height)).ravel()
            assert np.allclose(thing.corners, corners, atol=1e-4)
        if result.masks is not None:
            assert thing.mask.shape == (image.height, image.width)
            assert np.array_equal(thing.mask, result.masks.data[i].numpy().astype(bool))
        if result.keypoints is not None:
            assert len(thing.keypoints) == KEYPOINTS
            size = (image.width, image.height, 1)
            assert np.allclose(thing.keypoints, result.keypoints.data[i].numpy() / size, atol=1e-4)


_compare = {
    TaskType.IMAGE_CLASSIFICATION: _compare_scores,
    TaskType.SEMANTIC_SEGMENTATION: _compare_classes,
    TaskType.OBJECT_DETECTION: _compare_objects,
    TaskType.INSTANCE_SEGMENTATION: _compare_objects,
    TaskType.POSE_ESTIMATION: _compare_objects,
    TaskType.ORIENTED_DETECTION: _compare_objects,
}


@pytest.mark.parametrize(
    "trained", [case for case in CASES if case.model not in IN_THE_MATRIX], indirect=True, ids=str
)
def test_a_model_that_is_not_in_the_matrix_is_exported_too(trained: tuple[Case, Trained]) -> None:
    _, run = trained
    predictor: Predictor = get_adapter("ultralytics").load(run.job)
    for format in ExportFormat:
        assert export(run.job, predictor, format).largest_difference <= TOLERANCE


@pytest.mark.timeout(900)  # trains every case where it is the only test
def test_every_checkpoint_loads_in_plain_ultralytics(
    folder: Path, all_trained: dict[Case, Trained], tmp_path: Path
) -> None:
    script = """
        import sys, json
        from ultralytics import YOLO
        for path, task in json.loads(sys.argv[1]):
            model = YOLO(path)
            assert model.task == task, (model.task, task)
            assert "square" in model.names.values(), model.names
            model.predict(sys.argv[2], imgsz=64, verbose=False, device="cpu")
            YOLO(path.replace("best.pt", "last.pt"))
    """
    tasks = {
        TaskType.IMAGE_CLASSIFICATION: "classify",
        TaskType.OBJECT_DETECTION: "detect",
        TaskType.INSTANCE_SEGMENTATION: "segment",
        TaskType.SEMANTIC_SEGMENTATION: "semantic",
        TaskType.POSE_ESTIMATION: "pose",
        TaskType.ORIENTED_DETECTION: "obb",
    }
    files = [
        (_trained(case, folder, all_trained).result.best_model_path, tasks[case.task])
        for case in CASES
    ]
    Image.new("RGB", (64, 64)).save(tmp_path / "image.png")
    command = [sys.executable, "-c", textwrap.dedent(script), json.dumps(files)]
    done = subprocess.run(
        [*command, str(tmp_path / "image.png")],
        env={**os.environ, "YOLO_CONFIG_DIR": str(tmp_path), "YOLO_OFFLINE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("format", list(SEMANTIC), ids=str)
def test_outlines_train_semantic_segmentation_with_a_background(
    folder: Path, tmp_path: Path, format: DatasetFormat
) -> None:
    run = _train(_job(SEMANTIC[format], folder, tmp_path / "out", epochs=1))
    predictor = get_adapter("ultralytics").load(run.job)
    assert predictor.classes == (*CLASSES, "background")
    for width, height in ((30, 20), (1, 1), (300, 1)):
        (prediction,) = predictor.predict([Image.new("RGB", (width, height))])
        assert prediction.mask is not None
        assert prediction.mask.shape == (height, width)


def test_a_classifier_looks_at_the_middle_of_a_line_without_filling_the_memory(
    folder: Path, all_trained: dict[Case, Trained]
) -> None:
    case = next(case for case in CASES if case.task == TaskType.IMAGE_CLASSIFICATION)
    predictor = get_adapter("ultralytics").load(_trained(case, folder, all_trained).job)
    line = Image.new("RGB", (20_000_000, 1), (200, 100, 50))  # resized as it is: 240 GB
    (prediction,) = predictor.predict([line])
    assert prediction.scores is not None
    assert prediction.scores.sum() == pytest.approx(1, abs=1e-4)


def test_rtdetr_trains_predicts_and_is_exported(folder: Path, tmp_path: Path) -> None:
    # Batches of two on purpose: its losses match every query with every object.
    run = _train(_job(RTDETR, folder, tmp_path / "out", epochs=1, batch_size=6))
    (values,) = (values for _, values in run.reporter.measured)
    parts = {f"{split}_{part}_loss" for split in ("train", "val") for part in RTDETR.losses}
    assert set(values) == BOXES | parts | ALWAYS
    assert dict(run.reporter.decisions)["precision"] == "fp32"
    predictor = get_adapter("ultralytics").load(run.job)
    (prediction,) = predictor.predict([Image.new("RGB", (90, 60))])
    assert prediction.objects
    assert export(run.job, predictor, ExportFormat.ONNX).largest_difference <= TOLERANCE


def test_a_job_begins_with_another_ones_weights_and_a_new_head(
    folder: Path, tmp_path: Path, all_trained: dict[Case, Trained]
) -> None:
    """The first has 100 classes, which makes its head wider; it can be resumed all the same."""
    case = Case("yolo11n", TaskType.OBJECT_DETECTION, DatasetFormat.YOLO, frozenset(), frozenset())
    many = folder / "many"
    compose(many, format=case.format, task_type=case.task, train=8, val=4)
    names = ", ".join([*CLASSES, *(f"c{i}" for i in range(97))])
    text = (many / "data.yaml").read_text().replace(", ".join(CLASSES), names)
    (many / "data.yaml").write_text(text)
    first = _job(case, folder, tmp_path / "first", epochs=1, dataset_path=many)
    _train(first)
    second = _job(
        case,
        folder,
        tmp_path / "second",
        initial_dir=first.output_dir,
        initial_job_id=3,
        pretrained=True,  # another job's weights come before published ones
    )
    whole = _train(second)
    assert any(line.startswith("Transferred") for line in whole.reporter.lines)
    again = dataclasses.replace(second, output_dir=tmp_path / "third")
    _train(again, ListReporter(_stop_at(StopReason.NOW, epoch=2, step=1)))
    resumed = _train(dataclasses.replace(again, resume=True))
    _assert_same_weights(resumed, whole)
    assert get_adapter("ultralytics").load(second).classes == CLASSES


def test_a_job_cannot_begin_with_one_that_has_left_nothing(folder: Path, tmp_path: Path) -> None:
    job = _job(CASES[0], folder, tmp_path / "out", initial_dir=tmp_path, initial_job_id=3)
    with pytest.raises(TrainingError, match=r"job 3.*no best\.pt") as caught:
        _train(job)
    assert caught.value.kind is ErrorKind.WEIGHTS_MISSING


def test_the_largest_batch_is_found_halved_when_memory_runs_out_and_kept_for_a_resume(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[1]
    monkeypatch.setattr(batch_size, "SMALL_ENOUGH", 4)
    job = _job(case, folder, tmp_path / "out", batch_size=0)
    preprocess = CheckpointingTrainer.preprocess_batch

    def run_out(trainer: Any, batch: dict[str, Any]) -> dict[str, Any]:
        if getattr(trainer, "epoch", 0) == 1 and len(batch["img"]) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return preprocess(trainer, batch)

    monkeypatch.setattr(CheckpointingTrainer, "preprocess_batch", run_out)
    run = _train(job)
    sizes = [value for name, value in run.reporter.decisions if name == "batch_size"]
    assert sizes == [4, 2]
    assert [epoch for epoch, _ in run.reporter.measured] == [1, 2]
    again = _train(dataclasses.replace(job, epochs=3, resume=True))
    assert again.reporter.progressed[0]["steps"] == 6
    assert "batch_size" not in dict(again.reporter.decisions)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model_name": "yolo11n-seg"}, "is for instance_segmentation, not for image_classif"),
        ({"model_name": "yolov8s-world"}, "is no model of the installed Ultralytics"),
        ({"dataset_format": DatasetFormat.COCO}, "on 'imagefolder' data sets, not on 'coco'"),
        ({"options": {"mosaic": 0.5}}, "'mosaic' means nothing for image_classification"),
        ({"options": {"freeze": 100}}, "freeze"),
    ],
)
def test_what_does_not_go_together_is_refused_with_a_sentence(
    folder: Path, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(TrainingError, match=told) as caught:
        _train(_job(CASES[0], folder, tmp_path / "out", **changes))
    assert caught.value.kind is ErrorKind.UNSUPPORTED


def test_a_job_without_a_best_model_cannot_be_loaded(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"has left no best\.pt") as caught:
        get_adapter("ultralytics").load(_job(CASES[0], folder, tmp_path / "out"))
    assert caught.value.kind is ErrorKind.CHECKPOINT_INVALID


def test_a_checkpoint_of_another_model_is_not_loaded(
    folder: Path, all_trained: dict[Case, Trained]
) -> None:
    run = _trained(CASES[1], folder, all_trained)
    other = dataclasses.replace(run.job, model_name="yolov8n")
    with pytest.raises(TrainingError, match="is not of the model 'yolov8n'"):
        get_adapter("ultralytics").load(other)


@pytest.mark.timeout(900)
def test_two_processes_train_one_model_stop_together_and_go_on(
    folder: Path, tmp_path: Path
) -> None:
    """On two CPU processes what is done on two GPUs, with Gloo in place of NCCL."""
    case = CASES[0]
    job = _job(case, folder, tmp_path / "out", compute_device="cpu*2", epochs=3)
    # They train on while the request is on its way to them, but no further than the next epoch.
    stopped = _train(job, ListReporter(_stop_at(StopReason.NOW, epoch=2, step=0)))
    assert stopped.result.stopped is StopReason.NOW
    trained = [p for p in stopped.reporter.progressed if p.get("phase", "train") == "train"]
    assert {p["steps"] for p in trained} == {3}  # of 12 images, 4 a step: 2 in each process
    measured = [epoch for epoch, _ in stopped.reporter.measured]
    epoch, step = trained[-1]["epoch"], trained[-1]["step"]
    resumed = _train(dataclasses.replace(job, resume=True))
    begun = resumed.reporter.progressed[0]
    place = (epoch + 1, 0) if epoch in measured else (epoch, step)
    assert (begun["epoch"], begun["step"]) == place
    assert measured + [epoch for epoch, _ in resumed.reporter.measured] == [1, 2, 3]
    assert resumed.result.epochs_completed == 3
    assert get_adapter("ultralytics").load(job).predict(_images(job.dataset_path))


@pytest.mark.parametrize(
    ("size", "told"), [(0, "on one GPU only"), (5, "cannot be shared by 2 devices")]
)
def test_a_batch_that_several_devices_cannot_share_is_refused(
    folder: Path, tmp_path: Path, size: int, told: str
) -> None:
    job = _job(CASES[0], folder, tmp_path / "out", compute_device="cpu*2", batch_size=size)
    with pytest.raises(TrainingError, match=told):
        _train(job)
