"""A project's experiments, and the page of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flask import abort, render_template, request, url_for
from flask.typing import ResponseReturnValue

from webapp.api.authentication import current_user
from webapp.dashboard.blueprint import blueprint
from webapp.dashboard.pages import may_edit
from webapp.models import Job, JobStatus
from webapp.services import datasets, labels, projects
from webapp.services import jobs as job_service
from webapp.services.job_view import views

JOBS_A_PAGE = 50
_MOST_LINES = 1000  # of a job's history or artifacts on its page


@blueprint.get("/projects/<id:project_id>")
def project(project_id: int) -> ResponseReturnValue:
    """Show a page of a project's experiments, the newest first."""
    found = projects.get_project(project_id, user=current_user())
    query, status = _text("q"), _text("status")
    cursor = request.args.get("cursor")
    page = job_service.list_jobs(
        current_user(),
        project_id=project_id,
        status=[status] if status else None,
        q=query,
        limit=JOBS_A_PAGE,
        cursor=cursor,
    )
    filters: dict[str, Any] = {"q": query or None, "status": status or None}
    here = url_for("dashboard.project", project_id=project_id, **filters)
    filtered = bool(query or status)
    return render_template(
        "dashboard/project.html",
        project=found,
        can_edit=may_edit(found),
        jobs=shown(page.items),
        total=page.total,
        query=query,
        chosen_status=status,
        statuses=list(JobStatus),
        filtered=filtered,
        first_page=cursor is None,
        newest=cursor is None and not filtered,
        first_url=here,
        next_url=page.next_cursor
        and url_for("dashboard.project", project_id=project_id, cursor=page.next_cursor, **filters),
        has_datasets=bool(page.items) or _has_datasets(project_id),
    )


@blueprint.get("/jobs/<id:job_id>/row")
def job_row(job_id: int) -> ResponseReturnValue:
    """Draw one row of the table, for a job that came after the page was drawn."""
    job = job_service.get_job(job_id, user=current_user())
    found = projects.get_project(job.project_id, user=current_user())
    return render_template(
        "dashboard/parts/job_row.html", job=shown([job])[0], can_edit=may_edit(found)
    )


@blueprint.get("/jobs/<id:job_id>")
def job(job_id: int) -> ResponseReturnValue:
    """Show a job; its scripts add the curves and the log, and keep all of it live."""
    found = job_service.get_job(job_id, user=current_user())
    of_project = projects.get_project(found.project_id, user=current_user())
    parts: dict[str, Any] = {}
    for read in _PANELS.values():
        parts |= read(found)
    return render_template(
        "dashboard/job.html",
        project=of_project,
        can_edit=may_edit(of_project),
        job=shown([found])[0],
        dataset_warnings=labels.dataset_warnings(found),
        **parts,
    )


@blueprint.get("/jobs/<id:job_id>/panels/<panel>")
def job_panel(job_id: int, panel: str) -> ResponseReturnValue:
    """Draw one part of a job's page anew."""
    if panel not in _PANELS:
        abort(404)
    found = job_service.get_job(job_id, user=current_user())
    return render_template(
        f"dashboard/parts/{panel}.html", job=shown([found])[0], **_PANELS[panel](found)
    )


def shown(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Return jobs in the API's form, with the names of what it tells by number."""
    of_dataset, of_creator = labels.dataset_names(jobs), labels.creator_names(jobs)
    return [
        {
            **view,
            "dataset_name": of_dataset[view["id"]],
            "created_by_name": of_creator.get(view["id"]),
        }
        for view in views(jobs)
    ]


def _text(name: str) -> str:
    """Return a filter; PostgreSQL cannot be asked for the character NUL."""
    return request.args.get(name, "")[:200].replace("\0", "")


def _has_datasets(project_id: int) -> bool:
    found = datasets.list_datasets(current_user(), project_id=project_id, limit=1, cursor=None)
    return bool(found.items)


_PANELS: dict[str, Callable[[Job], dict[str, Any]]] = {
    "facts": lambda job: {},
    "attempts": lambda job: {"attempts": job_service.attempts(job)},
    "history": lambda job: {
        "history": job_service.history(job, limit=_MOST_LINES, cursor=None).items
    },
    "artifacts": lambda job: {
        "artifacts": job_service.list_artifacts(job, limit=_MOST_LINES, cursor=None).items
    },
}
