"""The models that the installed Ultralytics can train, from the configurations it packages.

A model is always built from these files, never from one that a checkpoint or a person brings:
Ultralytics evaluates parts of a configuration as code. Left out are those that take something
from the network: YOLO-World and YOLOE (an encoder of texts) and backbones of torchvision.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from adapters.contract import TaskType

RTDETR = "RTDETRDecoder"
_STEM = re.compile(r"(?P<family>yolov?\d+|rtdetr)(?P<rest>.*)")
_HEADS = {
    "Detect": TaskType.OBJECT_DETECTION,
    "v10Detect": TaskType.OBJECT_DETECTION,
    RTDETR: TaskType.OBJECT_DETECTION,
    "Segment": TaskType.INSTANCE_SEGMENTATION,
    "Segment26": TaskType.INSTANCE_SEGMENTATION,
    "Pose": TaskType.POSE_ESTIMATION,
    "Pose26": TaskType.POSE_ESTIMATION,
    "OBB": TaskType.ORIENTED_DETECTION,
    "OBB26": TaskType.ORIENTED_DETECTION,
    "Classify": TaskType.IMAGE_CLASSIFICATION,
    "SemanticSegment": TaskType.SEMANTIC_SEGMENTATION,
}

# What Ultralytics calls the tasks.
LIBRARY_TASKS: dict[TaskType, str] = {
    TaskType.OBJECT_DETECTION: "detect",
    TaskType.INSTANCE_SEGMENTATION: "segment",
    TaskType.POSE_ESTIMATION: "pose",
    TaskType.ORIENTED_DETECTION: "obb",
    TaskType.IMAGE_CLASSIFICATION: "classify",
    TaskType.SEMANTIC_SEGMENTATION: "semantic",
}


@dataclass(frozen=True)
class PackagedModel:
    """A model by the file that describes it and the size to build it in."""

    name: str
    task_type: TaskType
    head: str  # the class of its last layer
    file: Path
    scale: str  # 'n', 's', …; empty where the file describes one size

    def config(self) -> dict[str, Any]:
        """Return the configuration as Ultralytics' models take it."""
        config = _read(self.file)
        if self.scale:
            config["scale"] = self.scale
        config["yaml_file"] = f"{self.name}.yaml"
        return config


@cache
def packaged_models() -> dict[str, PackagedModel]:
    """Return every model that can be trained, by name; the library is found, not imported."""
    spec = importlib.util.find_spec("ultralytics")
    if spec is None or not spec.submodule_search_locations:
        return {}
    folder = Path(spec.submodule_search_locations[0]) / "cfg" / "models"
    found = (model for file in sorted(folder.rglob("*.yaml")) for model in _sizes(file))
    return {model.name: model for model in found}


def _sizes(file: Path) -> Iterator[PackagedModel]:
    raw = _read(file)
    head = raw["head"][-1][2]
    task_type, parts = _HEADS.get(head), _STEM.fullmatch(file.stem)
    if task_type is None or parts is None or raw["backbone"][0][2] == "TorchVision":
        return
    scales = list(raw.get("scales") or ())
    if raw["backbone"][0][2] == "ResNetLayer":
        scales = scales[:1]  # they change nothing
    for scale in scales or [""]:
        # 'yolov8-p2' in size 'n' is 'yolov8n-p2'; 'yolov10n' names its one size already.
        stem = f"{parts['family']}{scale}{parts['rest']}" if len(scales) > 1 else file.stem
        yield PackagedModel(_published_name(stem), task_type, head, file, scale)


def _read(file: Path) -> dict[str, Any]:
    # A safe loader, too; sixty files take a second of a job's start with the one in Python.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    content: dict[str, Any] = yaml.load(file.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506
    return content


def _published_name(stem: str) -> str:
    """Return 'yolov5nu' for 'yolov5n', 'yolov5n6u' for 'yolov5n-p6', other names as they are.

    YOLOv3 and YOLOv5 with the newer, anchor-free head are published under names of their own.
    """
    if re.match(r"yolov[35]", stem):
        return f"{stem.replace('-p6', '6')}u"
    return stem
