# ruff: noqa: PTH114, PTH118
# os.path and not pathlib: it answers False where pathlib raises (a name too long), and is faster.
"""Finding and checking the label files of a YOLO data set, line by line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path

from adapters.contract import TaskType
from adapters.data.description import Problem
from adapters.data.files import error, relative_name
from adapters.data.roots import is_inside

_PEEKED_LABELS = 50  # label files looked at to tell boxes from polygons
_PEEKED_LINES = 50  # of each
_MOSTLY = 0.9  # of the lines; the rest may be wrong


def label_path(image: Path, allowed: Sequence[str]) -> Path:
    """Return where the label of an image lies: the last folder 'images' of its path is 'labels'.

    Where no folder is named so, the label lies beside the image. Ultralytics has the same rule,
    but here an 'images' above the allowed folders does not count.
    """
    text = os.fspath(image.with_suffix(".txt"))
    before, separator, after = text.rpartition("/images/")
    if separator and is_inside(before, allowed):
        return Path(f"{before}/labels/{after}")
    return Path(text)


def labels_outside(
    images: Iterable[Path], *, base: Path, allowed: Sequence[str]
) -> Iterator[Problem]:
    """Yield an error for each label that is reached through a link out of the allowed folders."""
    real_folder = lru_cache(maxsize=4096)(os.path.realpath)
    for image in images:
        path = label_path(image, allowed)
        real = os.path.join(real_folder(path.parent), path.name)
        if os.path.islink(real):
            real = os.path.realpath(real)
        if not is_inside(real, allowed):
            name = relative_name(path, base)
            message = (
                f"'{name}' is a link that leads out of the data set's folder; put a copy there"
            )
            yield error("link_outside", message, file=name)


def detect_task(labels: Iterable[Path], *, keypoints: tuple[int, int] | None) -> TaskType:
    """Tell what labels are made for.

    Keypoints are declared in the yaml, outlines seen in the labels: where nearly all have four
    points, they are the corners of oriented boxes.
    """
    if keypoints is not None:
        return TaskType.POSE_ESTIMATION
    columns = [
        count for path in islice(labels, _PEEKED_LABELS) for count in _columns_of_lines(path)
    ]
    if not columns or columns[0] < 7:
        return TaskType.OBJECT_DETECTION
    if columns.count(9) >= _MOSTLY * len(columns):
        return TaskType.ORIENTED_DETECTION
    return TaskType.INSTANCE_SEGMENTATION


def _columns_of_lines(path: Path) -> Iterator[int]:
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for _ in range(_PEEKED_LINES):
            columns = len(file.readline(100_000).split())
            if columns:
                yield columns
