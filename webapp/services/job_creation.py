"""A job from what a person asked for: everything that can be known now is checked now."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import BaseModel, ValidationError

from adapters import catalog, wire
from adapters.contract import UnknownFramework
from adapters.frameworks import FrameworkInfo, framework_info
from adapters.schemas.fields import tasks_of
from webapp.extensions import db
from webapp.fields import field_errors
from webapp.models import Job, Role, User
from webapp.services import lifecycle
from webapp.services.catalog import similar_models
from webapp.services.errors import Invalid, NotFound
from webapp.services.job_request import JobRequest
from webapp.services.job_source import Source, check_source, facts_of, source_of
from webapp.services.jobs import get_job, may_preempt, require_preemption
from webapp.services.projects import get_project

Errors = dict[str, list[str]]


def create(request: JobRequest, *, user: User, actor: str, reason: str = "created") -> Job:
    """Create a pending job and commit; ``reason`` is the first line of its history.

    Raises NotFound and Forbidden for the project and for `preempt`, Invalid naming every field
    that is wrong.
    """
    get_project(request.project_id, user=user, needed=Role.EDITOR)
    if request.preempt:
        require_preemption(request.project_id, user=user)
    info, checked = _check_request(request)
    _check_initial_job(request, user)
    source = source_of(request)
    check_source(source, request, info)
    _check_together(request, source, info, checked)
    job = Job(
        project_id=request.project_id,
        created_by=user.id,
        name=request.name or f"{request.model_name} on {source.name}"[:200],
        queue=wire.queue_name(request.framework),
        dataset_id=source.id,
        dataset_path=source.path,
        dataset_format=str(source.format),
        dataset_fingerprint=source.fingerprint,
        split_seed=source.split_seed,
        val_share=source.val_share,
        device_choice=request.device,
        hyperparameters=checked.model_dump(mode="json", exclude_unset=True),
        **{name: getattr(request, name) for name in _SAME},
    )
    db.session.add(job)
    db.session.flush()
    lifecycle.record_created(db.session(), job, actor=actor, reason=reason)
    db.session.commit()
    return job


def clone(job: Job, overrides: dict[str, Any], *, user: User, actor: str) -> Job:
    """Create a pending job like another, but for what ``overrides`` says.

    Of a job that may take others' places, the copy of somebody who may not give that right is
    without it. Raises Invalid with fields named 'overrides.epochs'.
    """
    wanted = as_request(job)
    reason = f"cloned from job {job.id}"
    not_asked = job.preempt and "preempt" not in overrides
    if not_asked and not may_preempt(job.project_id, user=user):
        wanted["preempt"] = False
        reason += f"; it takes nobody's place (`preempt`): that needs the role {Role.OWNER}"
    if "dataset_id" in overrides:
        wanted |= {"dataset_path": None, "dataset_format": None}
    elif "dataset_path" in overrides:
        wanted["dataset_id"] = None
    try:
        request = JobRequest.model_validate({**wanted, **overrides})
    except ValidationError as error:
        raise Invalid(field_errors(error, prefix="overrides")) from None
    try:
        return create(request, user=user, actor=actor, reason=reason)
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
    "initial_job_id",
    "seed",
    "priority",
    "preempt",
    "tags",
    "notes",
)


def _check_request(request: JobRequest) -> tuple[FrameworkInfo, BaseModel]:
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
    if request.learning_rate > info.largest_learning_rate:
        errors["learning_rate"] = [f"{info.name} takes at most {info.largest_learning_rate:g}"]
    step = info.image_size_step
    if request.image_size is not None and request.image_size % step:
        errors["image_size"] = [f"{info.name} needs a multiple of {step}"]
    try:
        checked = info.hyperparameters.model_validate(request.hyperparameters)
        errors |= _of_other_tasks(checked, request.task_type)
    except ValidationError as error:
        raise Invalid(errors | _hyperparameter_errors(error, info)) from None
    if errors:
        raise Invalid(errors)
    return info, checked


def _check_together(
    request: JobRequest, source: Source, info: FrameworkInfo, checked: BaseModel
) -> None:
    """Raise Invalid where what is right by itself cannot be trained together, or on this data.

    A worker would say the same, in the same words, once it has read the data.
    """
    errors: Errors = {}
    if info.misfits is not None:
        for misfit in info.misfits(checked, facts_of(request, source)):
            errors.setdefault(misfit.field, []).append(f"{misfit.message}. {misfit.hint}".strip())
    if errors:
        raise Invalid(errors)


def _hyperparameter_errors(error: ValidationError, info: FrameworkInfo) -> Errors:
    """Return messages by hyperparameter, a name that is none with those that may have been meant.

    Of a value inside a list, or of one that may be of several kinds, too, the field is what bears
    the name: so forms know where to show it.
    """
    errors: Errors = {}
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        name = ".".join(["hyperparameters", *map(str, item["loc"][:1])])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            close = difflib.get_close_matches(
                str(item["loc"][0]), info.hyperparameters.model_fields
            )
            hint = f"did you mean {' or '.join(close)}?" if close else "see GET /api/v1/frameworks"
            message = f"{info.name} has no such hyperparameter; {hint}"
        elif places := [part + 1 for part in item["loc"] if isinstance(part, int)]:
            message = f"{message} (number {places[-1]} of the list)"
        errors.setdefault(name, []).append(message)
    return errors


def _of_other_tasks(checked: BaseModel, task_type: str) -> Errors:
    """Return messages for what was set and, as its schema says, only other tasks have."""
    errors: Errors = {}
    for name in sorted(checked.model_fields_set):
        tasks = tasks_of(type(checked).model_fields[name])
        if tasks and str(task_type) not in tasks:
            able = ", ".join(tasks)
            errors[f"hyperparameters.{name}"] = [f"means nothing for {task_type}; it is for {able}"]
    return errors


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


def _check_initial_job(request: JobRequest, user: User) -> None:
    """Raise Invalid where a job cannot begin with the weights of the one it names."""
    number = request.initial_job_id
    if number is None:
        return
    try:
        first = get_job(number, user=user)
    except NotFound as error:
        raise Invalid({"initial_job_id": [str(error)]}) from None
    for name in ("framework", "model_name", "task_type"):
        theirs, wanted = getattr(first, name), getattr(request, name)
        if theirs != wanted:
            what = name.removesuffix("_name").removesuffix("_type")
            message = f"Job {number} has the {what} {theirs}, not {wanted}: its weights do not fit"
            raise Invalid({"initial_job_id": [message]})
    if first.best_model_path is None:
        message = f"Job {number} has no best model yet; name one that is completed"
        raise Invalid({"initial_job_id": [message]})
