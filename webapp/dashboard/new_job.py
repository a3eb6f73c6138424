"""The form of a new job, made of what the frameworks say they can do."""

from __future__ import annotations

from typing import Any

from flask import render_template
from flask.typing import ResponseReturnValue

from adapters.frameworks import FrameworkInfo, all_frameworks
from webapp.api.authentication import current_user
from webapp.dashboard.blueprint import blueprint
from webapp.dashboard.pages import trainable_tasks
from webapp.models import Role
from webapp.services import datasets, projects

_DATASETS_OFFERED = 200


@blueprint.get("/projects/<id:project_id>/jobs/new")
def new_job(project_id: int) -> ResponseReturnValue:
    """Show the form; its scripts send it to the API."""
    project = projects.get_project(project_id, user=current_user(), needed=Role.EDITOR)
    found = datasets.list_datasets(
        current_user(), project_id=project_id, limit=_DATASETS_OFFERED, cursor=None
    )
    return render_template(
        "dashboard/new_job.html",
        project=project,
        can_edit=True,
        datasets=[dataset for dataset in found.items if dataset.status == "valid"],
        task_types=trainable_tasks(),
        frameworks=[_framework(info) for info in all_frameworks().values()],
        optimizers=_optimizers(),
    )


def _framework(info: FrameworkInfo) -> dict[str, Any]:
    fields = info.hyperparameters.model_fields
    return {
        "name": info.name,
        "title": info.title,
        "task_types": info.task_types,
        "hyperparameters": [
            {"name": name, "default": field.default, "description": field.description}
            for name, field in fields.items()
        ],
    }


def _optimizers() -> dict[str, list[str]]:
    """Return every optimizer with the frameworks that have it."""
    offered: dict[str, list[str]] = {}
    for info in all_frameworks().values():
        for name in info.optimizers:
            offered.setdefault(name, []).append(info.name)
    return offered
