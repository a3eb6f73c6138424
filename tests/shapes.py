"""Composed data sets of a few shapes, the same in every format, small enough to train in seconds.

Squares, triangles and discs in bright colours on a dark, noisy ground: a model of any framework
learns something of them within an epoch.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from adapters.contract import DatasetFormat, TaskType

CLASSES = ("square", "triangle", "disc")
SIDE = 64  # pixels
KEYPOINTS = 3  # of each shape: corners a third of the way round apart

_COLOURS = ((240, 90, 80), (90, 220, 110), (100, 140, 250))
_CORNERS = (4, 3, 16)
_CELL = SIDE // 2  # shapes lie in different quarters, so none covers another

Point = tuple[float, float]


@dataclass(frozen=True)
class Shape:
    """A shape in an image, its places in pixels."""

    label: int
    polygon: tuple[Point, ...]

    @property
    def box(self) -> tuple[float, float, float, float]:
        xs, ys = zip(*self.polygon, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    @property
    def keypoints(self) -> list[Point]:
        step = len(self.polygon) / KEYPOINTS
        return [self.polygon[int(i * step)] for i in range(KEYPOINTS)]

    @property
    def corners(self) -> list[Point]:
        """Return the corners of an oriented box: the square's own, of others the upright one."""
        if self.label == 0:
            return list(self.polygon)
        left, top, right, bottom = self.box
        return [(left, top), (right, top), (right, bottom), (left, bottom)]


@dataclass(frozen=True)
class Picture:
    name: str
    split: str
    image: Image.Image
    shapes: tuple[Shape, ...]


def compose(
    folder: Path,
    *,
    format: DatasetFormat,
    task_type: TaskType,
    multi_label: bool = False,
    train: int = 24,
    val: int = 12,
) -> Path:
    """Write a data set and return the path that a job names."""
    one_shape = task_type == TaskType.IMAGE_CLASSIFICATION and not multi_label
    pictures = [
        _picture(number, split, one_shape=one_shape)
        for split, count in (("train", train), ("val", val))
        for number in range(count)
    ]
    _WRITERS[format](folder, pictures, task_type, multi_label)
    return folder


def _picture(number: int, split: str, *, one_shape: bool) -> Picture:
    rng = random.Random(f"{split} {number}")
    ground = bytes(rng.randrange(40) for _ in range(SIDE * SIDE))
    image = Image.frombytes("L", (SIDE, SIDE), ground).convert("RGB")
    draw = ImageDraw.Draw(image)
    if one_shape:
        shapes = [_shape(number % 3, (SIDE / 2, SIDE / 2), rng, largest=SIDE * 0.45)]
    else:
        quarters = rng.sample([(x, y) for x in (0, 1) for y in (0, 1)], rng.randint(2, 3))
        # Every class is in every split, whatever the dice say.
        labels = [number % 3] + [rng.randrange(3) for _ in quarters[1:]]
        centres = [(_CELL * (x + 0.5), _CELL * (y + 0.5)) for x, y in quarters]
        shapes = [
            _shape(label, centre, rng, largest=_CELL * 0.47)
            for label, centre in zip(labels, centres, strict=True)
        ]
    for shape in shapes:
        draw.polygon(shape.polygon, fill=_COLOURS[shape.label])
    return Picture(f"{split}{number:03d}", split, image, tuple(shapes))


def _shape(label: int, centre: Point, rng: random.Random, *, largest: float) -> Shape:
    radius, turn = rng.uniform(0.75, 1.0) * largest, rng.uniform(0, 2 * math.pi)
    angles = [turn + 2 * math.pi * i / _CORNERS[label] for i in range(_CORNERS[label])]
    polygon = [
        (centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle))
        for angle in angles
    ]
    return Shape(label, tuple(polygon))


def _write_imagefolder(
    folder: Path, pictures: Sequence[Picture], task_type: TaskType, multi_label: bool
) -> None:
    rows: dict[str, list[str]] = {}
    for picture in pictures:
        labels = sorted({CLASSES[shape.label] for shape in picture.shapes})
        inner = "images" if multi_label else labels[0]
        _save(picture.image, folder / picture.split / inner / f"{picture.name}.png")
        row = f"images/{picture.name}.png,{'|'.join(labels)}"
        rows.setdefault(picture.split, ["file_name,labels"]).append(row)
    if multi_label:
        for split, lines in rows.items():
            (folder / split / "labels.csv").write_text("\n".join(lines) + "\n")


def _write_yolo(
    folder: Path, pictures: Sequence[Picture], task_type: TaskType, multi_label: bool
) -> None:
    line = _YOLO_LINES[task_type]
    for picture in pictures:
        _save(picture.image, folder / "images" / picture.split / f"{picture.name}.png")
        label = folder / "labels" / picture.split / f"{picture.name}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("".join(f"{line(shape)}\n" for shape in picture.shapes))
    keypoints = f"kpt_shape: [{KEYPOINTS}, 3]\n" if task_type == TaskType.POSE_ESTIMATION else ""
    names = f"names: [{', '.join(CLASSES)}]\n"
    (folder / "data.yaml").write_text(f"train: images/train\nval: images/val\n{names}{keypoints}")


def _write_coco(
    folder: Path, pictures: Sequence[Picture], task_type: TaskType, multi_label: bool
) -> None:
    for split in ("train", "val"):
        chosen = [picture for picture in pictures if picture.split == split]
        images, annotations = [], []
        for image_id, picture in enumerate(chosen, start=1):
            name = f"{picture.name}.png"
            _save(picture.image, folder / split / name)
            images.append({"id": image_id, "file_name": name, "width": SIDE, "height": SIDE})
            for shape in picture.shapes:
                id = len(annotations) + 1
                annotations.append({"id": id, "image_id": image_id, **_coco(shape, task_type)})
        pose = {"keypoints": ["a", "b", "c"], "skeleton": [[1, 2], [2, 3]]}
        extra = pose if task_type == TaskType.POSE_ESTIMATION else {}
        # Ids with gaps, as COCO's own are.
        categories = [{"id": 10 * (i + 1), "name": name, **extra} for i, name in enumerate(CLASSES)]
        kind = "person_keypoints" if extra else "instances"
        place = folder / "annotations" / f"{kind}_{split}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        content = {"images": images, "annotations": annotations, "categories": categories}
        place.write_text(json.dumps(content))


def _coco(shape: Shape, task_type: TaskType) -> dict[str, object]:
    left, top, right, bottom = shape.box
    annotation: dict[str, object] = {
        "category_id": 10 * (shape.label + 1),
        "bbox": [left, top, right - left, bottom - top],
        "area": (right - left) * (bottom - top),
        "iscrowd": 0,
    }
    if task_type != TaskType.OBJECT_DETECTION:
        annotation["segmentation"] = [[value for point in shape.polygon for value in point]]
    if task_type == TaskType.POSE_ESTIMATION:
        annotation["keypoints"] = [value for x, y in shape.keypoints for value in (x, y, 2)]
        annotation["num_keypoints"] = KEYPOINTS
    return annotation


def _write_masks(
    folder: Path, pictures: Sequence[Picture], task_type: TaskType, multi_label: bool
) -> None:
    for picture in pictures:
        _save(picture.image, folder / "images" / picture.split / f"{picture.name}.png")
        mask = Image.new("L", picture.image.size)
        for shape in picture.shapes:
            ImageDraw.Draw(mask).polygon(shape.polygon, fill=shape.label + 1)
        _save(mask, folder / "masks" / picture.split / f"{picture.name}.png")
    (folder / "classes.txt").write_text("\n".join(("background", *CLASSES)) + "\n")


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _box_line(shape: Shape) -> str:
    left, top, right, bottom = shape.box
    return f"{shape.label} {_fractions((left + right) / 2, (top + bottom) / 2)} " + _fractions(
        right - left, bottom - top
    )


def _polygon_line(shape: Shape) -> str:
    return f"{shape.label} " + " ".join(_fractions(x, y) for x, y in shape.polygon)


def _corners_line(shape: Shape) -> str:
    return f"{shape.label} " + " ".join(_fractions(x, y) for x, y in shape.corners)


def _pose_line(shape: Shape) -> str:
    points = " ".join(f"{_fractions(x, y)} 2" for x, y in shape.keypoints)
    return f"{_box_line(shape)} {points}"


def _fractions(x: float, y: float) -> str:
    return f"{x / SIDE:.6f} {y / SIDE:.6f}"


_YOLO_LINES: dict[TaskType, Callable[[Shape], str]] = {
    TaskType.IMAGE_CLASSIFICATION: _box_line,
    TaskType.OBJECT_DETECTION: _box_line,
    TaskType.INSTANCE_SEGMENTATION: _polygon_line,
    TaskType.SEMANTIC_SEGMENTATION: _polygon_line,
    TaskType.POSE_ESTIMATION: _pose_line,
    TaskType.ORIENTED_DETECTION: _corners_line,
}

_WRITERS: dict[DatasetFormat, Callable[[Path, Sequence[Picture], TaskType, bool], None]] = {
    DatasetFormat.IMAGEFOLDER: _write_imagefolder,
    DatasetFormat.YOLO: _write_yolo,
    DatasetFormat.COCO: _write_coco,
    DatasetFormat.MASKS: _write_masks,
}
