"""The list of Ultralytics models for ``python -m adapters.catalog_build ultralytics``."""

from __future__ import annotations

from collections.abc import Iterator

import torch

import adapters.ultralytics_training.offline  # noqa: F401
from adapters.catalog import ModelEntry
from adapters.ultralytics_training.models import packaged_models
from adapters.ultralytics_training.plan import default_image_size
from adapters.ultralytics_training.weights import is_published

# isort: split
from ultralytics.nn.tasks import parse_model


def model_names() -> list[str]:
    """Return the names of the models that the installed library packages."""
    return [model.name for model in packaged_models().values()]


def catalog_entries() -> Iterator[ModelEntry]:
    """Yield every packaged model that can be trained, built without memory for its weights."""
    for model in packaged_models().values():
        with torch.device("meta"):
            layers, _ = parse_model(model.config(), ch=3, verbose=False)
        yield ModelEntry(
            framework="ultralytics",
            name=model.name,
            task_types=(str(model.task_type),),
            params_m=round(sum(p.numel() for p in layers.parameters()) / 1e6, 2),
            input_size=default_image_size(model.task_type),
            pretrained=is_published(model.name),
        )
