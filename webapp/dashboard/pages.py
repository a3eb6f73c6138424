"""Projects, and the queues and workers behind them."""

from __future__ import annotations

from typing import Any

from flask import render_template, request
from flask.typing import ResponseReturnValue

from adapters.contract import TaskType
from adapters.frameworks import all_frameworks
from webapp.api.authentication import current_user
from webapp.dashboard.blueprint import blueprint
from webapp.models import Project, Role
from webapp.services import broker
from webapp.services import projects as project_service
from webapp.services import workers as worker_service
from webapp.services.errors import Unavailable

_PROJECTS_A_PAGE = 60


@blueprint.get("/")
def projects() -> ResponseReturnValue:
    """Show a person's projects."""
    found = project_service.list_projects(
        current_user(), limit=_PROJECTS_A_PAGE, cursor=request.args.get("cursor")
    )
    return render_template(
        "dashboard/projects.html", projects=found.items, next_cursor=found.next_cursor
    )


def may_edit(project: Project) -> bool:
    """Tell whether who looks may change things in a project."""
    return has_role(project, Role.EDITOR)


def has_role(project: Project, needed: Role) -> bool:
    """Tell whether who looks has a role in a project, or one above it."""
    role = project_service.role_in(project.id, user=current_user())
    return role is not None and role.allows(needed)


def trainable_tasks() -> list[TaskType]:
    """Return the tasks that some framework can do."""
    return [
        task for task in TaskType if any(task in f.task_types for f in all_frameworks().values())
    ]


@blueprint.get("/workers")
def workers() -> ResponseReturnValue:
    """Show the queues and the workers that are up."""
    return render_template("dashboard/workers.html", section="workers", **_workers())


@blueprint.get("/workers/panel")
def workers_panel() -> ResponseReturnValue:
    """Draw the queues and workers anew."""
    return render_template("dashboard/parts/workers.html", **_workers())


def _workers() -> dict[str, Any]:
    try:
        return {"queues": worker_service.queues(), "workers": broker.workers()}
    except Unavailable as error:
        return {"queues": [], "workers": [], "problem": error.detail}
