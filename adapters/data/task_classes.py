"""The classes that a data set has for a task, told without reading it."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.contract import DatasetFormat, TaskType

BACKGROUND = "background"

# Of COCO's annotation files, these are read from the same ones.
_OF_THINGS = (
    TaskType.OBJECT_DETECTION,
    TaskType.INSTANCE_SEGMENTATION,
    TaskType.IMAGE_CLASSIFICATION,
)


def with_background(classes: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """Return the classes of the pixels of a set of outlines, and the id of the background."""
    if BACKGROUND in classes:
        return tuple(classes), classes.index(BACKGROUND)
    return (*classes, BACKGROUND), len(classes)


def reads_the_same(format: DatasetFormat, described: TaskType, task_type: TaskType) -> bool:
    """Tell whether a data set that was described for a task is read from the same files for one."""
    if described == task_type or format != DatasetFormat.COCO:
        return True
    return described in _OF_THINGS and task_type in _OF_THINGS


def classes_for(
    format: DatasetFormat, classes: Sequence[str], *, described: TaskType, task_type: TaskType
) -> tuple[str, ...] | None:
    """Return the classes for a task of what was described for another; None: they are not known."""
    if described == task_type:
        return tuple(classes)
    if described == TaskType.SEMANTIC_SEGMENTATION or not reads_the_same(
        format, described, task_type
    ):
        return None  # whether a background was added is not told, or other files are read
    if task_type == TaskType.SEMANTIC_SEGMENTATION:
        return with_background(classes)[0]
    return tuple(classes)
