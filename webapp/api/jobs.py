"""/api/v1/training/jobs: described, listed, started, cancelled, resumed, cloned."""

from __future__ import annotations

from typing import Any

from webapp.api.authentication import actor, current_user
from webapp.api.document import problems, resource
from webapp.api.paths import JobPath
from webapp.api.schemas.base import dump
from webapp.api.schemas.jobs import (
    CancelBody,
    CloneBody,
    JobOut,
    JobPageOut,
    JobPatch,
    JobQuery,
    StartedOut,
)
from webapp.fields import given
from webapp.models import Job, Role
from webapp.services import job_actions, job_creation, job_view, jobs
from webapp.services.job_actions import CancelMode
from webapp.services.job_request import JobRequest

blueprint = resource("jobs", title="Training jobs", prefix="/api/v1/training/jobs")

Answer = tuple[dict[str, Any], int]


@blueprint.get("", responses={200: JobPageOut})
def list(query: JobQuery) -> Answer:
    """List jobs"""
    found = jobs.list_jobs(current_user(), **query.model_dump())
    items = [dump(JobOut, seen) for seen in job_view.views(found.items)]
    return {"items": items, "next_cursor": found.next_cursor, "total": found.total}, 200


@blueprint.post("", responses={201: JobOut, **problems(403, 404)})
def create(body: JobRequest) -> Answer:
    """Describe a job; it is pending until it is started"""
    return _view(job_creation.create(body, user=current_user(), actor=actor())), 201


@blueprint.get("/<id:job_id>", responses={200: JobOut})
def get(path: JobPath) -> Answer:
    """Get a job"""
    return _view(_fetch(path, Role.VIEWER)), 200


@blueprint.patch("/<id:job_id>", responses={200: JobOut, **problems(403, 409)})
def update(path: JobPath, body: JobPatch) -> Answer:
    """Change a job's name, notes, tags or, while it waits, its priority and `preempt`"""
    job = _fetch(path, Role.EDITOR)
    if changes := given(body):
        jobs.change(job, changes, user=current_user())
    return _view(job), 200


@blueprint.delete("/<id:job_id>", responses={204: None, **problems(403, 409)})
def delete(path: JobPath) -> tuple[str, int]:
    """Delete a job and all that it wrote"""
    jobs.remove(_fetch(path, Role.EDITOR))
    return "", 204


@blueprint.post("/<id:job_id>/start", responses={200: StartedOut, **problems(400, 403)})
def start(path: JobPath) -> Answer:
    """Put a pending job on its framework's queue"""
    job = _fetch(path, Role.EDITOR)
    job_actions.start(job, actor=actor())
    return _started(job, "Training started"), 200


@blueprint.post("/<id:job_id>/cancel", responses={202: StartedOut, **problems(400, 403)})
def cancel(path: JobPath, body: CancelBody) -> Answer:
    """Cancel a job: at once where it waits, through its worker where it runs"""
    job = _fetch(path, Role.EDITOR)
    job_actions.cancel(job, mode=CancelMode(body.mode), actor=actor())
    ended = job.status == "cancelled"
    return _started(job, "Job cancelled" if ended else "Cancelling"), 202


@blueprint.post("/<id:job_id>/resume", responses={200: StartedOut, **problems(400, 403)})
def resume(path: JobPath) -> Answer:
    """Let a failed or cancelled job go on from its last checkpoint, as its next attempt"""
    job = _fetch(path, Role.EDITOR)
    job_actions.resume(job, actor=actor())
    return _started(job, "Training resumed"), 200


@blueprint.post("/<id:job_id>/clone", responses={201: JobOut, **problems(403)})
def clone(path: JobPath, body: CloneBody) -> Answer:
    """Describe a new job like this one, but for what is overridden

    Where this one has `preempt` and you may not give it, the copy is without.
    """
    job = _fetch(path, Role.EDITOR)
    copy = job_creation.clone(job, body.overrides, user=current_user(), actor=actor())
    return _view(copy), 201


def _fetch(path: JobPath, needed: Role) -> Job:
    return jobs.get_job(path.job_id, user=current_user(), needed=needed)


def _view(job: Job) -> dict[str, Any]:
    return dump(JobOut, job_view.view(job))


def _started(job: Job, message: str) -> dict[str, Any]:
    return dump(StartedOut, {"message": message, "job_id": job.id, "status": job.status})
