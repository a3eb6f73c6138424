"""The objects that a COCO file outlines in an image, in fractions of it."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adapters.data.coco_fields import BadField, ImageEntry, Rle
from adapters.data.coco_table import CocoTable
from adapters.data.content import Annotation, Box, Object
from adapters.data.description import DatasetError, Problem, Severity
from adapters.data.drawing import class_mask
from adapters.data.files import error, warning
from adapters.data.rle import decode_rle

_TOLERANCE = 0.01  # of the image; rounding puts the edge of a box just outside
_FEWEST_VALUES = 6  # of a polygon: three points

_Find = Callable[..., Problem]


@dataclass(frozen=True)
class CocoObjects:
    """The annotations of one file, with the class of each category."""

    table: CocoTable
    class_of: Mapping[int, int]

    def classes_of(self, image: int) -> set[int]:
        """Return the classes of what is in an image."""
        categories = (self.table.category_of[i] for i in self.table.annotations_of(image))
        return {self.class_of[category] for category in categories if category in self.class_of}

    def mask(self, image: int, *, background: int) -> NDArray[np.uint8]:
        """Return the class of each pixel. Raises DatasetError with the first error."""
        entry = self.table.images[image]
        annotation = self.check(image, Path(entry.file_name), size=None)
        for problem in annotation.problems:
            if problem.severity == Severity.ERROR:
                raise DatasetError(problem.message)
        size = (entry.width, entry.height)
        return class_mask(annotation.objects, size=size, background=background)

    def check(self, image: int, path: Path, *, size: tuple[int, int] | None) -> Annotation:
        """Return an image's objects and all that is wrong with them."""
        entry = self.table.images[image]
        problems = list(self._size(image, entry, size))
        digest = hashlib.sha256(f"{entry.width} {entry.height}".encode())
        objects: dict[object, Object] = {}
        for number in self.table.annotations_of(image):
            digest.update(self._packed(number))
            category = self.table.category_of[number]
            if category not in self.class_of:
                continue  # told of when the file was read
            try:
                thing, found = self._object(number, entry, self.class_of[category])
            except BadField as bad:
                problems.append(self._find(error, bad.code, str(bad), number))
                continue
            problems += found
            if thing is None:
                continue
            outline = thing.mask.tobytes() if thing.mask is not None else thing.polygons
            same = (thing.class_id, thing.box, outline, thing.keypoints, thing.crowd)
            if same in objects:
                message = "says the same as another of its image; it counts once"
                problems.append(self._find(warning, "duplicate_label", message, number))
            objects.setdefault(same, thing)
        things = tuple(objects.values())
        return Annotation(
            digest.hexdigest(),
            objects=things,
            classes=tuple(sorted({thing.class_id for thing in things})),
            problems=tuple(problems),
        )

    def _size(
        self, image: int, entry: ImageEntry, size: tuple[int, int] | None
    ) -> Sequence[Problem]:
        if size is None or size == (entry.width, entry.height):
            return ()
        message = (
            f"image {entry.id} in '{self.table.file}' has {entry.width} × {entry.height} pixels "
            f"there and {size[0]} × {size[1]} in its file"
        )
        if size == (entry.height, entry.width):
            message += "; was it annotated before it was turned (EXIF)?"
        line = self.table.image_lines[image]
        return (error("image_size_differs", message, file=self.table.file, line=line),)

    def _object(
        self, number: int, entry: ImageEntry, class_id: int
    ) -> tuple[Object | None, list[Problem]]:
        """Return an annotation's object, None where it covers nothing. Raises BadField."""
        problems: list[Problem] = []
        polygons, mask = [], None
        for polygon in self.table.polygons_of(number):
            fractions = _fractions(polygon, entry, code="polygon_outside", what="a polygon")
            if len(set(zip(fractions[0::2], fractions[1::2], strict=True))) < _FEWEST_VALUES / 2:
                message = "a polygon has fewer than three points and is left out"
                problems.append(self._find(warning, "polygon_too_short", message, number))
            else:
                polygons.append(fractions)
        if number in self.table.rles:
            mask = _mask(self.table.rles[number], entry)
        box = self._box(number, entry, polygons, mask)
        if box is None:
            message = "a box without area covers nothing and is left out"
            return None, [*problems, self._find(warning, "box_without_area", message, number)]
        if self.table.has_outlines and not (polygons or problems) and mask is None:
            message = "it has no outline, as others have; segmentation passes it over"
            problems.append(self._find(warning, "object_without_outline", message, number))
        return (
            Object(
                class_id=class_id,
                box=box,
                polygons=tuple(polygons),
                mask=mask,
                keypoints=_keypoints(self.table.keypoints.get(number, ()), entry),
                crowd=bool(self.table.crowd[number]),
            ),
            problems,
        )

    def _box(
        self,
        number: int,
        entry: ImageEntry,
        polygons: Sequence[tuple[float, ...]],
        mask: NDArray[np.bool_] | None,
    ) -> Box | None:
        given = self.table.box_of(number)
        if given is None:
            return _bounds(polygons, mask)
        left, top, width, height = given
        if width <= 0 or height <= 0:
            return None
        corners = (left, top, left + width, top + height)
        box = _fractions(corners, entry, code="box_outside", what="its box")
        return None if box[2] <= box[0] or box[3] <= box[1] else (box[0], box[1], box[2], box[3])

    def _packed(self, number: int) -> bytes:
        """Return all that an annotation says, for a hash."""
        table = self.table
        rle = table.rles.get(number)
        return b"".join(
            (
                f"{table.category_of[number]} {table.crowd[number]} {rle}".encode(),
                table.boxes[4 * number : 4 * number + 4].tobytes(),
                *(polygon.tobytes() + b"|" for polygon in table.polygons_of(number)),
                table.keypoints.get(number, array("f")).tobytes(),
            )
        )

    def _find(self, kind: _Find, code: str, reason: str, number: int) -> Problem:
        message = f"annotation {self.table.ids[number]} in '{self.table.file}': {reason}"
        return kind(code, message, file=self.table.file, line=self.table.lines[number])


def mirrored(names: Sequence[str]) -> tuple[int, ...]:
    """Return the point that each becomes in a mirror image, as their names tell: left and right."""
    swapped = [_other_side(name) for name in names]
    if swapped == list(names) or len(set(names)) < len(names):
        return ()
    if not set(swapped) <= set(names):
        return ()
    return tuple(names.index(name) for name in swapped)


def _other_side(name: str) -> str:
    for one, other in (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT")):
        if one in name:
            return name.replace(one, other)
        if other in name:
            return name.replace(other, one)
    return name


def _fractions(
    values: Sequence[float], entry: ImageEntry, *, code: str, what: str
) -> tuple[float, ...]:
    """Return pixels as fractions of the image. Raises BadField where they leave it."""
    sides = (entry.width, entry.height)
    fractions = [value / sides[i % 2] for i, value in enumerate(values)]
    low, high = min(fractions, default=0.0), max(fractions, default=0.0)
    if low < -_TOLERANCE or high > 1 + _TOLERANCE:
        raise BadField(
            f"{what} leaves the image of {entry.width} × {entry.height} pixels", code=code
        )
    return tuple(min(1.0, max(0.0, fraction)) for fraction in fractions)


def _keypoints(values: Sequence[float], entry: ImageEntry) -> tuple[tuple[float, float, int], ...]:
    points = []
    for i in range(0, len(values), 3):
        x, y, visibility = values[i : i + 3]
        if not visibility:
            points.append((0.0, 0.0, 0))
            continue
        place = _fractions((x, y), entry, code="keypoint_outside", what="a keypoint")
        points.append((place[0], place[1], int(visibility)))
    return tuple(points)


def _mask(rle: Rle, entry: ImageEntry) -> NDArray[np.bool_]:
    if (rle.width, rle.height) != (entry.width, entry.height):
        raise BadField(
            f"its runs are for {rle.width} × {rle.height} pixels and its image has "
            f"{entry.width} × {entry.height}",
            code="bad_rle",
        )
    try:
        return decode_rle(rle.counts, height=rle.height, width=rle.width)
    except ValueError as failure:
        raise BadField(str(failure), code="bad_rle") from None


def _bounds(polygons: Sequence[tuple[float, ...]], mask: NDArray[np.bool_] | None) -> Box | None:
    """Return the box around an outline, or None where it covers nothing."""
    if mask is not None:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return None
        height, width = mask.shape
        return (
            float(columns[0] / width),
            float(rows[0] / height),
            float((columns[-1] + 1) / width),
            float((rows[-1] + 1) / height),
        )
    xs = [x for polygon in polygons for x in polygon[0::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    if not xs or max(xs) <= min(xs) or max(ys) <= min(ys):
        return None
    return min(xs), min(ys), max(xs), max(ys)
