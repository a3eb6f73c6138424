"""A YOLO data set as content: what its labels say, for any task that they can serve."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adapters.contract import DatasetFormat, TaskType
from adapters.data import yolo
from adapters.data.content import Annotation, Content, Keypoints, Object, Sample, SplitRule
from adapters.data.description import DatasetError, Problem, Severity
from adapters.data.drawing import MAX_MASK_CLASSES, class_mask
from adapters.data.files import relative_name, warning
from adapters.data.images import image_size
from adapters.data.split import hold_out
from adapters.data.task_classes import with_background
from adapters.data.yolo_check import LabelRules, check_label

_OF_OUTLINES = (
    TaskType.INSTANCE_SEGMENTATION,
    TaskType.OBJECT_DETECTION,
    TaskType.SEMANTIC_SEGMENTATION,
    TaskType.IMAGE_CLASSIFICATION,
)
# What labels made for a task can be read for.
TASKS: dict[TaskType, tuple[TaskType, ...]] = {
    TaskType.OBJECT_DETECTION: (TaskType.OBJECT_DETECTION, TaskType.IMAGE_CLASSIFICATION),
    TaskType.INSTANCE_SEGMENTATION: _OF_OUTLINES,
    TaskType.ORIENTED_DETECTION: (TaskType.ORIENTED_DETECTION, *_OF_OUTLINES),
    TaskType.POSE_ESTIMATION: (
        TaskType.POSE_ESTIMATION,
        TaskType.OBJECT_DETECTION,
        TaskType.IMAGE_CLASSIFICATION,
    ),
}


@dataclass(frozen=True, kw_only=True)
class YoloContent(Content):
    """The key of a sample is its label file, or None where it has none."""

    rules: LabelRules
    data: yolo.YoloData

    def objects(self, sample: Sample) -> list[Object]:
        annotation = self.check(sample, size=None)
        for problem in annotation.problems:
            if problem.severity == Severity.ERROR:
                raise DatasetError(problem.message)
        return list(annotation.objects)

    def mask(self, sample: Sample) -> NDArray[np.uint8]:
        _, background = with_background(self.classes)
        size = image_size(sample.image)
        return class_mask(self.objects(sample), size=size, background=background)

    def check(self, sample: Sample, *, size: tuple[int, int] | None) -> Annotation:
        if isinstance(sample.key, Path):
            return check_label(sample.key, base=self.path, rules=self.rules)
        return Annotation("", problems=(self._without_label(sample.image),))

    def _without_label(self, image: Path) -> Problem:
        name = relative_name(image, self.path)
        expected = relative_name(self.data.label(image), self.path)
        message = f"'{name}' has no label '{expected}' and counts as background"
        return warning("image_without_label", message, file=name)


def scan(
    path: Path,
    *,
    task_type: TaskType | None = None,
    split_rule: SplitRule | None = None,
    roots: Sequence[Path] = (),
) -> YoloContent:
    """Read a YOLO data set for a task, by default for the one its labels are made for.

    Raises DatasetError where the yaml cannot be read, or OutsideRoots where it names a place that
    is not allowed.
    """
    data = yolo.scan(path, roots=roots)
    made_for = _made_for(data, task_type)
    rules = LabelRules(len(data.names), made_for, data.keypoints)
    task = task_type or made_for
    semantic = task == TaskType.SEMANTIC_SEGMENTATION
    classifies = task == TaskType.IMAGE_CLASSIFICATION
    content = YoloContent(
        path=data.path,
        format=DatasetFormat.YOLO,
        task_type=task,
        task_types=_task_types(data),
        classes=with_background(data.names)[0] if semantic else data.names,
        splits={
            split: [Sample(image, key=data.find_label(image)) for image in images]
            for split, images in data.splits.items()
        },
        multi_label=classifies,
        keypoints=_keypoints(data),
        problems=data.problems,
        rules=rules,
        data=data,
    )
    return _with_classes(content, rule=split_rule or SplitRule(), wanted=classifies)


def _made_for(data: yolo.YoloData, task_type: TaskType | None) -> TaskType:
    """Return what the lines of the labels must look like for a task."""
    if task_type == TaskType.POSE_ESTIMATION and data.keypoints is None:
        raise DatasetError(
            f"'{data.yaml_path.name}' lacks 'kpt_shape', which pose estimation needs"
        )
    if data.keypoints is None and task_type in (
        TaskType.ORIENTED_DETECTION,
        TaskType.INSTANCE_SEGMENTATION,
    ):
        return task_type
    return data.task_type


def _task_types(data: yolo.YoloData) -> tuple[TaskType, ...]:
    found = TASKS[data.task_type]
    if len(with_background(data.names)[0]) > MAX_MASK_CLASSES:
        return tuple(task for task in found if task != TaskType.SEMANTIC_SEGMENTATION)
    return found


def _keypoints(data: yolo.YoloData) -> Keypoints | None:
    if data.keypoints is None:
        return None
    number, dimensions = data.keypoints
    return Keypoints(number, dimensions, names=data.keypoint_names, flip=data.flip)


def _with_classes(content: YoloContent, *, rule: SplitRule, wanted: bool) -> YoloContent:
    """Fill in the classes of each image where they are the task, and the split where it is none.

    Only these two read every label; a line that is wrong counts for nothing here.
    """
    splits_itself = bool(content.splits.get("train")) and "val" not in content.splits
    if not wanted and not splits_itself:
        return content
    known = {
        split: [_classified(content, sample) for sample in samples]
        for split, samples in content.splits.items()
    }
    if splits_itself:
        known = {**known, **hold_out(known["train"], base=content.path, rule=rule)}
    if not wanted:
        known = {
            split: [Sample(sample.image, key=sample.key) for sample in samples]
            for split, samples in known.items()
        }
    order = [split for split in ("train", "val", "test") if split in known]
    return dataclasses.replace(
        content,
        splits={split: known[split] for split in order},
        split_rule=rule if splits_itself else None,
    )


def _classified(content: YoloContent, sample: Sample) -> Sample:
    classes = content.check(sample, size=None).classes
    return Sample(sample.image, classes=classes, key=sample.key)
