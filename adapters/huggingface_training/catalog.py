"""The list of models for ``python -m adapters.catalog_build huggingface``."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import adapters.huggingface_training.offline  # noqa: F401  (before the library)

# isort: split
import torch

from adapters.catalog import ModelEntry
from adapters.contract import TrainingError
from adapters.huggingface_training.architecture import make_config, new_model
from adapters.huggingface_training.zoo import ModelSpec, specs

log = logging.getLogger(__name__)

_CLASSES = [f"class {number}" for number in range(1000)]  # as many as ImageNet's, for the sizes


def catalog_entries() -> Iterator[ModelEntry]:
    """Yield every model of our table that the installed library makes, without its weights."""
    for spec in specs():
        try:
            parameters = _parameters(spec)
        except (TrainingError, KeyError) as error:
            log.warning("%s is left out: %s", spec.name, error)
            continue
        yield ModelEntry(
            framework="huggingface",
            name=spec.name,
            task_types=tuple(str(task) for task in spec.tasks),
            params_m=round(parameters / 1e6, 2),
            input_size=spec.image_size,
            pretrained=spec.hub is not None,
        )


def model_names() -> list[str]:
    """Return the names of our table."""
    return [spec.name for spec in specs()]


def _parameters(spec: ModelSpec) -> int:
    """Build a model on the device that has no memory, and count."""
    config = make_config(
        spec, task_type=spec.tasks[0], classes=_CLASSES, image_size=spec.image_size
    )
    with torch.device("meta"):
        model = new_model(spec, config, spec.tasks[0])
    return sum(p.numel() for p in model.parameters())
