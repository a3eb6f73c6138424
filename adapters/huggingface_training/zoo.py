"""The models a job may name: architectures of the library with the sizes that their authors gave.

Each is data: a model type of the library and what differs from that type's default configuration.
So a model is built without the hub, and nothing of a configuration comes from a person. Where
weights are published, ``hub`` says where. Light: importing this imports no library.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from adapters.contract import TaskType

Numbers = tuple[float, float, float]

CLASSIFY = (TaskType.IMAGE_CLASSIFICATION,)
DETECT = (TaskType.OBJECT_DETECTION,)
SEGMENT = (TaskType.SEMANTIC_SEGMENTATION,)

IMAGENET: tuple[Numbers, Numbers] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF: tuple[Numbers, Numbers] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PLAIN: tuple[Numbers, Numbers] = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class ModelSpec:
    """A model as data."""

    name: str
    model_type: str  # of the library's configurations
    tasks: tuple[TaskType, ...]
    image_size: int  # side in pixels that it was made for
    config: Mapping[str, Any] = field(default_factory=dict)  # beyond the type's defaults
    hub: str | None = None  # repository of the published weights
    revision: str = "main"
    normalisation: tuple[Numbers, Numbers] = IMAGENET  # means and deviations of the channels
    size_step: int = 1  # an image's side must be a multiple of it


def find_spec(name: str) -> ModelSpec | None:
    """Return a model by its exact name."""
    return _by_name().get(name)


def specs() -> list[ModelSpec]:
    """Return every model."""
    return list(_by_name().values())


@cache
def _by_name() -> dict[str, ModelSpec]:
    from adapters.huggingface_training import zoo_classify, zoo_detect, zoo_segment

    found: dict[str, ModelSpec] = {}
    for spec in (*zoo_classify.SPECS, *zoo_detect.SPECS, *zoo_segment.SPECS):
        if spec.name in found:
            raise RuntimeError(f"two models are called '{spec.name}'")
        found[spec.name] = spec
    return found


def family(
    base: ModelSpec, rows: Iterable[tuple[str, str | None, Mapping[str, Any]]]
) -> list[ModelSpec]:
    """Return the sizes of an architecture.

    A row is the name, the hub's owner (None: nobody publishes weights) or its whole repository,
    and what differs: fields of the spec, and of the configuration under their own names.
    """
    fields = {f.name for f in dataclasses.fields(ModelSpec)} - {"config"}
    made = []
    for name, owner, changes in rows:
        of_spec = {key: value for key, value in changes.items() if key in fields}
        of_config = {key: value for key, value in changes.items() if key not in fields}
        hub = owner if owner is None or "/" in owner else f"{owner}/{name}"
        config = {**base.config, **of_config}
        made.append(dataclasses.replace(base, name=name, hub=hub, config=config, **of_spec))
    return made
