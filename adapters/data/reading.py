"""Reading any data set into its content: the one door for adapters."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adapters.contract import DatasetFormat, TaskType, TrainingJob
from adapters.data import imagefolder, yolo
from adapters.data.content import Content, Object, Sample, SplitRule
from adapters.data.description import DatasetError


def read_for(job: TrainingJob) -> Content:
    """Read a job's data set for its task. Raises DatasetError with the first error of its names."""
    return read(
        job.dataset_path,
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
    if format == DatasetFormat.IMAGEFOLDER:
        folder = imagefolder.read(path, roots=roots)
        return _Classified(
            path=folder.path,
            format=format,
            task_type=task_type,
            task_types=(TaskType.IMAGE_CLASSIFICATION,),
            classes=folder.classes,
            splits={
                split: [Sample(image, classes=(label,)) for image, label in items]
                for split, items in folder.splits.items()
            },
            problems=folder.problems,
        )
    if format == DatasetFormat.YOLO:
        data = yolo.read(path, roots=roots)
        return _Classified(
            path=data.path,
            format=format,
            task_type=task_type,
            task_types=(data.task_type,),
            classes=data.names,
            splits={
                split: [Sample(image, key=data.find_label(image)) for image in images]
                for split, images in data.splits.items()
            },
            problems=data.problems,
        )
    raise DatasetError(f"data sets of the format '{format}' cannot be read by this version")


@dataclasses.dataclass(frozen=True)
class _Classified(Content):
    def objects(self, sample: Sample) -> list[Object]:
        raise DatasetError(f"'{self.path}' has no objects")

    def mask(self, sample: Sample) -> NDArray[np.uint8]:
        raise DatasetError(f"'{self.path}' has no masks")
