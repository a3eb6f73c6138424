"""Reading COCO's panoptic files: the segments of an image are the colours of a PNG.

A pixel's segment is red + 256 × green + 256² × blue; the file tells each segment's category.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adapters.data.coco_entries import Entries, EntryReader, named
from adapters.data.coco_fields import BadField, read_category_id, read_file_name, read_id
from adapters.data.content import IGNORED, Annotation
from adapters.data.description import DatasetError, Problem
from adapters.data.files import error, spellings, warning
from adapters.data.images import read_mask
from adapters.data.roots import is_inside, printable

MAX_SEGMENTS = 10_000  # of an image
_COLOURS = 256**3


@dataclass(frozen=True, slots=True)
class Segments:
    """What is annotated in an image."""

    png: str
    line: int
    categories: Mapping[int, int]  # by segment


@dataclass
class PanopticTable(Entries):
    """The images and segments of one file; images go by number."""

    segments: dict[int, Segments] = field(default_factory=dict)


def read_panoptic(path: Path, *, shown: str) -> PanopticTable:
    """Read a panoptic file with all that its fields show to be wrong.

    Raises DatasetError where it is not JSON, or not COCO at all.
    """
    table = PanopticTable(shown)
    reader = _Reader(table)
    reader.read(path)
    reader.finish()
    return table


def panoptic_folder(file: Path, base: Path, *, allowed: Sequence[str]) -> Path | None:
    """Return the folder of a panoptic file's PNGs: named as it is, beside it or in the base."""
    for place in (file.with_suffix(""), base / file.stem):
        if place.is_dir() and is_inside(os.path.realpath(place), allowed):
            return place
    return None


class _Reader(EntryReader):
    def __init__(self, table: PanopticTable) -> None:
        super().__init__(table)
        self._table = table
        self._given: dict[int, Segments] = {}  # by meet()

    def annotation(self, entry: Any, line: int) -> None:
        try:
            met = self.meet(read_id(entry, "image_id"))
            png = read_file_name(entry)
            if not png.lower().endswith(".png"):
                raise BadField("'file_name' must be the name of a PNG")
            if met in self._given:
                raise BadField("its image has a second one", code="duplicate_label")
            self._given[met] = Segments(png, line, _categories(entry))
        except BadField as bad:
            self.wrong(bad, what=_what(entry), line=line)

    def finish(self) -> None:
        known = {category.id for category in self._table.categories}
        for met, segments in self._given.items():
            what = f"the annotation of '{printable(segments.png)}'"
            for category in sorted(set(segments.categories.values()) - known):
                message = (
                    f"{what} in '{self._table.file}' has a segment of category {category}, "
                    "which is not among its categories"
                )
                self.tell(
                    error("label_out_of_range", message, file=self._table.file, line=segments.line)
                )
            number = self.place(met, what=what, line=segments.line)
            if number < len(self._table.images):
                self._table.segments[number] = segments


def _categories(entry: Any) -> dict[int, int]:
    given = entry.get("segments_info")
    if not isinstance(given, list) or len(given) > MAX_SEGMENTS:
        raise BadField(f"'segments_info' must be a list of at most {MAX_SEGMENTS} segments")
    found: dict[int, int] = {}
    for segment in given:
        id = read_id(segment, "id")
        if not isinstance(id, int) or not 0 <= id < _COLOURS:
            raise BadField("a segment's 'id' must be a colour: red + 256 × green + 65536 × blue")
        category = read_category_id(segment)
        if found.setdefault(id, category) != category:
            raise BadField(f"segment {id} is of two categories", code="duplicate_label")
    return found


def _what(entry: Any) -> str:
    try:
        return f"the annotation of image {read_id(entry, 'image_id')}"
    except BadField:
        return named("annotation", entry)


@dataclass(frozen=True)
class PanopticSegments:
    """The annotations of one file, with the class of each category and the folder of its PNGs."""

    table: PanopticTable
    class_of: Mapping[int, int]
    folder: Path | None
    allowed: Sequence[str]

    def classes_of(self, image: int) -> set[int]:
        """Return the classes of what is in an image."""
        segments = self.table.segments.get(image)
        categories = segments.categories.values() if segments else ()
        return {self.class_of[category] for category in categories if category in self.class_of}

    def mask(self, image: int, *, background: int) -> NDArray[np.uint8]:
        """Return the class of each pixel, IGNORED where there is no segment.

        Raises DatasetError where the PNG cannot be read.
        """
        segments = self.table.segments.get(image)
        entry = self.table.images[image]
        if segments is None:
            return np.full((entry.height, entry.width), IGNORED, dtype=np.uint8)
        classes, _, _ = self._decoded(segments)
        return classes

    def check(self, image: int, path: Path, *, size: tuple[int, int] | None) -> Annotation:
        """Return the classes in an image and all that is wrong with its PNG."""
        segments = self.table.segments.get(image)
        if segments is None:
            message = f"image {self.table.images[image].id} has no annotation; all is ignored"
            line = self.table.image_lines[image]
            return Annotation(
                "", problems=(self._found(warning, "image_without_label", message, line),)
            )
        try:
            classes, present, unknown = self._decoded(segments)
        except DatasetError as failure:
            problem = self._found(error, "unreadable_mask", str(failure), segments.line)
            return Annotation("", problems=(problem,))
        problems = []
        if unknown:
            listed = ", ".join(map(str, unknown[:5]))
            message = f"'{printable(segments.png)}' has segments that are not described: {listed}"
            problems.append(self._found(error, "segment_unknown", message, segments.line))
        height, width = classes.shape
        if size is not None and size != (width, height):
            message = (
                f"'{printable(segments.png)}' has {width} × {height} pixels and its image "
                f"{size[0]} × {size[1]}"
            )
            problems.append(self._found(error, "mask_size_differs", message, segments.line))
        digest = hashlib.sha256(classes.tobytes()).hexdigest()
        return Annotation(digest, classes=present, problems=tuple(problems))

    def _decoded(self, segments: Segments) -> tuple[NDArray[np.uint8], tuple[int, ...], list[int]]:
        """Return the class of each pixel, all of them, and segments that are not described."""
        # Four bytes a pixel are one number, of which the fourth is alpha.
        pixels = np.asarray(self._png(segments.png).convert("RGBA")).view("<u4")[..., 0]
        ids = (pixels & _COLOURS - 1).ravel()
        # A row is a few runs of one segment each: only those are sorted, not all pixels.
        starts = np.concatenate(([0], np.flatnonzero(ids[1:] != ids[:-1]) + 1))
        found, inverse = np.unique(ids[starts], return_inverse=True)
        unknown = [int(id) for id in found if id and int(id) not in segments.categories]
        category = [segments.categories.get(int(id), -1) for id in found]
        class_of = np.array([self.class_of.get(c, IGNORED) for c in category], dtype=np.uint8)
        classes = np.repeat(class_of[inverse], np.diff(starts, append=len(ids)))
        present = tuple(sorted({int(value) for value in class_of if value != IGNORED}))
        return classes.reshape(pixels.shape), present, unknown

    def _png(self, name: str) -> Image.Image:
        if self.folder is None:
            raise DatasetError(f"there is no folder of PNGs for '{self.table.file}'")
        places = [self.folder / spelling for spelling in spellings(name)]
        place = next((place for place in places if place.is_file()), places[0])
        if not is_inside(os.path.realpath(place), self.allowed):
            raise DatasetError(f"'{printable(name)}' leads out of the data set's folder")
        return read_mask(place, mode="RGB")

    def _found(self, kind: Any, code: str, message: str, line: int) -> Problem:
        problem: Problem = kind(code, message, file=self.table.file, line=line)
        return problem
