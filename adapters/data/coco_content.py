"""A COCO data set as content: what its annotation files say of each image, for any task."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adapters.contract import TaskType
from adapters.data.coco_fields import Category
from adapters.data.coco_layout import AnnotationFile, Kind
from adapters.data.coco_objects import CocoObjects, mirrored
from adapters.data.coco_panoptic import PanopticSegments, panoptic_folder
from adapters.data.content import Annotation, Content, Keypoints, Object, Sample
from adapters.data.description import DatasetError, Severity
from adapters.data.drawing import MAX_MASK_CLASSES
from adapters.data.files import list_images
from adapters.data.task_classes import with_background

Part = CocoObjects | PanopticSegments  # what one annotation file says


@dataclass(frozen=True, kw_only=True)
class CocoContent(Content):
    """The key of a sample is a number: len(parts) × its image's number + its part's number."""

    parts: tuple[Part, ...] = dataclasses.field(repr=False)
    read: tuple[AnnotationFile, ...] = ()
    others: tuple[AnnotationFile, ...] = ()  # for other tasks
    allowed: tuple[str, ...] = ()  # real folders that the data set may reach into

    def annotation_files(self) -> list[Path]:
        return [path for file in self.read for path in self._with_masks(file)]

    def other_annotations(self) -> list[Path]:
        return [path for file in self.others for path in self._with_masks(file)]

    def _with_masks(self, file: AnnotationFile) -> list[Path]:
        """Return an annotation file and, of a panoptic one, the PNGs that belong to it."""
        folder = None
        if file.kind == Kind.PANOPTIC:
            folder = panoptic_folder(file.path, self.path, allowed=self.allowed)
        if folder is None:
            return [file.path]
        pngs = frozenset((".png",))
        return [
            file.path,
            *list_images(folder, base=self.path, allowed=self.allowed, suffixes=pngs).images,
        ]

    def objects(self, sample: Sample) -> list[Object]:
        annotation = self.check(sample, size=None)
        for problem in annotation.problems:
            if problem.severity == Severity.ERROR:
                raise DatasetError(problem.message)
        if self.task_type == TaskType.INSTANCE_SEGMENTATION:
            return [t for t in annotation.objects if t.polygons or t.mask is not None]
        return list(annotation.objects)

    def mask(self, sample: Sample) -> NDArray[np.uint8]:
        part, image = self._place(sample)
        return part.mask(image, background=with_background(self.classes)[1])

    def check(self, sample: Sample, *, size: tuple[int, int] | None) -> Annotation:
        part, image = self._place(sample)
        return part.check(image, sample.image, size=size)

    def _place(self, sample: Sample) -> tuple[Part, int]:
        assert isinstance(sample.key, int)
        image, part = divmod(sample.key, len(self.parts))
        return self.parts[part], image


def tasks_of(parts: Sequence[Part], categories: Sequence[Category]) -> tuple[TaskType, ...]:
    """Return the tasks that annotations serve, first the one that they are made for."""
    classes = tuple(category.name for category in categories)
    fits_masks = len(with_background(classes)[0]) <= MAX_MASK_CLASSES
    semantic = (TaskType.SEMANTIC_SEGMENTATION,) if fits_masks else ()
    tables = [part.table for part in parts if isinstance(part, CocoObjects)]
    if not tables:
        return (TaskType.SEMANTIC_SEGMENTATION, TaskType.IMAGE_CLASSIFICATION)
    tasks: tuple[TaskType, ...] = (TaskType.OBJECT_DETECTION, TaskType.IMAGE_CLASSIFICATION)
    if any(table.has_outlines for table in tables):
        tasks = (TaskType.INSTANCE_SEGMENTATION, tasks[0], *semantic, tasks[1])
    if any(table.keypoints for table in tables):
        tasks = (TaskType.POSE_ESTIMATION, *tasks)
    return tasks


def classified(samples: Sequence[Sample], parts: Sequence[Part]) -> list[Sample]:
    """Return samples with the classes of what is annotated in them."""
    classified = []
    for sample in samples:
        assert isinstance(sample.key, int)
        image, part = divmod(sample.key, len(parts))
        classes = tuple(sorted(parts[part].classes_of(image)))
        classified.append(Sample(sample.image, classes=classes, key=sample.key))
    return classified


def keypoints_of(categories: Sequence[Category]) -> Keypoints | None:
    for category in categories:
        if category.keypoints:
            return Keypoints(
                number=len(category.keypoints),
                dimensions=3,
                names=category.keypoints,
                flip=mirrored(category.keypoints),
                skeleton=category.skeleton,
            )
    return None
