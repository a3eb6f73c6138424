"""Handing a checked YOLO data set to Ultralytics with nothing in it that a user wrote as YAML."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adapters.data.yolo import YoloData

_LONGEST_NAME = 200  # bytes of an image's own name that its link keeps; file systems take 255


def write_ultralytics_yaml(data: YoloData, to: Path) -> Path:
    """Write a data.yaml for Ultralytics from the checked description only, and return its path.

    Images and labels are links in a folder beside it, '<stem>_data'. Ultralytics keeps a pickle
    beside the labels and loads any that it finds there: the links keep a user's pickle from being
    loaded, and Ultralytics from writing into the data set. Called again, all is made anew.
    """
    to = to.absolute()
    view = to.with_name(f"{to.stem}_data")
    if view.exists():
        shutil.rmtree(view)
    content: dict[str, object] = {"path": os.fspath(view)}
    for split in data.splits:
        _link_split(data, split, view)
        content[split] = f"images/{split}"
    if data.keypoints is not None:
        content["kpt_shape"] = list(data.keypoints)
    # JSON is YAML, and quotes every name whatever is in it.
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in content.items()]
    lines.append("names:\n")
    lines += [
        f"  {i}: {json.dumps(name, ensure_ascii=False)}\n" for i, name in enumerate(data.names)
    ]
    temporary = to.with_name(f".{to.name}.{os.getpid()}")
    temporary.write_text("".join(lines), encoding="utf-8")
    temporary.replace(to)
    return to


def _link_split(data: YoloData, split: str, view: Path) -> None:
    images_dir = view / "images" / split
    labels_dir = view / "labels" / split
    images_dir.mkdir(parents=True)
    labels_dir.mkdir(parents=True)
    for i, image in enumerate(data.splits[split]):
        stem = _link_stem(i, image)
        (images_dir / f"{stem}{image.suffix.lower()}").symlink_to(image.resolve())
        label = data.find_label(image)
        if label is not None:
            (labels_dir / f"{stem}.txt").symlink_to(label.resolve())


def _link_stem(number: int, image: Path) -> str:
    """Return a name that is unique, sorts in the split's order and still tells the image."""
    name = image.stem
    if not name.isprintable() or len(name.encode("utf-8", "surrogateescape")) > _LONGEST_NAME:
        return f"{number:07d}"
    return f"{number:07d}_{name}"
