"""What COCO's annotation files say, packed: a million objects in some 100 bytes each.

As objects of Python they would take ten times as much, in each of a training's processes.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapters.data.coco_entries import Entries, EntryReader, named
from adapters.data.coco_fields import (
    BadField,
    Id,
    Rle,
    check_keypoints,
    read_box,
    read_category_id,
    read_id,
    read_keypoints,
    read_outline,
)
from adapters.data.files import error

_NO_BOX = (-1.0, -1.0, -1.0, -1.0)


@dataclass
class CocoTable(Entries):
    """The images and annotations of one file; annotations go by number, too."""

    ids: list[Id] = field(default_factory=list)
    lines: array[int] = field(default_factory=lambda: array("q"))
    image_of: array[int] = field(default_factory=lambda: array("q"))  # len(images): of none
    category_of: array[int] = field(default_factory=lambda: array("q"))  # a category's id
    crowd: bytearray = field(default_factory=bytearray)
    boxes: array[float] = field(default_factory=lambda: array("f"))  # four each; _NO_BOX
    keypoints: dict[int, array[float]] = field(default_factory=dict)  # x, y, visibility each
    rles: dict[int, Rle] = field(default_factory=dict)
    # Polygons lie one after the other: of annotation i those from polygon_starts[i] on, each with
    # the coordinates from point_starts on.
    polygon_starts: array[int] = field(default_factory=lambda: array("q", [0]))
    point_starts: array[int] = field(default_factory=lambda: array("q", [0]))
    points: array[float] = field(default_factory=lambda: array("f"))

    @property
    def has_outlines(self) -> bool:
        return bool(self.points) or bool(self.rles)

    def annotations_of(self, image: int) -> Sequence[int]:
        """Return the numbers of an image's annotations."""
        order, starts = self._by_image
        found: list[int] = order[starts[image] : starts[image + 1]].tolist()
        return found

    def polygons_of(self, annotation: int) -> list[array[float]]:
        """Return the polygons of an annotation, x1 y1 x2 y2 … in pixels."""
        first, end = self.polygon_starts[annotation], self.polygon_starts[annotation + 1]
        return [
            self.points[self.point_starts[i] : self.point_starts[i + 1]] for i in range(first, end)
        ]

    def box_of(self, annotation: int) -> tuple[float, ...] | None:
        """Return x, y, width and height in pixels."""
        box = tuple(self.boxes[4 * annotation : 4 * annotation + 4])
        return None if box == _NO_BOX else box

    @cached_property
    def _by_image(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        images = np.array(self.image_of, dtype=np.int64)
        order = np.argsort(images, kind="stable")
        starts = np.searchsorted(images[order], np.arange(len(self.images) + 1))
        return order, starts


def read_table(path: Path, *, shown: str) -> CocoTable:
    """Read an annotation file with all that its fields show to be wrong.

    Raises DatasetError where it is not JSON, or not COCO at all.
    """
    table = CocoTable(shown)
    reader = _Reader(table)
    reader.read(path)
    reader.finish()
    return table


class _Reader(EntryReader):
    def __init__(self, table: CocoTable) -> None:
        super().__init__(table)
        self._table = table
        self._given = 0  # annotations so far, right or wrong

    def annotation(self, entry: Any, line: int) -> None:
        self._given += 1
        try:
            image_id, category = read_id(entry, "image_id"), read_category_id(entry)
            id = read_id(entry, "id") if "id" in entry else f"number {self._given}"
            box, outline, keypoints = read_box(entry), read_outline(entry), read_keypoints(entry)
        except BadField as bad:
            self.wrong(bad, what=named("annotation", entry, number=self._given - 1), line=line)
            return
        table, number = self._table, len(self._table.ids)
        table.ids.append(id)
        table.lines.append(line)
        table.image_of.append(self.meet(image_id))
        table.category_of.append(category)
        table.crowd.append(entry.get("iscrowd") in (1, True))
        table.boxes.extend(box or _NO_BOX)
        if isinstance(outline, Rle):
            table.rles[number] = outline
        for polygon in outline if isinstance(outline, list) else ():
            table.points.extend(polygon)
            table.point_starts.append(len(table.points))
        table.polygon_starts.append(len(table.point_starts) - 1)
        if keypoints:
            table.keypoints[number] = array("f", keypoints)

    def finish(self) -> None:
        """Look at what belongs together, now that all of it was met."""
        table = self._table
        points = {category.id: len(category.keypoints) for category in table.categories}
        for i, (met, category) in enumerate(zip(table.image_of, table.category_of, strict=True)):
            what, line = f"annotation {table.ids[i]}", table.lines[i]
            table.image_of[i] = self.place(met, what=what, line=line)
            if category not in points:
                message = (
                    f"{what} in '{self._shown}' is of category {category}, "
                    "which is not among its categories"
                )
                self.tell(error("label_out_of_range", message, file=self._shown, line=line))
            if i in table.keypoints:
                self._keypoints(i, points.get(category, 0), what=what, line=line)

    def _keypoints(self, number: int, points: int, *, what: str, line: int) -> None:
        try:
            if points:
                check_keypoints(self._table.keypoints[number], points)
                return
        except BadField as bad:
            self.wrong(bad, what=what, line=line)
        del self._table.keypoints[number]  # wrong, or of a category that has none
