# ruff: noqa: PTH113, PTH118
# os.path and not pathlib: it answers False where pathlib raises (a name too long), and is faster.
"""Reading the labels.csv of an image folder whose images may have several classes.

Its header is 'file_name,labels'. A file's name is relative to the folder of the labels.csv, and
its labels are parted by '|'; an image may have none.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from adapters.data.description import DatasetError, Problem
from adapters.data.files import (
    IMAGE_SUFFIXES,
    class_name,
    error,
    list_images,
    relative_name,
    spellings,
    warning,
)
from adapters.data.images import FileUnreadable, read_limited
from adapters.data.roots import is_inside, is_path, printable

LABELS_CSV = "labels.csv"
MAX_CSV_BYTES = 256 * 1024 * 1024
MAX_CLASSES = 10_000
MAX_NAME = 200  # characters, of a class
_SHOWN = 200  # characters of what a row says, in a message
_HEADER = ["file_name", "labels"]
_SEPARATOR = "|"


def has_labels_csv(folder: Path) -> bool:
    return (folder / LABELS_CSV).is_file()


def read_labels_csv(
    folder: Path, *, base: Path, allowed: Sequence[str]
) -> tuple[list[tuple[Path, tuple[str, ...]]], list[Problem]]:
    """Return the images that a folder's labels.csv names, with their classes, by name.

    Raises DatasetError where it cannot be read at all.
    """
    file = folder / LABELS_CSV
    shown = relative_name(file, base)
    reader = _Rows(folder, shown=shown, allowed=allowed)
    if not is_inside(os.path.realpath(file), allowed):
        raise DatasetError(f"'{shown}' is a link that leads out of the data set's folder; copy it")
    reader.read(_text(file, shown))
    problems = reader.problems
    listing = list_images(folder, base=base, allowed=allowed, known=frozenset((".csv",)))
    problems += listing.problems
    for image in listing.images:
        if image not in reader.images:
            name = relative_name(image, base)
            message = f"image '{name}' is not named in '{shown}' and is passed over"
            problems.append(warning("image_without_label", message, file=name))
    return sorted(reader.images.items(), key=lambda item: os.fspath(item[0])), problems


def _text(file: Path, shown: str) -> str:
    try:
        return read_limited(file, limit=MAX_CSV_BYTES).decode("utf-8-sig")
    except FileUnreadable as failure:
        raise DatasetError(f"'{shown}' cannot be read: {failure}") from failure
    except UnicodeDecodeError:
        raise DatasetError(f"'{shown}' is not UTF-8 text") from None


class _Rows:
    """Reads the rows of a labels.csv, collecting what is wrong with them."""

    def __init__(self, folder: Path, *, shown: str, allowed: Sequence[str]) -> None:
        self.images: dict[Path, tuple[str, ...]] = {}
        self.problems: list[Problem] = []
        self._folder = folder
        self._shown = shown
        self._allowed = allowed
        self._classes: set[str] = set()

    def read(self, text: str) -> None:
        rows = csv.reader(io.StringIO(text, newline=""))
        try:
            header = [cell.strip() for cell in next(rows, [])]
            if header != _HEADER:
                raise DatasetError(
                    f"the first line of '{self._shown}' must be '{','.join(_HEADER)}'"
                )
            for row in rows:
                if any(cell.strip() for cell in row):
                    self._row(row, line=rows.line_num)
        except csv.Error as failure:
            reason = printable(str(failure))
            raise DatasetError(
                f"line {rows.line_num} of '{self._shown}' is not CSV: {reason}"
            ) from None

    def _row(self, row: Sequence[str], *, line: int) -> None:
        if len(row) != len(_HEADER):
            self._error(
                "label_columns",
                f"{len(row)} columns, where 2 would be right (part labels by '{_SEPARATOR}')",
                line=line,
            )
            return
        image = self._image(row[0].strip(), line=line)
        if image is None:
            return
        if image in self.images:
            self._error(
                "image_listed_twice", f"'{printable(row[0][:_SHOWN])}' was named before", line=line
            )
            return
        labels = row[1].split(_SEPARATOR) if row[1].strip() else []
        names = [class_name(label.strip()) for label in labels]
        if not all(0 < len(name) <= MAX_NAME for name in names):
            reason = f"a label is empty, or has more than {MAX_NAME} characters"
            self._error("label_without_name", reason, line=line)
            return
        self._classes.update(names)
        if len(self._classes) > MAX_CLASSES:
            raise DatasetError(f"'{self._shown}' has more than {MAX_CLASSES} classes")
        self.images[image] = tuple(sorted(set(names)))

    def _image(self, name: str, *, line: int) -> Path | None:
        places = [
            os.path.join(self._folder, spelling)
            for spelling in spellings(name)
            if name and is_path(name)
        ]
        place = next(filter(os.path.isfile, places), places[0] if places else "")
        real = os.path.realpath(place) if place else ""
        if place and not is_inside(real, self._allowed):
            reason = f"'{printable(name[:_SHOWN])}' leads out of the data set's folder"
            self._error("link_outside", reason, line=line)
            return None
        if not os.path.isfile(real) or Path(name).suffix.lower() not in IMAGE_SUFFIXES:
            reason = f"'{printable(name[:_SHOWN])}' is no image that is there"
            self._error("image_not_found", reason, line=line)
            return None
        return Path(os.path.normpath(place))

    def _error(self, code: str, reason: str, *, line: int) -> None:
        message = f"line {line} of '{self._shown}': {reason}"
        self.problems.append(error(code, message, file=self._shown, line=line))
