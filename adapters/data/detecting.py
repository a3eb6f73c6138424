"""Telling the format of a data set by the names in its folder."""

from __future__ import annotations

from pathlib import Path

from adapters.contract import DatasetFormat
from adapters.data.description import DatasetError
from adapters.data.imagefolder import SPLIT_FOLDERS
from adapters.data.labels_csv import has_labels_csv
from adapters.data.roots import printable
from adapters.data.yolo_yaml import find_yaml, looks_like_yolo

_COCO_IN_A_SPLIT = ("*.coco.json", "*annotations*.json", "*instances*.json")


def detect_format(path: Path) -> DatasetFormat:
    """Tell the format of a data set. Raises DatasetError where none fits."""
    shown = printable(str(path))
    if path.is_file() and path.suffix.lower() in (".yaml", ".yml"):
        return DatasetFormat.YOLO
    if path.is_file() and path.suffix.lower() == ".json":
        return DatasetFormat.COCO
    if not path.is_dir():
        raise DatasetError(f"'{shown}' is not a folder")
    try:
        if looks_like_yolo(find_yaml(path)):
            return DatasetFormat.YOLO
    except DatasetError:  # no yaml, or several: then it is no YOLO data set, or cannot be told
        pass
    folders = {entry.name.lower(): entry for entry in path.iterdir() if entry.is_dir()}
    if {"images", "masks"} <= folders.keys():
        return DatasetFormat.MASKS
    if _looks_like_coco(path, folders):
        return DatasetFormat.COCO
    if {"images", "labels"} <= folders.keys():
        raise DatasetError(f"'{shown}' has images and labels but no data.yaml, which names classes")
    if not folders and not has_labels_csv(path):
        raise DatasetError(
            f"'{shown}' has no class folders, no data.yaml, no annotations and no masks"
        )
    return DatasetFormat.IMAGEFOLDER


def _looks_like_coco(path: Path, folders: dict[str, Path]) -> bool:
    if "annotations" in folders and any(folders["annotations"].glob("*.json")):
        return True
    if not has_labels_csv(path) and any(path.glob("*.json")):
        return "images" in folders or any(path.glob(_COCO_IN_A_SPLIT[1]))
    return any(
        any(folder.glob(pattern))
        for name, folder in folders.items()
        if name in SPLIT_FOLDERS
        for pattern in _COCO_IN_A_SPLIT
    )
