"""The hyperparameters of transformers jobs: typed, bounded, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from adapters.schemas.huggingface import DEFAULT_OPTIMIZER, OPTIMIZERS, HuggingFaceHyperparameters


def test_a_job_that_sets_nothing_gets_the_defaults() -> None:
    hp = HuggingFaceHyperparameters()
    assert hp.scheduler == "cosine"
    assert hp.class_weights == "none"
    assert hp.hflip == 0.0  # a mirrored digit is another one
    assert DEFAULT_OPTIMIZER in OPTIMIZERS


def test_class_weights_are_a_word_or_a_number_a_class() -> None:
    validate = HuggingFaceHyperparameters.model_validate
    assert validate({"class_weights": "balanced"}).class_weights == "balanced"
    assert validate({"class_weights": [1.0, 2.5]}).class_weights == [1.0, 2.5]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"learning_rte": 0.1}, "learning_rte"),
        ({"weight_decay": "0.1"}, "weight_decay"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"weight_decay": float("nan")}, "weight_decay"),
        ({"ema": 1}, "ema"),
        ({"scheduler": "plateau"}, "scheduler"),
        ({"accumulation_steps": 0}, "accumulation_steps"),
        ({"precision": "int8"}, "precision"),
        ({"rotation": 90.0}, "rotation"),
        ({"workers": 1000}, "workers"),
        ({"class_weights": [1.0, -1.0]}, "class_weights"),
        ({"class_weights": "rare"}, "class_weights"),
        ({"class_weights": [float("nan"), 1.0]}, "class_weights"),
        ({"class_weights": [0.0, 0.0]}, ""),
        ({"freeze_backbone": True, "layer_decay": 0.9}, ""),
    ],
)
def test_what_is_unknown_or_out_of_range_is_refused_by_name(
    given: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        HuggingFaceHyperparameters.model_validate(given)
    where = {str(part) for error in caught.value.errors() for part in error["loc"]}
    assert named in where or not named


def test_every_hyperparameter_says_what_it_is() -> None:
    for name, field in HuggingFaceHyperparameters.model_fields.items():
        assert field.description, name


def test_what_only_some_tasks_have_is_said_so_that_it_is_refused_before_a_worker_takes_it() -> None:
    fields = HuggingFaceHyperparameters.model_json_schema()["properties"]
    limited = {name: set(f["task_types"]) for name, f in fields.items() if "task_types" in f}
    both = {"image_classification", "semantic_segmentation"}
    assert limited == {
        "label_smoothing": both,
        "class_weights": both,
        "rotation": both,
        "random_erasing": {"image_classification"},
    }
