"""What may be asked of timm, and whether timm can do all of it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, get_args

import pytest
import timm.optim
from pydantic import ValidationError
from timm.data import create_transform

from adapters.contract import DatasetFormat, TaskType, UnknownFramework
from adapters.frameworks import FRAMEWORKS, framework_info
from adapters.schemas.timm import AutoAugment, TimmHyperparameters


def test_every_hyperparameter_has_a_default_and_a_description() -> None:
    TimmHyperparameters()
    for name, field in TimmHyperparameters.model_json_schema()["properties"].items():
        assert field["description"], name
        assert "default" in field, name


@pytest.mark.parametrize(
    "wrong",
    [
        {"mixupp": 0.1},
        {"mixup": -0.1},
        {"mixup": "0.1"},
        {"mixup": True},
        {"mixup": float("nan")},
        {"weight_decay": float("inf")},
        {"label_smoothing": 1.0},
        {"scheduler": "plateau"},
        {"auto_augment": "rand-m99"},
        {"accumulation_steps": 0},
        {"accumulation_steps": 1.5},
        {"workers": 17},
        {"workers": -1},
        {"ema": 1},
        {"precision": "fp8"},
        {"gradient_clip": 0.0},
        {"freeze_backbone": True, "layer_decay": 0.8},
        {"freeze_backbone": True, "freeze_stages": 1},
        {"freeze_stages": -1},
        {"class_weights": "equal"},
        {"class_weights": [1.0, -1.0]},
        {"class_weights": ["1"]},
        {"class_weights": "balanced", "loss": "poly"},
    ],
)
def test_a_wrong_hyperparameter_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        TimmHyperparameters.model_validate(wrong)
    assert any(name in str(caught.value) for name in wrong)


def test_whole_numbers_are_numbers() -> None:
    assert TimmHyperparameters.model_validate({"warmup_epochs": 3}).warmup_epochs == 3.0


def test_nothing_that_changes_what_a_digit_means_is_on_by_default() -> None:
    defaults = TimmHyperparameters()
    assert defaults.hflip == defaults.vflip == 0.0
    assert defaults.auto_augment == "none"


def test_timm_knows_every_optimizer_that_may_be_named() -> None:
    assert set(framework_info("timm").optimizers) <= set(timm.optim.list_optimizers())


@pytest.mark.parametrize("policy", [p for p in get_args(AutoAugment) if p != "none"])
def test_timm_knows_every_augmentation_policy(policy: str) -> None:
    assert create_transform(32, is_training=True, auto_augment=policy, use_prefetcher=True)


def test_timm_classifies_images_of_one_class_or_several() -> None:
    info = framework_info("timm")
    assert info.task_types == (TaskType.IMAGE_CLASSIFICATION,)
    assert info.multi_label
    assert set(info.formats[TaskType.IMAGE_CLASSIFICATION]) == {
        DatasetFormat.IMAGEFOLDER,
        DatasetFormat.YOLO,
        DatasetFormat.COCO,
    }
    assert info.optimizers[0] == "adamw"


def test_an_unknown_framework_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownFramework, match="timm"):
        framework_info("keras")


def test_every_framework_is_complete() -> None:
    for name, info in FRAMEWORKS.items():
        assert info.name == name
        assert info.title
        assert info.licence
        assert info.optimizers
        assert set(info.formats) == set(info.task_types)
        info.hyperparameters()


def test_describing_frameworks_and_models_imports_no_training_library() -> None:
    code = (
        "import sys, adapters.frameworks, adapters.catalog, adapters.weights\n"
        "adapters.catalog.models()\n"
        "bad = {'torch', 'timm', 'ultralytics', 'numpy', 'PIL'} & set(sys.modules)\n"
        "sys.exit(f'imported: {bad}' if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
