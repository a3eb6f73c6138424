"""Reading any data set into its content: the one door for adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from adapters.contract import DatasetFormat, TaskType, TrainingJob
from adapters.data import coco, imagefolder, masks, yolo_content
from adapters.data.content import Content, SplitRule
from adapters.data.description import DatasetError, Severity

TASKS_OF_FORMAT: dict[DatasetFormat, tuple[TaskType, ...]] = {
    DatasetFormat.IMAGEFOLDER: (TaskType.IMAGE_CLASSIFICATION,),
    DatasetFormat.YOLO: (
        TaskType.OBJECT_DETECTION,
        TaskType.INSTANCE_SEGMENTATION,
        TaskType.POSE_ESTIMATION,
        TaskType.ORIENTED_DETECTION,
        TaskType.SEMANTIC_SEGMENTATION,
        TaskType.IMAGE_CLASSIFICATION,
    ),
    DatasetFormat.COCO: (
        TaskType.OBJECT_DETECTION,
        TaskType.INSTANCE_SEGMENTATION,
        TaskType.POSE_ESTIMATION,
        TaskType.SEMANTIC_SEGMENTATION,
        TaskType.IMAGE_CLASSIFICATION,
    ),
    DatasetFormat.MASKS: (TaskType.SEMANTIC_SEGMENTATION,),
}


def read_for(job: TrainingJob) -> Content:
    """Read a job's data set for its task. Raises DatasetError with the first error of its names."""
    return read(
        job.data_path or job.dataset_path,
        format=job.dataset_format,
        task_type=job.task_type,
        split_rule=SplitRule(seed=job.split_seed, val_share=job.val_share),
    )


def read(
    path: Path,
    *,
    format: DatasetFormat,
    task_type: TaskType,
    split_rule: SplitRule | None = None,
    roots: Sequence[Path] = (),
) -> Content:
    """Read a data set for a task.

    Raises DatasetError where it cannot be read, or not for that task, and with the first error
    that its names, lists and annotation files show.
    """
    content = scan(path, format=format, task_type=task_type, split_rule=split_rule, roots=roots)
    for problem in content.problems:
        if problem.severity == Severity.ERROR:
            raise DatasetError(problem.message)
    require_task(content, task_type)
    return content


def require_task(content: Content, task_type: TaskType) -> None:
    """Raise DatasetError where a data set cannot serve a task."""
    if task_type not in content.task_types:
        listed = " or ".join(content.task_types)
        raise DatasetError(f"this {content.format} data set is for {listed}, not {task_type}")


def scan(
    path: Path,
    *,
    format: DatasetFormat,
    task_type: TaskType | None = None,
    split_rule: SplitRule | None = None,
    roots: Sequence[Path] = (),
) -> Content:
    """Read a data set with all that is wrong with its names, lists and annotation files.

    Without a task, for the one it is made for. Raises DatasetError where it cannot be read, or
    where no data set of its format can be for that task.
    """
    tasks = TASKS_OF_FORMAT[format]
    if task_type is not None and task_type not in tasks:
        listed = " or ".join(tasks)
        raise DatasetError(f"a data set of the format '{format}' is for {listed}, not {task_type}")
    if format == DatasetFormat.IMAGEFOLDER:
        return imagefolder.scan(path, split_rule=split_rule, roots=roots)
    readers: dict[DatasetFormat, Callable[..., Content]] = {
        DatasetFormat.YOLO: yolo_content.scan,
        DatasetFormat.COCO: coco.scan,
        DatasetFormat.MASKS: masks.scan,
    }
    return readers[format](path, task_type=task_type, split_rule=split_rule, roots=roots)
