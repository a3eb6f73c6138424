"""What a data set holds, in numbers: a mapping that JSON takes, of a few kilobytes.

::

    {
      "classes": {                         at most 1000 classes are listed, the first by id
        "train": {"images": [12, 7, …],    by class id: images that show it
                  "objects": [31, 9, …]}   by class id: objects; null of classification and masks
        "val": …, "test": …                only the splits that there are
      },
      "classes_left_out": 0,               how many classes are not listed
      "images_without_objects": {"train": 3, "val": 0},   images without any class or object
      "width": HISTOGRAM, "height": HISTOGRAM,            pixels, of turned images
      "aspect": HISTOGRAM,                 width / height
      "objects_per_image": HISTOGRAM | null,
      "box_size": HISTOGRAM | null         √(box area / image area), 0..1
    }

    HISTOGRAM = {"edges": [e0, …, en], "counts": [c1, …, cn]}
        counts[i] values lie from edges[i] up to below edges[i + 1]; the last bin includes its end.
        Without any value both are empty.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from adapters.data.content import Annotation

CLASSES_LISTED = 1000
_BINS = 20


class Statistics:
    """Counts what a data set holds, image by image."""

    def __init__(self, *, num_classes: int, splits: Iterable[str], with_objects: bool) -> None:
        self._num_classes = num_classes
        self._with_objects = with_objects
        self._images: dict[str, Counter[int]] = {split: Counter() for split in splits}
        self._objects: dict[str, Counter[int]] = {split: Counter() for split in self._images}
        self._empty: dict[str, int] = dict.fromkeys(self._images, 0)
        self._widths, self._heights = array("q"), array("q")
        self._objects_per_image = array("q")
        self._box_sizes = array("f")

    def add(self, split: str, annotation: Annotation, *, size: tuple[int, int] | None) -> None:
        """Count an image with what is annotated in it; size: None where it cannot be read."""
        self._images[split].update(annotation.classes)
        self._objects[split].update(thing.class_id for thing in annotation.objects)
        self._empty[split] += not annotation.classes
        if size is not None:
            self._widths.append(size[0])
            self._heights.append(size[1])
        self._objects_per_image.append(len(annotation.objects))
        for thing in annotation.objects:
            left, top, right, bottom = thing.box
            self._box_sizes.append(((right - left) * (bottom - top)) ** 0.5)

    def images_of(self, split: str) -> Counter[int]:
        """Return how many images of a split show each class."""
        return self._images[split]

    def result(self) -> dict[str, Any]:
        """Return the numbers in the form that is laid out above."""
        listed = range(min(self._num_classes, CLASSES_LISTED))
        widths, heights = np.array(self._widths, float), np.array(self._heights, float)
        return {
            "classes": {
                split: {
                    "images": [images[label] for label in listed],
                    "objects": [self._objects[split][label] for label in listed]
                    if self._with_objects
                    else None,
                }
                for split, images in self._images.items()
            },
            "classes_left_out": self._num_classes - len(listed),
            "images_without_objects": dict(self._empty),
            "width": _histogram(widths),
            "height": _histogram(heights),
            "aspect": _histogram(widths / heights),
            "objects_per_image": _histogram(self._objects_per_image)
            if self._with_objects
            else None,
            "box_size": _histogram(self._box_sizes) if self._with_objects else None,
        }


def _histogram(values: Sequence[float] | np.ndarray[Any, Any]) -> dict[str, list[float]]:
    if not len(values):
        return {"edges": [], "counts": []}
    numbers = np.asarray(values, dtype=float)
    low, high = float(numbers.min()), float(numbers.max())
    whole = bool((numbers == numbers.round()).all())
    if whole and high - low < _BINS:  # a bin a number
        edges = np.arange(low, high + 2)
    else:
        edges = np.linspace(low, high, _BINS + 1) if high > low else np.array([low, high])
    counts, _ = np.histogram(numbers, bins=edges)
    return {"edges": [round(float(edge), 4) for edge in edges], "counts": counts.tolist()}
