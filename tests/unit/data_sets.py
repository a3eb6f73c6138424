"""Small real data sets for the tests, and planting faults in them."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from adapters.data.description import Description, Problem

PIXELS = 24


def write_image(path: Path, *, size: tuple[int, int] = (PIXELS, PIXELS)) -> Path:
    """Write an image that no other place has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = random.Random(os.fsencode(path)).randbytes(3 * size[0] * size[1])
    Image.frombytes("RGB", size, noise).save(path)
    return path


def make_imagefolder(
    folder: Path,
    *,
    classes: Iterable[str] = ("cat", "dog"),
    splits: Iterable[str] = ("train", "val"),
    images: int = 3,
) -> Path:
    for split in splits:
        for name in classes:
            for i in range(images):
                write_image(folder / split / name / f"{i}.png")
    return folder


def make_yolo(folder: Path, *, images: int = 3, line: str = "0 0.5 0.5 0.25 0.25") -> Path:
    for split in ("train", "val"):
        for i in range(images):
            write_image(folder / "images" / split / f"{i}.png")
            label = folder / "labels" / split / f"{i}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(f"{line}\n")
    write_yaml(folder)
    return folder


def write_yaml(folder: Path, text: str = "names: [cat]\n", splits: str | None = None) -> None:
    places = "train: images/train\nval: images/val\n" if splits is None else splits
    (folder / "data.yaml").write_text(places + text, encoding="utf-8")


def codes(found: Description | Iterable[Problem]) -> list[str]:
    problems = found.problems if isinstance(found, Description) else found
    return [problem.code for problem in problems]


def make_panoptic(folder: Path, *, images: int = 3) -> Path:
    """Write a panoptic COCO set: the upper half of each image is category 5, the rest 9."""
    for split in ("train", "val"):
        entries, annotations = [], []
        for i in range(images):
            write_image(folder / split / f"{i}.png")
            entries.append({"id": i, "file_name": f"{i}.png", "width": PIXELS, "height": PIXELS})
            segments = [{"id": 1000, "category_id": 5}, {"id": 70_000, "category_id": 9}]
            annotations.append({"image_id": i, "file_name": f"{i}.png", "segments_info": segments})
            colours = Image.new("RGB", (PIXELS, PIXELS), colour_of(70_000))
            colours.paste(colour_of(1000), (0, 0, PIXELS, PIXELS // 2))
            png = folder / "annotations" / f"panoptic_{split}" / f"{i}.png"
            png.parent.mkdir(parents=True, exist_ok=True)
            colours.save(png)
        write_json(
            folder / "annotations" / f"panoptic_{split}.json",
            {
                "images": entries,
                "annotations": annotations,
                "categories": [{"id": 5, "name": "sky"}, {"id": 9, "name": "ground"}],
            },
        )
    return folder


def colour_of(segment: int) -> tuple[int, int, int]:
    return segment % 256, segment // 256 % 256, segment // 65_536


def write_json(path: Path, content: dict[str, list[Any]]) -> None:
    """Write an annotation file with an element a line: 'images' begin in line 2."""
    lists = [
        f"{json.dumps(key)}: [\n" + ",\n".join(json.dumps(element) for element in elements) + "]"
        for key, elements in content.items()
    ]
    path.write_text("{" + ",\n".join(lists) + "}", encoding="utf-8")
