"""The frameworks that a job may name, each registered once: here, or by an installed package.

A package offers a framework through two entry points of the same name: ``modelyard.adapters``
leads to the class that trains, which only workers import, and ``modelyard.frameworks`` to a
:class:`FrameworkInfo`, which the web application imports, too. See docs/adapters.md.

Light on purpose: no training library may be imported here.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from adapters.contract import DatasetFormat, TaskType, UnknownFramework
from adapters.schemas import huggingface as huggingface_schema
from adapters.schemas import timm as timm_schema
from adapters.schemas import ultralytics as ultralytics_schema
from adapters.schemas.misfits import JobFacts, Misfit

if TYPE_CHECKING:
    from adapters.catalog import ModelEntry

logger = logging.getLogger(__name__)

ADAPTER_GROUP = "modelyard.adapters"
INFO_GROUP = "modelyard.frameworks"

_QUEUE_NAME = re.compile(r"[a-z][a-z0-9_-]{0,49}")  # a framework's name is that of its queue


@dataclass(frozen=True)
class FrameworkInfo:
    """A framework as a person sees it who describes a job, and where its parts are found."""

    name: str
    title: str
    licence: str
    task_types: tuple[TaskType, ...]
    formats: Mapping[TaskType, tuple[DatasetFormat, ...]]  # what each task can be trained on
    optimizers: tuple[str, ...]  # the first is the default
    hyperparameters: type[BaseModel]
    # Yields what cannot be trained though it is in its range: (checked hyperparameters, job).
    misfits: Callable[[Any, JobFacts], Iterable[Misfit]] | None = None
    image_size_step: int = 1  # an image's side must be a multiple of it
    largest_learning_rate: float = 10.0
    multi_label: bool = False  # image classification: whether an image may have several classes
    adapter: str = ""  # 'module:class'; of a plug-in, its entry point says it
    library: str = ""  # the module that must be importable; empty: the plug-in alone
    distributions: tuple[str, ...] = ()  # that may bring the library, for its version
    # In the order they are looked for; the first is what a download is kept as.
    weights_suffixes: tuple[str, ...] = (".safetensors", ".pt", ".pth", ".bin")
    catalog: str = ""  # module whose catalog_entries() the packaged catalog is made from
    models: tuple[ModelEntry, ...] = ()  # of a plug-in: all that its jobs may name


_TIMM = FrameworkInfo(
    name="timm",
    title="timm (PyTorch Image Models)",
    licence="Apache-2.0",
    task_types=(TaskType.IMAGE_CLASSIFICATION,),
    formats={
        TaskType.IMAGE_CLASSIFICATION: (
            DatasetFormat.IMAGEFOLDER,
            DatasetFormat.YOLO,  # the classes of an image's objects are its labels
            DatasetFormat.COCO,
        )
    },
    multi_label=True,
    optimizers=timm_schema.OPTIMIZERS,
    hyperparameters=timm_schema.TimmHyperparameters,
    misfits=timm_schema.misfits,
    adapter="adapters.timm_adapter:TimmAdapter",
    library="timm",
    distributions=("timm",),
    weights_suffixes=(".safetensors", ".pth", ".pt", ".bin"),
    catalog="adapters.timm_training.catalog",
)

_YOLO_OR_COCO = (DatasetFormat.YOLO, DatasetFormat.COCO)

_ULTRALYTICS = FrameworkInfo(
    name="ultralytics",
    title="Ultralytics YOLO",
    licence="AGPL-3.0",
    task_types=tuple(TaskType),
    formats={
        TaskType.IMAGE_CLASSIFICATION: (DatasetFormat.IMAGEFOLDER,),
        TaskType.OBJECT_DETECTION: _YOLO_OR_COCO,
        TaskType.INSTANCE_SEGMENTATION: _YOLO_OR_COCO,
        TaskType.SEMANTIC_SEGMENTATION: (DatasetFormat.MASKS, *_YOLO_OR_COCO),
        TaskType.POSE_ESTIMATION: _YOLO_OR_COCO,
        TaskType.ORIENTED_DETECTION: (DatasetFormat.YOLO,),
    },
    optimizers=ultralytics_schema.OPTIMIZERS,
    hyperparameters=ultralytics_schema.UltralyticsHyperparameters,
    misfits=ultralytics_schema.misfits,
    image_size_step=ultralytics_schema.IMAGE_SIZE_STEP,
    largest_learning_rate=ultralytics_schema.LARGEST_LEARNING_RATE,
    adapter="adapters.ultralytics_adapter:UltralyticsAdapter",
    library="ultralytics",
    distributions=("ultralytics", "ultralytics-opencv-headless"),
    weights_suffixes=(".pt",),
    catalog="adapters.ultralytics_training.catalog",
)

_HUGGINGFACE = FrameworkInfo(
    name="huggingface",
    title="Hugging Face transformers",
    licence="Apache-2.0",
    task_types=(
        TaskType.IMAGE_CLASSIFICATION,
        TaskType.OBJECT_DETECTION,
        TaskType.SEMANTIC_SEGMENTATION,
    ),
    formats={
        TaskType.IMAGE_CLASSIFICATION: (
            DatasetFormat.IMAGEFOLDER,
            DatasetFormat.YOLO,
            DatasetFormat.COCO,
        ),
        TaskType.OBJECT_DETECTION: (DatasetFormat.YOLO, DatasetFormat.COCO),
        TaskType.SEMANTIC_SEGMENTATION: (
            DatasetFormat.MASKS,
            DatasetFormat.COCO,
            DatasetFormat.YOLO,
        ),
    },
    optimizers=huggingface_schema.OPTIMIZERS,
    hyperparameters=huggingface_schema.HuggingFaceHyperparameters,
    misfits=huggingface_schema.misfits,
    multi_label=True,
    adapter="adapters.huggingface_adapter:HuggingFaceAdapter",
    library="transformers",
    distributions=("transformers",),
    # A folder a model, with the descriptions that were published with its weights.
    weights_suffixes=("/model.safetensors",),
    catalog="adapters.huggingface_training.catalog",
)

# The built-in ones; with those of installed packages: all_frameworks().
FRAMEWORKS: dict[str, FrameworkInfo] = {
    info.name: info for info in (_TIMM, _ULTRALYTICS, _HUGGINGFACE)
}


def all_frameworks() -> Mapping[str, FrameworkInfo]:
    """Return every framework a job may name: those built in, then those of installed packages."""
    return {**FRAMEWORKS, **_plugins()[0]}


def broken_plugins() -> Mapping[str, str]:
    """Return the frameworks that an installed package offers and cannot give, with the reason."""
    return _plugins()[1]


def framework_info(name: str) -> FrameworkInfo:
    """Return a framework's description.

    Raises UnknownFramework, which lists the known ones and says why a broken one is none.
    """
    known = all_frameworks()
    if name in known:
        return known[name]
    if name in broken_plugins():
        raise UnknownFramework(f"framework '{name}' cannot be used: {broken_plugins()[name]}")
    listed = ", ".join(sorted(known))
    raise UnknownFramework(f"unknown framework '{name}'; known are: {listed}")


@cache
def _plugins() -> tuple[dict[str, FrameworkInfo], dict[str, str]]:
    """Load what installed packages offer; one that fails is told of and leaves the others be."""
    adapters, infos = entry_points(group=ADAPTER_GROUP), entry_points(group=INFO_GROUP)
    found: dict[str, FrameworkInfo] = {}
    broken: dict[str, str] = {}
    for name in sorted({*adapters.names, *infos.names}):
        try:
            found[name] = _load(name, adapters.select(name=name), infos.select(name=name))
        except Exception as error:  # a package's code may raise anything
            broken[name] = f"{type(error).__name__}: {error}"
            logger.error("framework '%s' of a package is left out: %s", name, broken[name])
    return found, broken


def _load(name: str, adapters: EntryPoints, infos: EntryPoints) -> FrameworkInfo:
    """Return a plug-in's description, made whole. Raises UnknownFramework or its own errors."""
    if not _QUEUE_NAME.fullmatch(name):
        raise UnknownFramework("its name must be of lower-case letters, digits, '-' and '_'")
    adapter, point = _only(ADAPTER_GROUP, adapters), _only(INFO_GROUP, infos)
    if name in FRAMEWORKS:
        raise UnknownFramework(f"{_package(point)} offers it, and it is built in")
    info = point.load()
    if not isinstance(info, FrameworkInfo):
        raise UnknownFramework(f"'{point.value}' of {_package(point)} is no FrameworkInfo")
    if info.name != name:
        raise UnknownFramework(f"{_package(point)} calls it '{info.name}' in its FrameworkInfo")
    info.hyperparameters.model_json_schema()  # one that cannot be served is found now
    return dataclasses.replace(
        info, adapter=adapter.value, distributions=info.distributions or (_package(point),)
    )


def _only(group: str, points: EntryPoints) -> EntryPoint:
    """Return the one entry point of a framework. Raises UnknownFramework for none and for two."""
    packages = sorted({_package(point) for point in points})
    if not packages:
        raise UnknownFramework(f"its package has no entry point of it in the group '{group}'")
    if len(packages) > 1:
        raise UnknownFramework(f"{' and '.join(packages)} both offer it; uninstall one of them")
    return next(iter(points))


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.module
