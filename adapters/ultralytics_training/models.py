"""The YOLO models that the installed Ultralytics can build, from the configurations it packages.

A model is always built from these files, never from one that a checkpoint or a person brings:
Ultralytics evaluates parts of a configuration as code.
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

_STEM = re.compile(r"(?P<family>yolov?\d+)(?P<rest>.*)")
_HEADS = {"Detect": TaskType.OBJECT_DETECTION, "v10Detect": TaskType.OBJECT_DETECTION}


@dataclass(frozen=True)
class PackagedModel:
    """A model by the file that describes it and the size to build it in."""

    name: str
    task_type: TaskType
    file: Path
    scale: str  # 'n', 's', …; empty where the file describes one size

    def config(self) -> dict[str, Any]:
        """Return the configuration as Ultralytics' DetectionModel takes it."""
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
    found = (model for file in sorted(folder.rglob("yolo*.yaml")) for model in _sizes(file))
    return {model.name: model for model in found}


def _sizes(file: Path) -> Iterator[PackagedModel]:
    raw = _read(file)
    task_type = _HEADS.get(raw["head"][-1][2])
    parts = _STEM.fullmatch(file.stem)
    if task_type is None or parts is None:
        return  # another task, or an architecture that takes another trainer
    scales = list(raw.get("scales") or ())
    for scale in scales or [""]:
        # 'yolov8-p2' in size 'n' is 'yolov8n-p2'; 'yolov10n' names its one size already.
        stem = f"{parts['family']}{scale}{parts['rest']}" if len(scales) > 1 else file.stem
        yield PackagedModel(_published_name(stem), task_type, file, scale)


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
