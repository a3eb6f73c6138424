"""A data set as Ultralytics reads it, made from the checked content only.

    images/<split>/0000012_name.jpg   links, numbered so that they sort in the split's order
    labels/<split>/0000012_name.txt   boxes, outlines, poses or corners, written anew
    masks/<split>/0000012_name.png    class ids, for semantic segmentation
    <split>/00003/0000012_name.jpg    links by class, for classification

Ultralytics writes beside the images, loads any ``*.cache`` pickle that it finds there and runs what
a data.yaml says: so it is shown this folder of ours and never the user's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

import adapters.ultralytics_training.offline  # noqa: F401
from adapters.checkpoints import write_atomically
from adapters.contract import TaskType
from adapters.data.content import Content, Keypoints, Object, Sample
from adapters.data.description import DatasetError
from adapters.data.images import FORMATS
from adapters.images import open_rgb

# isort: split
from ultralytics.data.converter import merge_multi_segment

SPLITS = ("train", "val")
# Formats of ours that Ultralytics does not take for images, by their first bytes: they are
# converted. All others it decodes itself, turned as their EXIF says (tried: JPEG, PNG, WebP, TIFF).
_CONVERTED = re.compile(rb"GIF8|P[1-6]\s")
_TIFF = (b"II", b"MM")
_DEEP = ("I", "F")  # 32 bits a pixel, which OpenCV does not read
_LONGEST_NAME = 200  # bytes of an image's own name that its link keeps; file systems take 255
_UNSEEN = (-0.001, -0.001)  # a point without a place, where points have no visibility
_LINE = Callable[[Object, Content], Iterable[float]]


def write_view(
    content: Content, folder: Path, *, still_wanted: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Write a data set below a folder, anew, and return what Ultralytics calls its data.

    ``still_wanted`` is called for every image and may raise. Raises DatasetError where a label
    cannot be read, or has nothing of what the task needs.
    """
    folder = folder.absolute()
    if folder.exists():
        shutil.rmtree(folder)
    for split in SPLITS:
        if not content.splits.get(split):
            raise DatasetError(f"the data set has no images in its split '{split}'")
        _write_split(content, split, folder, still_wanted)
    return described(content, folder)


def write_description(content: Content, path: Path) -> None:
    """Write a data.yaml that tells what a job was trained on, for people to read."""
    lines = {
        "task": str(content.task_type),
        **{split: f"{len(samples)} images" for split, samples in content.splits.items()},
        **_keypoints(content.keypoints, classes=0),
    }
    # JSON is YAML, and quotes every name whatever is in it.
    text = "".join(f"{key}: {_json(value)}\n" for key, value in lines.items()) + "names:\n"
    text += "".join(f"  {i}: {_json(name)}\n" for i, name in enumerate(content.classes))
    write_atomically(path, lambda stream: stream.write(text.encode("utf-8", "backslashreplace")))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def described(content: Content, folder: Path) -> dict[str, Any]:
    """Return what Ultralytics calls the data that was written below a folder."""
    folder = folder.absolute()
    images = folder
    if content.task_type != TaskType.IMAGE_CLASSIFICATION:
        images = folder / "images"
    masks = {"masks_dir": "masks"} if content.task_type == TaskType.SEMANTIC_SEGMENTATION else {}
    pose = content.task_type == TaskType.POSE_ESTIMATION
    return {
        "path": str(folder),
        **{split: str(images / split) for split in SPLITS},
        "nc": len(content.classes),
        "names": dict(enumerate(content.classes)),
        "channels": 3,
        **masks,
        **(_keypoints(content.keypoints, classes=len(content.classes)) if pose else {}),
    }


def _keypoints(points: Keypoints | None, *, classes: int) -> dict[str, Any]:
    if points is None:
        return {}
    told: dict[str, Any] = {"kpt_shape": [points.number, points.dimensions]}
    if points.flip:
        told["flip_idx"] = list(points.flip)
    if points.names and classes:
        told["kpt_names"] = {i: list(points.names) for i in range(classes)}
    return told


def _write_split(
    content: Content, split: str, folder: Path, still_wanted: Callable[[], None]
) -> None:
    write = _WRITERS[content.task_type]
    if content.task_type == TaskType.IMAGE_CLASSIFICATION:
        # A class without images in a split keeps its number all the same.
        for i in range(len(content.classes)):
            (folder / split / _class_folder(i)).mkdir(parents=True)
    else:
        for kind in ("images", "masks" if write is _write_mask else "labels"):
            (folder / kind / split).mkdir(parents=True)
    for number, sample in enumerate(content.splits[split]):
        still_wanted()
        write(content, sample, folder, split, _stem(number, sample.image))


def _write_class(content: Content, sample: Sample, folder: Path, split: str, stem: str) -> None:
    (class_id,) = sample.classes
    _link(sample.image, folder / split / _class_folder(class_id) / stem)


def _write_objects(content: Content, sample: Sample, folder: Path, split: str, stem: str) -> None:
    _link(sample.image, folder / "images" / split / stem)
    line = _LINES[content.task_type]
    try:
        rows = [
            f"{thing.class_id} {' '.join(f'{value:.7g}' for value in line(thing, content))}\n"
            for thing in content.objects(sample)
            if _has_area(thing)
        ]
    except _NoOutline as error:
        raise DatasetError(f"'{sample.image}' has {error}") from error
    (folder / "labels" / split / f"{stem}.txt").write_text("".join(rows), encoding="ascii")


def _write_mask(content: Content, sample: Sample, folder: Path, split: str, stem: str) -> None:
    _link(sample.image, folder / "images" / split / stem)
    mask = Image.fromarray(content.mask(sample))
    mask.save(folder / "masks" / split / f"{stem}.png", compress_level=1)


_WRITERS = {
    TaskType.IMAGE_CLASSIFICATION: _write_class,
    TaskType.OBJECT_DETECTION: _write_objects,
    TaskType.INSTANCE_SEGMENTATION: _write_objects,
    TaskType.POSE_ESTIMATION: _write_objects,
    TaskType.ORIENTED_DETECTION: _write_objects,
    TaskType.SEMANTIC_SEGMENTATION: _write_mask,
}


class _NoOutline(Exception):
    """An object lacks what the task is about; the message says what, as a sentence's end."""


def _has_area(thing: Object) -> bool:
    left, top, right, bottom = _clipped(thing.box)
    return right > left and bottom > top and not thing.crowd


def _clipped(values: Iterable[float]) -> list[float]:
    return [min(max(float(value), 0.0), 1.0) for value in values]


def _box(thing: Object, content: Content) -> Iterator[float]:
    left, top, right, bottom = _clipped(thing.box)
    yield from ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)


def _outline(thing: Object, content: Content) -> list[float]:
    """Return one polygon for a thing; its parts are joined by lines without width."""
    parts = [np.reshape(_clipped(part), (-1, 2)) for part in thing.polygons if len(part) >= 6]
    if not parts and thing.mask is not None:
        parts = _traced(thing.mask)
    if not parts:
        raise _NoOutline("an object without an outline, which segmentation needs")
    if len(parts) > 1:
        parts = [np.concatenate(merge_multi_segment(parts))]
    return [float(value) for value in parts[0].ravel()]


def _traced(mask: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """Return the outer outlines of a mask's parts, as fractions; holes are filled."""
    height, width = mask.shape
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outlines = []
    for contour in found:
        points = contour.reshape(-1, 2).astype(np.float64)
        if len(points) < 3:  # a line of pixels: the rectangle around it
            (left, top), (right, bottom) = points.min(0), points.max(0)
            points = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        outlines.append((points + 0.5) / (width, height))
    return outlines


def _pose(thing: Object, content: Content) -> Iterator[float]:
    assert content.keypoints is not None
    yield from _box(thing, content)
    number, dimensions = content.keypoints.number, content.keypoints.dimensions
    missing = [(0.0, 0.0, 0)] * number
    for x, y, visibility in (*thing.keypoints, *missing)[:number]:
        # One outside of the image is not seen: Ultralytics would leave out the whole image.
        seen = visibility > 0 and 0 <= x <= 1 and 0 <= y <= 1
        if dimensions == 2:
            yield from (x, y) if seen else _UNSEEN
        else:
            yield from (x, y, visibility) if seen else (0.0, 0.0, 0)


def _corners(thing: Object, content: Content) -> tuple[float, ...]:
    if len(thing.corners) != 8:
        raise _NoOutline("an object without four corners, which oriented detection needs")
    return thing.corners


_LINES: dict[TaskType, _LINE] = {
    TaskType.OBJECT_DETECTION: _box,
    TaskType.INSTANCE_SEGMENTATION: _outline,
    TaskType.POSE_ESTIMATION: _pose,
    TaskType.ORIENTED_DETECTION: _corners,
}


def _class_folder(class_id: int) -> str:
    return f"{class_id:05d}"


def _link(image: Path, to: Path) -> None:
    """Link an image under a name without its suffix, or convert it to one that is read."""
    try:
        if not _is_converted(image):
            Path(f"{to}{image.suffix.lower()}").symlink_to(os.path.realpath(image))
            return
    except (OSError, ValueError, SyntaxError) as error:
        raise DatasetError(f"image '{image}' cannot be read: {error}") from error
    open_rgb(image).save(f"{to}.png", compress_level=1)


def _is_converted(image: Path) -> bool:
    with image.open("rb") as file:
        start = file.read(4)
    if start.startswith(_TIFF):
        with Image.open(image, formats=FORMATS) as opened:
            return opened.mode in _DEEP
    return _CONVERTED.match(start) is not None


def _stem(number: int, image: Path) -> str:
    """Return a name that is unique, sorts in the split's order and still tells the image."""
    name = image.stem
    if not name.isprintable() or len(name.encode("utf-8", "surrogateescape")) > _LONGEST_NAME:
        return f"{number:07d}"
    return f"{number:07d}_{name}"
