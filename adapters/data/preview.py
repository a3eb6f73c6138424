"""Showing a few images of a data set with what their annotations say.

:func:`preview` opens images that strangers made: a server calls
:func:`adapters.data.apart.preview_apart`, which does the same in a process of its own.

Each image is a mapping that JSON takes. All places are fractions of the turned image, 0..1::

    {
      "file": "images/val/7.png",          relative to the data set's folder, printable
      "width": 640, "height": 480,         of the whole image, turned as its camera said; null
                                           where it cannot be read
      "thumbnail": "…",                    base64 of a JPEG, longest side 320; null as above
      "classes": [3],                      ids into the description's classes: of the image
                                           (classification), else those that occur in it
      "objects": [{
        "class_id": 3,
        "box": [left, top, right, bottom],
        "polygons": [[x1, y1, x2, y2, …], …],
        "keypoints": [[x, y, visibility], …],   visibility 0, 1 or 2
        "corners": [x1, y1, … x4, y4],          of an oriented box, else []
        "crowd": false
      }, …],                               the largest, at most 200, of at most 20,000 points;
                                           a polygon is thinned to 200 points
      "mask": "…",                         base64 of a PNG of the thumbnail's size with a palette,
                                           transparent where there is no class; null: no mask
      "problems": ["…"]                    sentences: why something is missing here
    }
"""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from adapters.contract import DatasetFormat, TaskType
from adapters.data.content import IGNORED, Annotation, Content, Object, Sample, SplitRule
from adapters.data.description import DatasetError, Severity
from adapters.data.detecting import detect_format
from adapters.data.drawing import object_mask
from adapters.data.files import relative_name
from adapters.data.images import (
    FORMATS,
    MAX_IMAGE_BYTES,
    MAX_IMAGE_PIXELS,
    FileUnreadable,
    read_limited,
    reason_of,
    to_rgb,
)
from adapters.data.reading import scan
from adapters.data.roots import printable, unreadable_as_dataset_error

LONGEST_SIDE = 320  # pixels, of a thumbnail
MAX_IMAGES = 48
MAX_OBJECTS = 200
MAX_POINTS = 20_000  # of an image's objects together
_POINTS_OF_A_POLYGON = 200
_CANDIDATES = 2000  # images looked at to spread the shown ones over the classes
_GOLDEN_ANGLE = 137.508  # degrees of hue from a class to the next: neighbours differ


def preview(
    path: Path,
    *,
    format: DatasetFormat | None = None,
    task_type: TaskType | None = None,
    split: str = "train",
    limit: int = 12,
    seed: int = 0,
    split_rule: SplitRule | None = None,
    roots: Sequence[Path] = (),
) -> list[dict[str, Any]]:
    """Return up to ``limit`` images of a split, spread over its classes, others by another seed.

    Raises DatasetError where the data set cannot be read or has no such split.
    """
    with unreadable_as_dataset_error(path):
        content = scan(
            path,
            format=format or detect_format(path),
            task_type=task_type,
            split_rule=split_rule,
            roots=roots,
        )
    if split not in content.splits:
        listed = ", ".join(content.splits)
        raise DatasetError(f"there is no split '{printable(split)}'; it has {listed}")
    chosen = _choose(content, split, limit=min(limit, MAX_IMAGES), seed=seed)
    return [_show(content, sample, said) for sample, said in chosen]


def _choose(
    content: Content, split: str, *, limit: int, seed: int
) -> list[tuple[Sample, Annotation]]:
    """Return images so that each class is shown about as often as any other."""
    samples = list(content.splits[split])
    random.Random(seed).shuffle(samples)  # noqa: S311
    # What is in a COCO image is known; the label of any other must be read for it.
    looked_at = [(s, content.check(s, size=None)) for s in samples[: _candidates(limit)]]
    shown: dict[int, int] = {}
    chosen: list[tuple[Sample, Annotation]] = []
    while looked_at and len(chosen) < limit:
        best = min(looked_at, key=lambda item: _shown_already(item[1], shown))
        looked_at.remove(best)
        chosen.append(best)
        for label in best[1].classes or (-1,):
            shown[label] = shown.get(label, 0) + 1
    return chosen


def _candidates(limit: int) -> int:
    return min(_CANDIDATES, 20 * limit)


def _shown_already(annotation: Annotation, shown: dict[int, int]) -> int:
    return min((shown.get(label, 0) for label in annotation.classes or (-1,)), default=0)


def _show(content: Content, sample: Sample, said: Annotation) -> dict[str, Any]:
    problems = [p.message for p in said.problems if p.severity == Severity.ERROR]
    size = thumbnail = None
    try:
        size, image = _read(sample.image)
        thumbnail = _base64(image, "JPEG", quality=80)
    except DatasetError as failure:
        problems.append(str(failure))
        image = None
    objects = _largest(said.objects)
    return {
        "file": relative_name(sample.image, content.path),
        "width": size[0] if size else None,
        "height": size[1] if size else None,
        "thumbnail": thumbnail,
        "classes": list(said.classes),
        "objects": [_object(thing) for thing in objects],
        "mask": _mask(content, sample, image.size, objects, problems) if image else None,
        "problems": problems,
    }


def _read(path: Path) -> tuple[tuple[int, int], Image.Image]:
    """Return the size of a whole image, turned, and a small one. Raises DatasetError."""
    try:
        content = read_limited(path, limit=MAX_IMAGE_BYTES)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_IMAGE_PIXELS:
                raise FileUnreadable("it has too many pixels")
            image.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))
            turned = ImageOps.exif_transpose(image)
            if (turned.width > turned.height) != (width > height):
                width, height = height, width
            small = to_rgb(turned)
    except MemoryError:
        raise
    except Exception as failure:  # on hostile bytes decoders raise anything, from IndexError on
        reason = reason_of(failure)
        raise DatasetError(f"'{printable(path.name)}' cannot be read: {reason}") from failure
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return (width, height), small


def _largest(objects: Sequence[Object]) -> list[Object]:
    """Return as many of the largest objects as a page can draw."""
    shown: list[Object] = []
    points = 0
    for thing in sorted(objects, key=_area, reverse=True)[:MAX_OBJECTS]:
        points += 1 + len(thing.keypoints)
        points += sum(min(len(polygon) // 2, _POINTS_OF_A_POLYGON) for polygon in thing.polygons)
        if points > MAX_POINTS:
            break
        shown.append(thing)
    return shown


def _thinned(polygon: Sequence[float]) -> list[float]:
    """Return a polygon with as many of its points as a thumbnail can show."""
    points = list(zip(polygon[0::2], polygon[1::2], strict=True))
    kept = points[:: -(-len(points) // _POINTS_OF_A_POLYGON)]
    return _rounded([value for point in kept for value in point])


def _object(thing: Object) -> dict[str, Any]:
    return {
        "class_id": thing.class_id,
        "box": _rounded(thing.box),
        "polygons": [_thinned(polygon) for polygon in thing.polygons],
        "keypoints": [[round(x, 5), round(y, 5), seen] for x, y, seen in thing.keypoints],
        "corners": _rounded(thing.corners),
        "crowd": thing.crowd,
    }


def _mask(
    content: Content,
    sample: Sample,
    size: tuple[int, int],
    objects: Sequence[Object],
    problems: list[str],
) -> str | None:
    """Return the classes of the pixels, of a set of masks, or of objects outlined by pixels."""
    classes: NDArray[np.uint8] | None = None
    if content.task_type == TaskType.SEMANTIC_SEGMENTATION:
        try:
            classes = content.mask(sample)
        except DatasetError as failure:
            problems.append(str(failure))
    elif any(thing.mask is not None for thing in objects):
        classes = np.full((size[1], size[0]), IGNORED, dtype=np.uint8)
        for thing in objects:
            if thing.mask is not None and thing.class_id < IGNORED:
                classes[object_mask(thing, size=size)] = thing.class_id
    if classes is None:
        return None
    image = Image.fromarray(classes).resize(size, Image.Resampling.NEAREST)
    image.putpalette(bytes(value for label in range(256) for value in class_colour(label)))
    return _base64(image, "PNG", transparency=IGNORED)


def class_colour(class_id: int) -> tuple[int, int, int]:
    """Return the colour of a class in previews: hues a golden angle apart."""
    hue = (class_id * _GOLDEN_ANGLE) % 360 / 60
    fall = round(255 * (1 - abs(hue % 2 - 1)))
    ring = (
        (255, fall, 0),
        (fall, 255, 0),
        (0, 255, fall),
        (0, fall, 255),
        (fall, 0, 255),
        (255, 0, fall),
    )
    return ring[int(hue)]


def _base64(image: Image.Image, format: str, **options: Any) -> str:
    file = io.BytesIO()
    image.save(file, format, **options)
    return base64.b64encode(file.getvalue()).decode("ascii")


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 5) for value in values]


def _area(thing: Object) -> float:
    left, top, right, bottom = thing.box
    return (right - left) * (bottom - top)
