"""Telling the format of a data set by the names in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adapters.contract import DatasetFormat
from adapters.data.coco_layout import may_be_coco
from adapters.data.description import DatasetError
from adapters.data.labels_csv import has_labels_csv
from adapters.data.roots import printable
from adapters.data.split_names import SPLIT_FOLDERS
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
    no_yaml: DatasetError | None = None
    try:
        if looks_like_yolo(find_yaml(path)):
            return DatasetFormat.YOLO
    except DatasetError as failure:  # no yaml, or several: no YOLO data set, or it cannot be told
        no_yaml = failure
    folders = {entry.name.lower(): entry for entry in path.iterdir() if entry.is_dir()}
    if {"images", "masks"} <= folders.keys():
        return DatasetFormat.MASKS
    beside_images = _beside_images(folders)
    if "labels" in beside_images and no_yaml is not None:
        raise DatasetError(
            f"images and labels, but {no_yaml}; a data.yaml tells the folders and the classes, "
            "like 'train: images' and 'names: [cat, dog]'"
        )
    if _looks_like_coco(path, folders):
        return DatasetFormat.COCO
    _refuse_other_forms(path, folders, beside_images)
    if not folders and not has_labels_csv(path):
        raise DatasetError(
            f"'{shown}' has no class folders, no data.yaml, no annotations and no masks"
        )
    return DatasetFormat.IMAGEFOLDER


def _beside_images(folders: Mapping[str, Path]) -> set[str]:
    """Return which folders of annotations lie beside a folder of images, or do in a split's."""
    inner = [
        {entry.name.lower() for entry in folder.iterdir() if entry.is_dir()}
        for name, folder in folders.items()
        if name in SPLIT_FOLDERS
    ]
    found = [names for names in (set(folders), *inner) if "images" in names]
    return set().union(*found) & {"labels", "masks", "annotations"}


def _refuse_other_forms(path: Path, folders: Mapping[str, Path], beside_images: set[str]) -> None:
    """Raise DatasetError for what would be taken for an image folder and is none."""
    shown = printable(str(path))
    if {"jpegimages", "annotations"} <= folders.keys():
        raise DatasetError(f"'{shown}' is in the form of Pascal VOC; export it as COCO or YOLO")
    if (path / "obj.data").is_file() or (path / "obj.names").is_file():
        raise DatasetError(
            f"'{shown}' is in Darknet's form; export it as Ultralytics YOLO, with a data.yaml"
        )
    if beside_images:
        listed = " and ".join(sorted(beside_images))
        raise DatasetError(
            f"'{shown}' has folders of images and of {listed} in a layout that is not known; masks "
            "lie in images/<split>/… and masks/<split>/…, annotations of objects in .json files"
        )


def _looks_like_coco(path: Path, folders: Mapping[str, Path]) -> bool:
    if "annotations" in folders and any(folders["annotations"].glob("*.json")):
        return True
    if not has_labels_csv(path) and any(path.glob("*.json")):
        return "images" in folders or any(
            may_be_coco(file, path) for file in path.glob(_COCO_IN_A_SPLIT[1]) if file.is_file()
        )
    return any(
        any(folder.glob(pattern))
        for name, folder in folders.items()
        if name in SPLIT_FOLDERS
        for pattern in _COCO_IN_A_SPLIT
    )
