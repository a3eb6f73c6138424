"""Jobs as they are asked for: one, many, changed, deleted. Their status is changed elsewhere."""

from __future__ import annotations

from typing import Any

from sqlalchemy import case, func, or_, select, update

from webapp.extensions import db
from webapp.models import Artifact, Attempt, Job, JobStatus, Role, StatusChange, User
from webapp.services import deletion, event_log
from webapp.services.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from webapp.services.executors import get_executor
from webapp.services.job_request import preempt_problem
from webapp.services.paging import Page, SortKey, paginate
from webapp.services.projects import role_in, visible_to
from webapp.services.statements import affected

# How a list may be sorted; '-' before it turns it round. Each ends with the id, which is unique.
_SORTS: dict[str, Any] = {
    "created_at": None,  # ids grow with time, and are indexed
    "name": Job.name,
    "status": Job.status,
    "priority": Job.priority,
    "preempt": case((Job.preempt, 1), else_=0),
    # None may not be sorted by: a job without one comes last, whichever way.
    "accuracy": (func.coalesce(Job.accuracy, 2.0), func.coalesce(Job.accuracy, -1.0)),
    "loss": (func.coalesce(Job.loss, 1e300), func.coalesce(Job.loss, -1e300)),
}
_WHILE_IT_WAITS = frozenset({"priority", "preempt"})  # what may be changed only then
SORTS = tuple(name for key in _SORTS for name in (key, f"-{key}"))


def get_job(job_id: int, *, user: User, needed: Role = Role.VIEWER) -> Job:
    """Return a job. Raises NotFound or, for a member who lacks the role, Forbidden."""
    job = db.session.get(Job, job_id)
    if job is not None and job.deleted_at is not None:
        job = None
    role = role_in(job.project_id, user=user) if job is not None else None
    if job is None or role is None:
        raise NotFound(f"There is no job {job_id}")
    if not role.allows(needed):
        raise Forbidden(f"You are {role} of project {job.project_id}; this needs the role {needed}")
    return job


def list_jobs(
    user: User,
    *,
    project_id: int | None = None,
    status: list[str] | None = None,
    framework: str | None = None,
    q: str | None = None,
    sort: str = "-created_at",
    limit: int = 50,
    cursor: str | None = None,
) -> Page[Job]:
    """Return the jobs that a person may see."""
    query = select(Job).where(visible_to(user, Job.project_id), Job.is_visible())
    if project_id is not None:
        query = query.where(Job.project_id == project_id)
    if status:
        query = query.where(Job.status.in_(status))
    if framework is not None:
        query = query.where(Job.framework == framework)
    for word in (q or "").split():
        query = query.where(
            or_(
                Job.name.icontains(word, autoescape=True),
                Job.model_name.icontains(word, autoescape=True),
                Job.notes.icontains(word, autoescape=True),
            )
        )
    return paginate(db.session(), query, keys=_sort_keys(sort), limit=limit, cursor=cursor)


def may_preempt(project_id: int, *, user: User) -> bool:
    """Tell whether a person may have a project's jobs take others' places.

    What runs may be somebody else's work, so an owner answers for it.
    """
    role = role_in(project_id, user=user)
    return role is not None and role.allows(Role.OWNER)


def require_preemption(project_id: int, *, user: User) -> None:
    """Raise Forbidden where a person may not have a project's jobs take others' places."""
    if not may_preempt(project_id, user=user):
        role = role_in(project_id, user=user)
        raise Forbidden(
            f"You are {role} of project {project_id}; a job that may take another's place "
            f"(`preempt`) needs the role {Role.OWNER}"
        )


def change(job: Job, changes: dict[str, Any], *, user: User) -> None:
    """Change a job's name, notes, tags or, while it waits, its priority and `preempt`; commit.

    Raises Conflict where it waits no more, Forbidden and Invalid where it may not preempt.
    """
    job_id = job.id
    if changes.keys() & _WHILE_IT_WAITS:
        event_log.lock_order(db.session())  # of two at once each sees what the other has left
        db.session.refresh(job)
        _check_preemption(job, changes, user=user)
        waiting = (JobStatus.PENDING, JobStatus.QUEUED)
        statement = update(Job).where(Job.id == job_id, Job.status.in_(waiting)).values(**changes)
    else:
        statement = update(Job).where(Job.id == job_id).values(**changes)
    before = job.priority
    if affected(statement) != 1:
        db.session.rollback()
        raise Conflict(
            f"Job {job_id} waits no more: neither its priority nor `preempt` can be changed"
        )
    db.session.commit()
    db.session.refresh(job)
    if job.priority != before and job.status == JobStatus.QUEUED:
        _send_with_new_priority(job, before=before)


def remove(job: Job) -> None:
    """Delete a job; its rows and files go soon after. Raises Conflict while it is under way."""
    job_id, attempt = job.id, job.attempt
    event_log.lock_order(db.session())  # no change of status passes in between
    if deletion.mark(Job.id == job_id) != 1:
        db.session.rollback()
        raise Conflict(f"Job {job_id} is queued or running; cancel it first")
    db.session.commit()
    get_executor().forget_deleted({job_id: attempt})


def attempts(job: Job) -> list[Attempt]:
    return list(
        db.session.scalars(select(Attempt).where(Attempt.job_id == job.id).order_by(Attempt.number))
    )


def history(job: Job, *, limit: int, cursor: str | None) -> Page[StatusChange]:
    """Return each change of a job's status, the first first."""
    query = select(StatusChange).where(StatusChange.job_id == job.id)
    keys = [SortKey(StatusChange.id)]
    return paginate(db.session(), query, keys=keys, limit=limit, cursor=cursor)


def list_artifacts(job: Job, *, limit: int, cursor: str | None) -> Page[Artifact]:
    query = select(Artifact).where(Artifact.job_id == job.id)
    keys = [SortKey(Artifact.name), SortKey(Artifact.id)]
    return paginate(db.session(), query, keys=keys, limit=limit, cursor=cursor)


def _check_preemption(job: Job, changes: dict[str, Any], *, user: User) -> None:
    preempt = changes.get("preempt", job.preempt)
    problem = preempt_problem(preempt, priority=changes.get("priority", job.priority))
    if problem is not None:
        raise Invalid({"preempt" if "preempt" in changes else "priority": [problem]})
    if preempt:
        require_preemption(job.project_id, user=user)


def _sort_keys(sort: str) -> list[SortKey]:
    descending = sort.startswith("-")
    column = _SORTS[sort.removeprefix("-")]
    if isinstance(column, tuple):
        column = column[descending]
    by_id = SortKey(Job.id, descending=descending)
    return [by_id] if column is None else [SortKey(column, descending=descending), by_id]


def _send_with_new_priority(job: Job, *, before: int) -> None:
    """Put a second message on the queue and take the first away.

    Should both be there for a moment, whichever is read later finds the attempt taken. Where the
    priority is changed again meanwhile, by another process, the message follows it once more: so
    whoever sent what is stale by now takes it away, and one of the row's priority is left.
    """
    executor = get_executor()
    stale = {before}
    try:
        while job.status == JobStatus.QUEUED:
            sent = job.priority
            executor.start(job)
            for priority in sorted(stale - {sent}):
                executor.forget(job, priority=priority)
            db.session.rollback()
            db.session.refresh(job)
            if job.priority == sent:
                return
            stale.add(sent)
    except Unavailable:
        # The message it has keeps the old place; the database's order is what people see.
        return
