"""What each framework can do, for forms and for the check of a job before it is queued.

Light on purpose: the web application imports this module, so no training library may be
imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from adapters.contract import DatasetFormat, TaskType, UnknownFramework
from adapters.schemas import timm as timm_schema
from adapters.schemas import ultralytics as ultralytics_schema


@dataclass(frozen=True)
class FrameworkInfo:
    """A framework as a person sees it who describes a job."""

    name: str
    title: str
    licence: str
    task_types: tuple[TaskType, ...]
    formats: Mapping[TaskType, tuple[DatasetFormat, ...]]  # what each task can be trained on
    optimizers: tuple[str, ...]  # the first is the default
    hyperparameters: type[BaseModel]
    image_size_step: int = 1  # an image's side must be a multiple of it


_TIMM = FrameworkInfo(
    name="timm",
    title="timm (PyTorch Image Models)",
    licence="Apache-2.0",
    task_types=(TaskType.IMAGE_CLASSIFICATION,),
    formats={TaskType.IMAGE_CLASSIFICATION: (DatasetFormat.IMAGEFOLDER,)},
    optimizers=timm_schema.OPTIMIZERS,
    hyperparameters=timm_schema.TimmHyperparameters,
)

_ULTRALYTICS = FrameworkInfo(
    name="ultralytics",
    title="Ultralytics YOLO",
    licence="AGPL-3.0",
    task_types=(TaskType.OBJECT_DETECTION,),
    formats={TaskType.OBJECT_DETECTION: (DatasetFormat.YOLO,)},
    optimizers=ultralytics_schema.OPTIMIZERS,
    hyperparameters=ultralytics_schema.UltralyticsHyperparameters,
    image_size_step=ultralytics_schema.IMAGE_SIZE_STEP,
)

FRAMEWORKS: dict[str, FrameworkInfo] = {info.name: info for info in (_TIMM, _ULTRALYTICS)}


def framework_info(name: str) -> FrameworkInfo:
    """Return a framework's description.

    Raises UnknownFramework, which lists the known ones.
    """
    try:
        return FRAMEWORKS[name]
    except KeyError:
        known = ", ".join(sorted(FRAMEWORKS))
        raise UnknownFramework(f"unknown framework '{name}'; known are: {known}") from None
