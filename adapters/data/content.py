"""A data set in one form, whatever its files look like: what every adapter trains on.

A reader of :mod:`adapters.data` makes a :class:`Content` of each format; an adapter makes of it
what its framework wants. So a COCO set trains in Ultralytics and a YOLO set in transformers.

All places are fractions of the image, from its upper left corner, with the image turned as its
camera said (EXIF): what a viewer shows is what is meant.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from adapters.contract import DatasetFormat, TaskType
from adapters.data.description import Problem, Severity

if TYPE_CHECKING:  # so that a data set is read without numpy where no mask is asked for
    import numpy as np
    from numpy.typing import NDArray

IGNORED = 255  # of a mask: pixels that belong to no class and count for nothing

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True, slots=True)
class Keypoints:
    """The points of each object of a pose data set."""

    number: int
    dimensions: int  # 2: x, y; 3: and visibility
    names: tuple[str, ...] = ()
    flip: tuple[int, ...] = ()  # the point that each becomes in a mirror image; empty: not known
    skeleton: tuple[tuple[int, int], ...] = ()  # 0-based pairs that are drawn as lines


@dataclass(frozen=True, slots=True)
class Object:
    """One thing in an image."""

    class_id: int
    box: Box
    polygons: tuple[tuple[float, ...], ...] = ()  # x1 y1 x2 y2 … of each of its parts
    mask: NDArray[np.bool_] | None = None  # (height, width), where its outline is no polygon
    keypoints: tuple[tuple[float, float, int], ...] = ()  # x, y, visibility 0, 1 or 2
    corners: tuple[float, ...] = ()  # x1 y1 … x4 y4 of an oriented box
    crowd: bool = False  # a crowd outlined as one: not trained on, and no miss in validation


@dataclass(frozen=True, slots=True)
class Sample:
    """One image, and where its annotation is found."""

    image: Path
    classes: tuple[int, ...] = ()  # ids, of classification: one, or any number with multi_label
    key: Path | int | None = None  # the reader's own: a label file, a mask, a COCO image's id


@dataclass(frozen=True, slots=True)
class Annotation:
    """What a close look at one image's annotation told; nothing wrong is among its objects."""

    sha256: str  # of what it says; empty where there is none
    objects: tuple[Object, ...] = ()
    classes: tuple[int, ...] = ()  # ids that occur, each once, of objects or of a mask's pixels
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class SplitRule:
    """How images are split that come without a val split: by class, and in a seeded order."""

    seed: int = 0
    val_share: float = 0.2

    def in_words(self, *, by_class: bool = True) -> str:
        """Return the rule as a sentence for a person."""
        images = "the images of each class" if by_class else "the images"
        return (
            f"It comes without a val split: {100 * self.val_share:.4g} % of {images}, chosen by a "
            f"hash of their names with the seed {self.seed}, are held out of train."
        )


@dataclass(frozen=True)
class Content(ABC):
    """A data set as its names and annotations tell it, for one task; no image was opened.

    Read for semantic segmentation from outlines, it has one class more, the last, 'background':
    the pixels that no outline covers (unless a class has that name already).
    """

    path: Path  # the folder that problems name files relative to
    format: DatasetFormat
    task_type: TaskType  # what it is read for
    task_types: tuple[TaskType, ...]  # what it could be read for; the first is what it is made for
    classes: tuple[str, ...]  # in the order of their ids
    splits: Mapping[str, list[Sample]]  # train, val, test
    multi_label: bool = False  # classification: an image may have any number of classes
    keypoints: Keypoints | None = None
    split_rule: SplitRule | None = None  # None: it came with its splits
    problems: tuple[Problem, ...] = field(default=(), repr=False)
    problems_left_out: Mapping[Severity, int] = field(default_factory=dict)  # too many to keep

    splits_by_class: ClassVar[bool] = True  # whether a split rule knows the classes of images

    @abstractmethod
    def objects(self, sample: Sample) -> list[Object]:
        """Return the things in an image, for detection, segmentation and poses.

        Raises DatasetError naming the file and line where the annotation cannot be read.
        """

    @abstractmethod
    def mask(self, sample: Sample) -> NDArray[np.uint8]:
        """Return the class id of each pixel (height, width), IGNORED where there is none.

        For semantic segmentation. Raises DatasetError where the annotation cannot be read.
        """

    def annotation_files(self) -> list[Path]:
        """Return what was read beside the images and the labels that are each one image's own."""
        return []

    def other_annotations(self) -> list[Path]:
        """Return what would be read in their place for another task."""
        return []

    @abstractmethod
    def check(self, sample: Sample, *, size: tuple[int, int] | None) -> Annotation:
        """Look at the annotation of an image of this size; None: the image cannot be read.

        Size is (width, height) in pixels, of the turned image. Raises nothing of its own.
        """
