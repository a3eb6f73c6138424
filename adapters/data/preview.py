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
      }, …],                               at most 200, the largest
      "mask": "…",                         base64 of a PNG of the thumbnail's size with a palette,
                                           transparent where there is no class; null: no mask
      "problems": ["…"]                    sentences: why something is missing here
    }
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters.contract import DatasetFormat, TaskType
from adapters.data.content import SplitRule


def preview(
    path: Path,
    *,
    format: DatasetFormat,
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
    raise NotImplementedError
