"""The table of transformers' models: what it says is what the installed library makes of it."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from adapters.catalog import find_model, models
from adapters.contract import TaskType, TrainingError
from adapters.huggingface_training.architecture import (
    forward_arguments,
    make_config,
    make_processor,
    new_model,
)
from adapters.huggingface_training.build import layer_of
from adapters.huggingface_training.zoo import ModelSpec, find_spec, specs
from adapters.weights import find_weights, weights_file_name

# One of each architecture is built here; the catalog's command builds all of them.
ONE_EACH = list({spec.model_type: spec for spec in specs() if spec.hub}.values())


def built(
    spec: ModelSpec, task_type: TaskType, *, image_size: int | None = None
) -> torch.nn.Module:
    config = make_config(
        spec,
        task_type=task_type,
        classes=["a", "b", "c"],
        image_size=image_size or spec.image_size,
    )
    with torch.device("meta"):
        return new_model(spec, config, task_type)


def test_the_catalog_lists_the_table() -> None:
    assert {entry.name for entry in models("huggingface")} == {spec.name for spec in specs()}
    entry = find_model("huggingface", "vit-base-patch16-224")
    assert entry is not None
    assert entry.params_m == 86.57  # as published, with ImageNet's thousand classes
    assert entry.pretrained
    assert entry.task_types == ("image_classification",)


def test_every_task_has_models_to_fine_tune_and_to_begin_with() -> None:
    counts = Counter((task, spec.hub is not None) for spec in specs() for task in spec.tasks)
    for task in (
        TaskType.IMAGE_CLASSIFICATION,
        TaskType.OBJECT_DETECTION,
        TaskType.SEMANTIC_SEGMENTATION,
    ):
        assert counts[task, True] >= 10
        assert counts[task, False] >= 2


@pytest.mark.parametrize("spec", ONE_EACH, ids=lambda spec: spec.model_type)
def test_each_architecture_is_made_for_ones_own_classes(spec: ModelSpec) -> None:
    for task in spec.tasks:
        model = built(spec, task)
        assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
        processor = make_processor(spec, task_type=task, image_size=spec.image_size)
        assert (processor.size["height"], processor.size["width"]) == (spec.image_size,) * 2


def test_a_published_configuration_is_read_as_data_only() -> None:
    spec = find_spec("vit-tiny-patch16-224")
    assert spec is not None
    published = {
        "model_type": "vit",
        "hidden_size": 96,
        "num_attention_heads": 2,
        "auto_map": {"AutoConfig": "evil.Config"},
        "_name_or_path": "somewhere/else",
        "num_labels": 1000,
    }
    config = make_config(
        spec,
        task_type=TaskType.IMAGE_CLASSIFICATION,
        classes=["a", "b"],
        image_size=224,
        published=published,
    )
    assert config.hidden_size == 96
    assert config.num_labels == 2
    assert not hasattr(config, "auto_map")
    assert config._name_or_path == ""


def test_a_published_configuration_of_another_model_is_refused() -> None:
    spec = find_spec("vit-tiny-patch16-224")
    assert spec is not None
    with pytest.raises(TrainingError, match="is of the type 'bert', not 'vit'"):
        make_config(
            spec,
            task_type=TaskType.IMAGE_CLASSIFICATION,
            classes=["a"],
            image_size=224,
            published={"model_type": "bert"},
        )


def test_places_learnt_at_one_size_are_stretched_to_another() -> None:
    spec = find_spec("vit-test")
    assert spec is not None
    model = built(spec, TaskType.IMAGE_CLASSIFICATION)
    assert forward_arguments(model, image_size=64) == {"interpolate_pos_encoding": True}
    assert forward_arguments(model, image_size=32) == {}


def test_a_models_weights_lie_in_a_folder_of_its_own(tmp_path) -> None:  # type: ignore[no-untyped-def]
    name = weights_file_name("huggingface", "resnet-18")
    assert name == "huggingface/resnet-18/model.safetensors"
    assert find_weights(tmp_path, "huggingface", "resnet-18") is None
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).touch()
    assert find_weights(tmp_path, "huggingface", "resnet-18") == tmp_path / name
    assert find_weights(tmp_path, "huggingface", "../resnet-18") is None


@pytest.mark.parametrize(
    ("parameter", "layer"),
    [
        ("vit.embeddings.cls_token", "vit.embeddings"),
        ("vit.encoder.layer.3.attention.query.weight", "vit.encoder.layer.3"),
        (
            "resnet.encoder.stages.2.layers.1.layer.0.convolution.weight",
            "resnet.encoder.stages.2.layers.1",
        ),
        ("vit.layernorm.weight", "vit.layernorm"),
    ],
)
def test_a_parameter_belongs_to_its_layer(parameter: str, layer: str) -> None:
    assert layer_of(parameter) == layer
