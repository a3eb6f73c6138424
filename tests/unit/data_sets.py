"""Small real data sets for the tests, and planting faults in them."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from pathlib import Path

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
