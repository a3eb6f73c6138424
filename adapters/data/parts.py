"""What a data set consists of: the files that its description names, and nothing else.

Read from a copy of just these, it is the same content: what it has in its folder beside them is
passed over, and what a link points to is taken in the link's place.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from adapters.contract import DatasetFormat
from adapters.data.coco_content import CocoContent
from adapters.data.content import Content
from adapters.data.description import DatasetError
from adapters.data.files import relative_name
from adapters.data.labels_csv import LABELS_CSV
from adapters.data.masks import IMAGES, MASKS
from adapters.data.reading import TASKS_OF_FORMAT, scan
from adapters.data.roots import printable
from adapters.data.split_names import SPLIT_FOLDERS
from adapters.data.yolo_content import YoloContent
from adapters.data.yolo_moved import moved_documents


@dataclass(frozen=True)
class Parts:
    """A data set's parts beside its samples; names are relative to its folder."""

    documents: Mapping[str, bytes]  # files that are written anew
    files: tuple[Path, ...]  # annotations of this task and of others
    folders: tuple[str, ...]  # that must be there, also where they are empty
    others: tuple[Path, ...]  # images that annotations of other tasks name


def parts_of(path: Path, content: Content) -> Parts:
    """Return what belongs to the data set that was read from a path.

    Raises DatasetError where a copy elsewhere could not be read as the same.
    """
    files = [*content.annotation_files(), *content.other_annotations()]
    _require_relative_names(content, files)
    documents: Mapping[str, bytes] = {}
    folders: list[str] = []
    others: list[Path] = []
    if isinstance(content, YoloContent):
        documents = moved_documents(content.data)
        folders = [
            relative(place.path, content.path)
            for places in content.data.places.values()
            for place in places
            if place.listed is None
        ]
    elif content.format == DatasetFormat.IMAGEFOLDER:
        folders = list(_split_folders(content.path, ""))
    elif content.format == DatasetFormat.MASKS:
        folders = [f for kind in (IMAGES, MASKS) for f in _split_folders(content.path, kind)]
    elif isinstance(content, CocoContent) and content.others:
        others = list(_images_of_other_tasks(path, content))
    return Parts(documents, tuple(files), tuple(folders), tuple(others))


def relative(path: Path, base: Path) -> str:
    """Return a path below a folder as a name in it. Raises DatasetError where it lies elsewhere."""
    name = os.path.relpath(path, base)
    if name == ".." or name.startswith("../"):
        raise DatasetError(f"'{printable(name)}' lies outside of the data set's folder")
    return name


def _split_folders(base: Path, kind: str) -> Iterator[str]:
    for folder in sorted((base / kind).iterdir()):
        if folder.name.lower() in SPLIT_FOLDERS and folder.is_dir():
            yield relative(folder, base)


def _images_of_other_tasks(path: Path, content: CocoContent) -> Iterator[Path]:
    """Yield the images that annotation files name which are read for other tasks only."""
    waiting = {file.path for file in content.others}
    for task_type in TASKS_OF_FORMAT[content.format]:
        if not waiting:
            return
        try:
            other = scan(path, format=content.format, task_type=task_type)
        except DatasetError:  # they do not serve that task, or are no good: no job reads them
            continue
        assert isinstance(other, CocoContent)
        read = {file.path for file in other.read}
        if read & waiting:
            waiting -= read
            yield from (sample.image for samples in other.splits.values() for sample in samples)


def _require_relative_names(content: Content, files: list[Path]) -> None:
    """Raise DatasetError where an image is named by its place on this host.

    A YOLO data set may do so: its lists are written anew.
    """
    named: Iterator[tuple[str, str]] = iter(())
    if isinstance(content, CocoContent):
        named = (
            (part.table.file, entry.file_name) for part in content.parts
            for entry in part.table.images
        )  # fmt: skip
    elif content.format == DatasetFormat.IMAGEFOLDER:
        named = (
            (relative_name(file, content.path), row[0].strip())
            for file in files
            if file.name == LABELS_CSV
            for row in _rows(file)
        )
    for file, name in named:
        if PurePosixPath(name.replace("\\", "/")).is_absolute():
            raise DatasetError(
                f"'{file}' names images by absolute paths, like '{printable(name)[:200]}', which "
                "mean nothing on another host; make them relative to its folder"
            )


def _rows(file: Path) -> Iterator[list[str]]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        yield from (row for row in csv.reader(lines) if row)
