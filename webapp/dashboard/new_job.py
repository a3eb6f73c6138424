"""The form of a new job, made of what the frameworks say they can do."""

from __future__ import annotations

from typing import Any

from flask import render_template, request
from flask.typing import ResponseReturnValue

from adapters.data.description import Severity
from adapters.frameworks import FrameworkInfo, all_frameworks
from modelyard.counting import counted
from webapp.api.authentication import current_user
from webapp.dashboard.blueprint import blueprint
from webapp.dashboard.hyperparameters import groups
from webapp.dashboard.pages import has_role, trainable_tasks
from webapp.models import Dataset, Role
from webapp.services import datasets, jobs, projects
from webapp.services.job_creation import as_request
from webapp.services.job_request import LEAST_PREEMPTING_PRIORITY

_DATASETS_OFFERED = 200
_WARNINGS_SHOWN = 3


@blueprint.get("/projects/<id:project_id>/jobs/new")
def new_job(project_id: int) -> ResponseReturnValue:
    """Show the form; its scripts send it to the API.

    ``?dataset_id=`` chooses a data set, ``?from=`` fills the form like another job.
    """
    project = projects.get_project(project_id, user=current_user(), needed=Role.EDITOR)
    found = datasets.list_datasets(
        current_user(), project_id=project_id, limit=_DATASETS_OFFERED, cursor=None
    )
    return render_template(
        "dashboard/new_job.html",
        project=project,
        can_edit=True,
        datasets=[_dataset(dataset) for dataset in found.items if dataset.status == "valid"],
        task_types=trainable_tasks(),
        frameworks=[_framework(info) for info in all_frameworks().values()],
        optimizers=_optimizers(),
        may_preempt=has_role(project, Role.OWNER),
        least_preempting=LEAST_PREEMPTING_PRIORITY,
        initial=_initial(),
    )


def _initial() -> dict[str, Any]:
    """Return the values that the form begins with."""
    job_id = request.args.get("from", type=int)
    if job_id is not None:
        return as_request(jobs.get_job(job_id, user=current_user()))
    dataset_id = request.args.get("dataset_id", type=int)
    return {} if dataset_id is None else {"dataset_id": dataset_id}


def _dataset(dataset: Dataset) -> dict[str, Any]:
    warned = [p for p in dataset.problems if p["severity"] == Severity.WARNING]
    return {
        "id": dataset.id,
        "title": f"{dataset.name} ({counted(dataset.num_images, 'image')}, "
        f"{counted(dataset.num_classes, 'class', 'classes')})",
        "task_types": dataset.task_types or [dataset.task_type],
        "format": dataset.format,
        "multi_label": dataset.multi_label,
        "warnings": [problem["message"] for problem in warned[:_WARNINGS_SHOWN]],
        "more_warnings": max(0, len(warned) - _WARNINGS_SHOWN),
    }


def _framework(info: FrameworkInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "title": info.title,
        "multi_label": info.multi_label,
        "formats": {str(task): [str(f) for f in found] for task, found in info.formats.items()},
        "groups": groups(info),
    }


def _optimizers() -> dict[str, list[str]]:
    """Return every optimizer with the frameworks that have it."""
    offered: dict[str, list[str]] = {}
    for info in all_frameworks().values():
        for name in info.optimizers:
            offered.setdefault(name, []).append(info.name)
    return offered
