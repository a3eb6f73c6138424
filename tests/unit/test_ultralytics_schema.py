"""What may be set on an Ultralytics job, and the catalog of its models."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from adapters.catalog import find_model, models
from adapters.contract import DatasetFormat, TaskType
from adapters.frameworks import framework_info
from adapters.schemas.ultralytics import (
    DEFAULT_OPTIMIZER,
    OPTIMIZERS,
    UltralyticsHyperparameters,
    is_rtdetr,
    misfits,
)
from tests.job_facts import job_facts


def test_nothing_has_to_be_set() -> None:
    UltralyticsHyperparameters.model_validate({})


def test_every_field_is_described_and_has_a_default_that_it_allows() -> None:
    for name, field in UltralyticsHyperparameters.model_fields.items():
        assert field.description, name
        UltralyticsHyperparameters.model_validate({name: field.default})


def test_what_changes_the_meaning_of_an_image_is_off_unless_asked_for() -> None:
    options = UltralyticsHyperparameters()
    assert options.fliplr == options.flipud == options.degrees == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"mosaic": 1.1},
        {"mosaic": -0.1},
        {"mosaic": "1.0"},
        {"mosaic": True},
        {"momentum": 1.0},
        {"lrf": float("nan")},
        {"box": float("inf")},
        {"freeze": 1.5},
        {"workers": 17},
        {"patience": -1},
        {"nbs": 0},
        {"precision": "int8"},
        {"cfg": "/etc/passwd"},
        {"data": "coco8.yaml"},
        {"model": "yolo11n.pt"},
    ],
)
def test_a_value_out_of_bounds_or_an_unknown_name_is_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValidationError) as caught:
        UltralyticsHyperparameters.model_validate(wrong)
    assert caught.value.errors()[0]["loc"] == (name,)


def test_the_framework_offers_every_task_and_the_formats_it_is_trained_on() -> None:
    info = framework_info("ultralytics")
    assert set(info.task_types) == set(info.formats) == set(TaskType)
    assert info.formats[TaskType.IMAGE_CLASSIFICATION] == (DatasetFormat.IMAGEFOLDER,)
    assert DatasetFormat.COCO in info.formats[TaskType.POSE_ESTIMATION]
    assert DatasetFormat.MASKS in info.formats[TaskType.SEMANTIC_SEGMENTATION]
    assert info.hyperparameters is UltralyticsHyperparameters
    assert info.optimizers == OPTIMIZERS
    assert info.optimizers[0] == DEFAULT_OPTIMIZER


def test_the_catalog_knows_sizes_and_who_has_weights() -> None:
    nano = find_model("ultralytics", "yolo11n")
    assert nano is not None
    assert nano.task_types == (str(TaskType.OBJECT_DETECTION),)
    assert (nano.params_m, nano.input_size, nano.pretrained) == (2.62, 640, True)
    without_weights = find_model("ultralytics", "yolov8n-p2")
    assert without_weights is not None
    assert not without_weights.pretrained


@pytest.mark.parametrize("family", ["yolov8", "yolo11", "yolo12", "yolo26"])
def test_the_catalog_has_every_size_of_a_family(family: str) -> None:
    sizes = [find_model("ultralytics", f"{family}{size}") for size in "nsmlx"]
    params = [entry.params_m for entry in sizes if entry is not None]
    assert len(params) == 5
    assert params == sorted(params)


@pytest.mark.parametrize(
    ("name", "task_type"),
    [
        ("yolo11n-seg", TaskType.INSTANCE_SEGMENTATION),
        ("yolo26n-pose", TaskType.POSE_ESTIMATION),
        ("yolov8x-obb", TaskType.ORIENTED_DETECTION),
        ("yolo12s-cls", TaskType.IMAGE_CLASSIFICATION),
        ("yolo26n-sem", TaskType.SEMANTIC_SEGMENTATION),
        ("rtdetr-l", TaskType.OBJECT_DETECTION),
        ("yolov8n-rtdetr", TaskType.OBJECT_DETECTION),
        ("yolov9c-seg", TaskType.INSTANCE_SEGMENTATION),
    ],
)
def test_the_catalog_tells_what_a_model_is_for(name: str, task_type: TaskType) -> None:
    entry = find_model("ultralytics", name)
    assert entry is not None
    assert entry.task_types == (str(task_type),)
    assert entry.input_size == (224 if task_type == TaskType.IMAGE_CLASSIFICATION else 640)


@pytest.mark.parametrize(
    "name",
    # Text encoders and backbones that would be fetched, a task that the API has not, no name.
    ["yolov8s-world", "yoloe-11s-seg", "yolo11-cls-resnet18", "yolo26n-depth", "../yolo11n", ""],
)
def test_the_catalog_lacks_what_cannot_be_trained(name: str) -> None:
    assert find_model("ultralytics", name) is None


def test_the_catalog_is_that_of_the_installed_version() -> None:
    from adapters.ultralytics_training.models import packaged_models

    assert {entry.name for entry in models("ultralytics")} == set(packaged_models())


def test_schema_and_catalog_need_no_training_library() -> None:
    script = (
        "import sys, adapters.frameworks, adapters.catalog as c;"
        "from adapters.ultralytics_training.models import packaged_models;"
        "c.models('ultralytics'); packaged_models();"
        "sys.exit(bool({'torch', 'ultralytics', 'cv2', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize(
    ("options", "task_type", "model_name", "named"),
    [
        ({"mosaic": 0.5}, TaskType.IMAGE_CLASSIFICATION, "yolo11n-cls", ["mosaic"]),
        ({"dropout": 0.1}, TaskType.OBJECT_DETECTION, "yolo11n", ["dropout"]),
        ({"pose": 1.0, "angle": 1.0}, TaskType.POSE_ESTIMATION, "yolo11n-pose", ["angle"]),
        (
            {"single_cls": True, "iou": 0.5},
            TaskType.SEMANTIC_SEGMENTATION,
            "yolo26n-sem",
            ["iou", "single_cls"],
        ),
        ({"mask_ratio": 2}, TaskType.INSTANCE_SEGMENTATION, "yolo11n-seg", []),
        ({"box": 5.0, "mosaic": 0.0}, TaskType.OBJECT_DETECTION, "rtdetr-l", ["box"]),
        ({}, TaskType.IMAGE_CLASSIFICATION, "yolo11n-cls", []),
    ],
)
def test_a_hyperparameter_of_another_task_is_named(
    options: dict[str, Any], task_type: TaskType, model_name: str, named: list[str]
) -> None:
    checked = UltralyticsHyperparameters.model_validate(options)
    told = list(misfits(checked, job_facts(task_type=task_type, model_name=model_name)))
    assert [misfit.field for misfit in told] == [f"hyperparameters.{name}" for name in named]
    for misfit, name in zip(told, named, strict=True):
        assert misfit.message.startswith(f"'{name}' means nothing for")


def test_models_with_the_losses_of_rtdetr_are_known_by_their_names() -> None:
    from adapters.ultralytics_training.models import RTDETR, packaged_models

    with_its_head = {model.name for model in packaged_models().values() if model.head == RTDETR}
    assert {name for name in packaged_models() if is_rtdetr(name)} == with_its_head


@pytest.mark.parametrize(
    ("classes", "refused"), [(("cat",), True), (("cat", "background"), False), (None, False)]
)
def test_semantic_segmentation_needs_two_classes(
    classes: tuple[str, ...] | None, refused: bool
) -> None:
    facts = job_facts(task_type=TaskType.SEMANTIC_SEGMENTATION, classes=classes)
    told = list(misfits(UltralyticsHyperparameters(), facts))
    assert [misfit.field for misfit in told] == (["task_type"] if refused else [])


def test_the_schema_tells_clients_which_tasks_have_a_field() -> None:
    fields = UltralyticsHyperparameters.model_json_schema()["properties"]
    assert fields["angle"]["task_types"] == ["oriented_detection"]
    assert "task_types" not in fields["patience"]
