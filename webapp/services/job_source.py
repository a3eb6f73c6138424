"""The data that a job trains on: a registered data set, or a folder that the job names itself."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.contract import DatasetFormat, TaskType, TrainingJob
from adapters.data.task_classes import classes_for, reads_the_same
from adapters.frameworks import FrameworkInfo
from adapters.schemas.misfits import JobFacts
from webapp.extensions import db
from webapp.models import Dataset
from webapp.services import datasets
from webapp.services.errors import Invalid
from webapp.services.job_request import JobRequest


@dataclass(frozen=True)
class Source:
    """The data that a job trains on."""

    id: int | None
    name: str
    path: str
    format: DatasetFormat
    task_type: TaskType  # what it was described for
    task_types: tuple[TaskType, ...]  # what it could train; the first is what it is made for
    multi_label: bool
    classes: tuple[str, ...]
    train_images: int
    split_seed: int
    val_share: float
    fingerprint: str
    problems: list[str]  # the first, where it is invalid


def source_of(request: JobRequest) -> Source:
    """Return the data that a job names. Raises Invalid where there is none."""
    if request.dataset_path is not None:
        return _unregistered(request, request.dataset_path)
    dataset = db.session.get(Dataset, request.dataset_id)
    if dataset is None or dataset.project_id != request.project_id:
        message = f"Project {request.project_id} has no data set {request.dataset_id}"
        raise Invalid({"dataset_id": [message]})
    return Source(
        id=dataset.id,
        name=dataset.name,
        path=dataset.path,
        format=DatasetFormat(dataset.format),
        task_type=TaskType(dataset.task_type),
        task_types=tuple(map(TaskType, dataset.task_types or [dataset.task_type])),
        multi_label=dataset.multi_label,
        classes=tuple(dataset.classes),
        train_images=dataset.splits.get("train", 0),
        split_seed=dataset.split_seed,
        val_share=dataset.val_share,
        fingerprint=dataset.fingerprint,
        problems=datasets.first_problems(dataset.problems) if dataset.status != "valid" else [],
    )


def _unregistered(request: JobRequest, path: str) -> Source:
    """Look at a folder that a job names itself."""
    found = datasets.look(
        path,
        format=DatasetFormat(request.dataset_format) if request.dataset_format else None,
        task_type=TaskType(request.task_type),
        field="dataset_path",
    )
    problems = [problem.to_json() for problem in found.problems]
    return Source(
        id=None,
        name=found.path.name,
        path=str(found.path),
        format=found.format,
        task_type=found.task_type,
        task_types=found.task_types or (found.task_type,),
        multi_label=found.multi_label,
        classes=tuple(found.classes),
        train_images=found.splits.get("train", 0),
        split_seed=TrainingJob.split_seed,
        val_share=TrainingJob.val_share,
        fingerprint=found.fingerprint,
        problems=[] if found.valid else datasets.first_problems(problems),
    )


def check_source(source: Source, request: JobRequest, info: FrameworkInfo) -> None:
    """Raise Invalid where a framework cannot train what is asked for on this data."""
    field = "dataset_id" if source.id is not None else "dataset_path"
    if source.problems:
        raise Invalid({field: ["The data set is invalid", *source.problems]})
    formats = info.formats.get(TaskType(request.task_type), ())
    if source.format not in formats:
        wanted = " or ".join(formats)
        raise Invalid(
            {field: [f"{info.name} trains {request.task_type} on {wanted}, not {source.format}"]}
        )
    task = TaskType(request.task_type)
    if task not in source.task_types:
        able = " or ".join(source.task_types)
        raise Invalid({"task_type": [f"The data set is for {able}, not {task}"]})
    if source.multi_label and task == TaskType.IMAGE_CLASSIFICATION and not info.multi_label:
        message = f"{info.name} gives each image one class; images of this data set have several"
        raise Invalid({field: [message]})


def facts_of(request: JobRequest, source: Source) -> JobFacts:
    """Return what is known of a job on this data before any worker has read it."""
    task = TaskType(request.task_type)
    by_objects = source.format in (DatasetFormat.YOLO, DatasetFormat.COCO)
    same = reads_the_same(source.format, source.task_type, task)
    return JobFacts(
        task_type=task,
        model_name=request.model_name,
        epochs=request.epochs,
        batch_size=request.batch_size or None,
        image_size=request.image_size,
        on_cpu=request.device == "cpu",
        multi_label=task == TaskType.IMAGE_CLASSIFICATION and (by_objects or source.multi_label),
        classes=classes_for(
            source.format, source.classes, described=source.task_type, task_type=task
        ),
        train_images=source.train_images if same else None,
    )
