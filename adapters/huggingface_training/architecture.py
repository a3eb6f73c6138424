"""Configurations, models and image processors of the library, made from our own data."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import adapters.huggingface_training.offline  # noqa: F401  (before the library)

# isort: split
import torch
from transformers import CONFIG_MAPPING, SegformerImageProcessor, ViTImageProcessor
from transformers.models.auto import modeling_auto
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

from adapters.contract import ErrorKind, TaskType, TrainingError
from adapters.data.content import IGNORED
from adapters.huggingface_training.zoo import ModelSpec

_MAPPINGS = {
    TaskType.IMAGE_CLASSIFICATION: modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    TaskType.OBJECT_DETECTION: modeling_auto.MODEL_FOR_OBJECT_DETECTION_MAPPING,
    TaskType.SEMANTIC_SEGMENTATION: modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING,
}
# Types that the library's own table leaves out; their outputs are read as those of these are.
_PROCESSOR_OF = {"d_fine": "rt_detr", "rt_detr_v2": "rt_detr", "dab-detr": "conditional_detr"}
# What may be read of a configuration that came with weights: never code, never a place.
_NEVER_READ = {
    "_name_or_path",
    "architectures",
    "attn_implementation",
    "auto_map",
    "custom_pipelines",
    "dtype",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "quantization_config",
    "torch_dtype",
    "transformers_version",
    "use_pretrained_backbone",
}


def make_config(
    spec: ModelSpec,
    *,
    task_type: TaskType,
    classes: Sequence[str],
    image_size: int,
    multi_label: bool = False,
    published: Mapping[str, Any] | None = None,
) -> Any:
    """Return the configuration of a model for one's own classes.

    ``published`` is the configuration that came with weights, which knows best what they fit. It
    is data only: its model type must be that of the spec. Raises TrainingError(UNSUPPORTED).
    """
    values = _data(published, spec) if published is not None else dict(spec.config)
    if published is None:
        values["image_size"] = image_size
    names = {str(i): name for i, name in enumerate(classes)}
    kind = CONFIG_MAPPING[spec.model_type]
    known = set(inspect.signature(kind).parameters)
    if "image_size" not in known:
        values.pop("image_size", None)
    elif published is None and spec.model_type in ("yolos", "hiera"):
        values["image_size"] = [image_size, image_size]
    if "num_labels" in known:  # a field of its own, which the names do not set
        values["num_labels"] = len(classes)
    try:
        config = kind(
            **values, id2label=names, label2id={name: int(i) for i, name in names.items()}
        )
    except (TypeError, ValueError, KeyError) as error:
        raise _not_made(spec, image_size, error) from error
    if task_type == TaskType.IMAGE_CLASSIFICATION:
        config.problem_type = (
            "multi_label_classification" if multi_label else "single_label_classification"
        )
    if task_type == TaskType.SEMANTIC_SEGMENTATION:
        for name in ("semantic_loss_ignore_index", "loss_ignore_index"):
            if hasattr(config, name):
                setattr(config, name, IGNORED)
        # Its loss is our own, which knows class weights; a head for the library's alone is idle.
        for name in ("use_auxiliary_head",):
            if hasattr(config, name):
                setattr(config, name, False)
    return config


def _data(published: Mapping[str, Any], spec: ModelSpec) -> dict[str, Any]:
    if published.get("model_type") != spec.model_type:
        raise TrainingError(
            ErrorKind.CHECKPOINT_INVALID,
            f"the configuration beside the weights of {spec.name} is of the type "
            f"'{published.get('model_type')}', not '{spec.model_type}'",
            hint="It belongs to another model; replace the folder.",
        )
    values = {name: v for name, v in published.items() if name not in _NEVER_READ}
    backbone = values.get("backbone_config")
    if isinstance(backbone, Mapping):
        kept = {name: v for name, v in backbone.items() if name not in _NEVER_READ}
        values["backbone_config"] = kept
    return values


def model_class(config: Any, task_type: TaskType) -> Any:
    """Return the library's class of a task's models of a configuration's type."""
    found = _MAPPINGS[task_type][type(config)]
    return found[0] if isinstance(found, tuple) else found


def new_model(spec: ModelSpec, config: Any, task_type: TaskType) -> torch.nn.Module:
    """Return a model with random weights. Raises TrainingError(UNSUPPORTED)."""
    try:
        model: torch.nn.Module = model_class(config, task_type)(config)
    except ImportError as error:
        raise needs_package(spec, error) from error
    except (TypeError, ValueError, AssertionError) as error:
        raise _not_made(spec, getattr(config, "image_size", None), error) from error
    return model


def forward_arguments(model: torch.nn.Module, *, image_size: int) -> dict[str, Any]:
    """Return what a model is told beside its images.

    A transformer whose places were learnt at another size stretches them when it is asked to.
    """
    takes = inspect.signature(model.forward).parameters
    own = getattr(getattr(model, "config", None), "image_size", None)
    if "interpolate_pos_encoding" in takes and own not in (None, image_size):
        return {"interpolate_pos_encoding": True}
    return {}


def make_processor(
    spec: ModelSpec,
    *,
    task_type: TaskType,
    image_size: int,
    published: Mapping[str, Any] | None = None,
) -> Any:
    """Return the image processor that resizes to a square and normalises.

    Means and deviations are those that published weights were trained with, where they tell.
    """
    mean, std = _normalisation(spec, published)
    settings: dict[str, Any] = {
        "size": {"height": image_size, "width": image_size},
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": (mean, std) != ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        "image_mean": list(mean),
        "image_std": list(std),
    }
    if task_type == TaskType.IMAGE_CLASSIFICATION:
        return ViTImageProcessor(**settings)
    if task_type == TaskType.SEMANTIC_SEGMENTATION:
        return SegformerImageProcessor(**settings, do_reduce_labels=False)
    # Its own, for it turns the model's outputs into boxes.
    model_type = _PROCESSOR_OF.get(spec.model_type, spec.model_type)
    found: Any = IMAGE_PROCESSOR_MAPPING[CONFIG_MAPPING[model_type]]
    kind = found["torchvision"] if isinstance(found, dict) else found
    kind = kind[0] if isinstance(kind, tuple) else kind
    return kind(**settings, do_pad=False)


def _normalisation(
    spec: ModelSpec, published: Mapping[str, Any] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    told = []
    for name, value in zip(("image_mean", "image_std"), spec.normalisation, strict=True):
        found = (published or {}).get(name)
        good = (
            isinstance(found, list)
            and len(found) == 3
            and all(isinstance(n, int | float) and 0 <= n <= 255 for n in found)
        )
        told.append(tuple(float(n) for n in found) if good else value)  # type: ignore[union-attr]
    if published is not None and published.get("do_normalize") is False:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return told[0], told[1]


def needs_package(spec: ModelSpec, error: ImportError) -> TrainingError:
    """Return the refusal of a model that needs a package which is not installed."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return TrainingError(
        ErrorKind.UNSUPPORTED,
        f"{spec.name} needs a package that this worker lacks: {lines[0].strip()}",
        hint="Install it on the worker, or pick another model.",
    )


def _not_made(spec: ModelSpec, image_size: Any, error: Exception) -> TrainingError:
    return TrainingError(
        ErrorKind.UNSUPPORTED,
        f"{spec.name} cannot be made for images of {image_size} pixels: {error}",
        hint=f"Leave the image size to the model's own, {spec.image_size}.",
    )
