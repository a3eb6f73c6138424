"""A job from what a person asked for: everything that can be known now is checked now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from adapters import catalog, wire
from adapters.contract import DatasetFormat, TaskType, UnknownFramework
from adapters.frameworks import FrameworkInfo, framework_info
from webapp.extensions import db
from webapp.fields import field_errors
from webapp.models import Dataset, Job, Role, User
from webapp.services import datasets, lifecycle
from webapp.services.catalog import similar_models
from webapp.services.errors import Invalid
from webapp.services.job_request import JobRequest
from webapp.services.projects import get_project

Errors = dict[str, list[str]]


@dataclass(frozen=True)
class Source:
    """The data that a job trains on."""

    id: int | None
    name: str
    path: str
    format: DatasetFormat
    task_type: TaskType
    fingerprint: str
    problems: list[str]  # the first, where it is invalid


def create(request: JobRequest, *, user: User, actor: str) -> Job:
    """Create a pending job and commit.

    Raises NotFound and Forbidden for the project, Invalid naming every field that is wrong.
    """
    get_project(request.project_id, user=user, needed=Role.EDITOR)
    info, hyperparameters = _check_request(request)
    source = _source(request)
    _check_source(request, source, info)
    job = Job(
        project_id=request.project_id,
        created_by=user.id,
        name=request.name or f"{request.model_name} on {source.name}"[:200],
        queue=wire.queue_name(request.framework),
        dataset_id=source.id,
        dataset_path=source.path,
        dataset_format=str(source.format),
        dataset_fingerprint=source.fingerprint,
        device_choice=request.device,
        hyperparameters=hyperparameters,
        **{name: getattr(request, name) for name in _SAME},
    )
    db.session.add(job)
    db.session.flush()
    lifecycle.record_created(db.session(), job, actor=actor)
    db.session.commit()
    return job


def clone(job: Job, overrides: dict[str, Any], *, user: User, actor: str) -> Job:
    """Create a pending job like another, but for what ``overrides`` says.

    Raises Invalid with fields named 'overrides.epochs'.
    """
    wanted = as_request(job)
    if "dataset_id" in overrides:
        wanted |= {"dataset_path": None, "dataset_format": None}
    elif "dataset_path" in overrides:
        wanted["dataset_id"] = None
    try:
        request = JobRequest.model_validate({**wanted, **overrides})
    except ValidationError as error:
        raise Invalid(field_errors(error, prefix="overrides")) from None
    try:
        return create(request, user=user, actor=actor)
    except Invalid as error:
        raise Invalid(
            {f"overrides.{name}": texts for name, texts in error.errors.items()}
        ) from None


def as_request(job: Job) -> dict[str, Any]:
    """Return what would ask for the same job."""
    wanted = {name: getattr(job, name) for name in (*_SAME, "project_id", "hyperparameters")}
    wanted |= {"device": job.device_choice, "name": f"{job.name[:193]} (copy)"}
    if job.dataset_id is not None:
        wanted["dataset_id"] = job.dataset_id
    else:
        wanted |= {"dataset_path": job.dataset_path, "dataset_format": job.dataset_format}
    return wanted


# What a request and a job call by the same name and hold in the same form.
_SAME = (
    "framework",
    "model_name",
    "task_type",
    "epochs",
    "batch_size",
    "learning_rate",
    "optimizer",
    "image_size",
    "pretrained",
    "seed",
    "priority",
    "tags",
    "notes",
)


def _check_request(request: JobRequest) -> tuple[FrameworkInfo, dict[str, Any]]:
    """Return the framework and the hyperparameters. Raises Invalid with all that is wrong."""
    try:
        info = framework_info(request.framework)
    except UnknownFramework as error:
        raise Invalid({"framework": [str(error)]}) from None
    errors: Errors = {}
    _check_task(request, info, errors)
    _check_model(request, errors)
    if request.optimizer is not None and request.optimizer not in info.optimizers:
        known = ", ".join(info.optimizers)
        errors["optimizer"] = [f"{info.name} has no such optimizer; it has {known}"]
    step = info.image_size_step
    if request.image_size is not None and request.image_size % step:
        errors["image_size"] = [f"{info.name} needs a multiple of {step}"]
    hyperparameters: dict[str, Any] = {}
    try:
        checked = info.hyperparameters.model_validate(request.hyperparameters)
        hyperparameters = checked.model_dump(mode="json", exclude_unset=True)
    except ValidationError as error:
        errors |= field_errors(error, prefix="hyperparameters")
    if errors:
        raise Invalid(errors)
    return info, hyperparameters


def _check_task(request: JobRequest, info: FrameworkInfo, errors: Errors) -> None:
    if request.task_type not in info.task_types:
        able = ", ".join(info.task_types)
        errors["task_type"] = [f"{info.name} cannot do {request.task_type}; it does {able}"]


def _check_model(request: JobRequest, errors: Errors) -> None:
    entry = catalog.find_model(request.framework, request.model_name)
    if entry is None:
        close = similar_models(request.framework, request.model_name)
        hint = f"did you mean {' or '.join(close)}?" if close else "see GET /api/v1/models"
        errors["model_name"] = [f"{request.framework} has no such model; {hint}"]
    elif request.task_type not in entry.task_types and "task_type" not in errors:
        able = ", ".join(entry.task_types)
        errors["task_type"] = [f"{entry.name} cannot do {request.task_type}; it does {able}"]


def _source(request: JobRequest) -> Source:
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
        fingerprint=found.fingerprint,
        problems=[] if found.valid else datasets.first_problems(problems),
    )


def _check_source(request: JobRequest, source: Source, info: FrameworkInfo) -> None:
    field = "dataset_id" if source.id is not None else "dataset_path"
    if source.problems:
        raise Invalid({field: ["The data set is invalid", *source.problems]})
    formats = info.formats.get(TaskType(request.task_type), ())
    if source.format not in formats:
        wanted = " or ".join(formats)
        raise Invalid(
            {field: [f"{info.name} trains {request.task_type} on {wanted}, not {source.format}"]}
        )
    if source.task_type != request.task_type:
        raise Invalid(
            {"task_type": [f"The data set is for {source.task_type}, not {request.task_type}"]}
        )
