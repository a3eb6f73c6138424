"""Reading the images and categories of a COCO file, whatever kind of annotations it has."""

from __future__ import annotations

import dataclasses
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters.data.coco_fields import (
    BadField,
    Category,
    Id,
    ImageEntry,
    read_category,
    read_id,
    read_image,
    read_skeleton,
)
from adapters.data.description import DatasetError, Problem
from adapters.data.files import error, warning
from adapters.data.json_document import JsonDocument
from adapters.data.problems import ProblemList

MAX_CATEGORIES = 10_000


@dataclass
class Entries:
    """The images and categories of one file; images go by number, their place in the list."""

    file: str  # as problems name it
    images: list[ImageEntry] = field(default_factory=list)
    image_lines: array[int] = field(default_factory=lambda: array("q"))
    categories: list[Category] = field(default_factory=list)
    problems: ProblemList = field(default_factory=ProblemList)


class EntryReader:
    """Takes up the elements of a COCO file, in whatever order its lists come."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        self._shown = entries.file
        self._met: dict[Id, int] = {}  # ids of images by the order in which they were met
        self._numbers: dict[int, int] = {}  # of those that are in the list, their place there

    def read(self, path: Path) -> None:
        """Raises DatasetError where the file is not JSON, or not COCO at all."""
        document = JsonDocument(path, shown=self._shown)
        for key, element, line in document.elements():
            if key == "images":
                self._image(element, line)
            elif key == "categories":
                self._category(element, line)
            elif key == "annotations":
                self.annotation(element, line)
        missing = {"images", "annotations", "categories"} - document.keys
        if missing:
            listed = " and ".join(f"'{name}'" for name in sorted(missing))
            raise DatasetError(f"'{self._shown}' lacks {listed}, which COCO's annotations have")

    def annotation(self, entry: Any, line: int) -> None:
        """Take up an annotation; the images it may name are perhaps still to come."""
        raise NotImplementedError

    def meet(self, image_id: Id) -> int:
        """Return a number for an image that an annotation names; see place()."""
        return self._met.setdefault(image_id, len(self._met))

    def place(self, met: int, *, what: str, line: int) -> int:
        """Return the place of a met image in the list, or the list's length where it is not."""
        number = self._numbers.get(met)
        if number is not None:
            return number
        message = (
            f"{what} in '{self._shown}' names an image that is not among its images, "
            "and is passed over"
        )
        self.tell(warning("label_without_image", message, file=self._shown, line=line))
        return len(self._entries.images)

    def wrong(self, bad: BadField, *, what: str, line: int) -> None:
        message = f"{what} in '{self._shown}': {bad}"
        self.tell(error(bad.code, message, file=self._shown, line=line))

    def tell(self, problem: Problem) -> None:
        self._entries.problems.extend([problem])

    def _image(self, entry: Any, line: int) -> None:
        try:
            image = read_image(entry)
        except BadField as bad:
            self.wrong(bad, what=named("image", entry), line=line)
            return
        met = self.meet(image.id)
        if met in self._numbers:
            message = f"image {image.id} is in '{self._shown}' a second time"
            self.tell(error("image_listed_twice", message, file=self._shown, line=line))
            return
        self._numbers[met] = len(self._entries.images)
        self._entries.images.append(image)
        self._entries.image_lines.append(line)

    def _category(self, entry: Any, line: int) -> None:
        known = self._entries.categories
        if len(known) >= MAX_CATEGORIES:
            raise DatasetError(f"'{self._shown}' has more than {MAX_CATEGORIES} categories")
        try:
            category = read_category(entry)
        except BadField as bad:
            self.wrong(bad, what=named("category", entry), line=line)
            return
        if any(category.id == other.id for other in known):
            message = f"category {category.id} is in '{self._shown}' a second time"
            self.tell(error("category_twice", message, file=self._shown, line=line))
            return
        try:
            lines = read_skeleton(entry, len(category.keypoints))
        except BadField as bad:
            message = f"category {category.id} in '{self._shown}': {bad}"
            self.tell(warning(bad.code, message, file=self._shown, line=line))
        else:
            category = dataclasses.replace(category, skeleton=lines)
        known.append(category)


def named(what: str, entry: Any, *, number: int | None = None) -> str:
    """Name an element by its id, or else by its place in its list."""
    try:
        return f"{what} {read_id(entry, 'id')}"
    except BadField:
        return what if number is None else f"{what} number {number + 1} of the list"
