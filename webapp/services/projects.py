"""Projects and their members. The functions that fetch a project own its 404 and its 403."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, delete, func, select, true, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased

from webapp.extensions import db
from webapp.models import Dataset, Job, Membership, Project, Role, User
from webapp.models.columns import utc_now
from webapp.services import deletion, event_log, uploads
from webapp.services.accounts import find_user
from webapp.services.deletion import ACTIVE
from webapp.services.errors import Conflict, Forbidden, Invalid, NotFound
from webapp.services.executors import get_executor
from webapp.services.paging import Page, SortKey, paginate
from webapp.services.statements import affected


def get_project(project_id: int, *, user: User, needed: Role = Role.VIEWER) -> Project:
    """Return a project in which a person has a role.

    Raises NotFound for who may not know of it, Forbidden for a member who lacks the role.
    """
    project = db.session.get(Project, project_id)
    if project is not None and project.deleted_at is not None:
        project = None
    role = role_in(project_id, user=user) if project is not None else None
    if project is None or role is None:
        raise NotFound(f"There is no project {project_id}")
    if not role.allows(needed):
        raise Forbidden(f"You are {role} of project {project_id}; this needs the role {needed}")
    return project


def role_in(project_id: int, *, user: User) -> Role | None:
    """Return what a person may do in a project; an administrator may do all."""
    if user.is_admin:
        return Role.OWNER
    role = db.session.scalar(
        select(Membership.role).where(
            Membership.project_id == project_id, Membership.user_id == user.id
        )
    )
    return None if role is None else Role(role)


def require_some_project(user: User, *, needed: Role) -> None:
    """Raise Forbidden where a person has the role in no project at all."""
    roles = [role for role in Role if role.allows(needed)]
    mine = select(Membership.role).where(Membership.user_id == user.id, Membership.role.in_(roles))
    if not user.is_admin and db.session.scalar(mine.limit(1)) is None:
        raise Forbidden(f"You have the role {needed} in no project")


def visible_to(user: User, project_id: Any) -> ColumnElement[bool]:
    """Return the condition that rows with this column are of projects a person may see."""
    if user.is_admin:
        return true()
    mine = select(Membership.project_id).where(Membership.user_id == user.id)
    condition: ColumnElement[bool] = project_id.in_(mine)
    return condition


def list_projects(user: User, *, limit: int, cursor: str | None) -> Page[tuple[Project, Role]]:
    """Return a person's projects, each with their role in it, the newest first."""
    mine = aliased(Membership)
    query = (
        select(Project, mine.role)
        .outerjoin(mine, (mine.project_id == Project.id) & (mine.user_id == user.id))
        .where(visible_to(user, Project.id), Project.deleted_at.is_(None))
    )
    page = paginate(
        db.session(), query, keys=[SortKey(Project.id, descending=True)], limit=limit, cursor=cursor
    )
    items = [(project, Role.OWNER if user.is_admin else Role(role)) for project, role in page.items]
    return Page(items=items, next_cursor=page.next_cursor, total=page.total)


def create_project(user: User, *, name: str, description: str) -> Project:
    project = Project(name=name, description=description)
    project.memberships.append(Membership(user_id=user.id, role=Role.OWNER))
    db.session.add(project)
    db.session.commit()
    return project


def update_project(project: Project, changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        setattr(project, name, value)
    db.session.commit()


def delete_project(project: Project) -> None:
    """Delete a project with all that is in it. Raises Conflict while a job is under way.

    Nobody sees it any more; its jobs' rows and files go soon after (webapp.services.deletion).
    """
    project_id = project.id
    uploaded = db.session.scalars(
        select(Dataset).where(Dataset.project_id == project_id, Dataset.uploaded)
    ).all()
    with uploads.leaving(uploaded):
        event_log.lock_order(db.session())  # no job is started between the look and the deletion
        jobs = db.session.execute(
            select(Job.id, Job.attempt, Job.status).where(Job.project_id == project_id)
        ).all()
        if any(job.status in ACTIVE for job in jobs):
            db.session.rollback()
            raise Conflict(
                f"Project {project_id} has jobs that are queued or running; cancel them first"
            )
        deletion.mark(Job.project_id == project_id)
        for of_project in (Dataset, Membership):
            affected(delete(of_project).where(of_project.project_id == project_id))
        affected(update(Project).where(Project.id == project_id).values(deleted_at=utc_now()))
        db.session.commit()
    get_executor().forget_deleted({job.id: job.attempt for job in jobs})


def list_members(project: Project, *, limit: int, cursor: str | None) -> Page[Membership]:
    query = (
        select(Membership)
        .join(User, User.id == Membership.user_id)
        .where(Membership.project_id == project.id)
    )
    keys = [SortKey(User.email), SortKey(Membership.user_id)]
    return paginate(db.session(), query, keys=keys, limit=limit, cursor=cursor)


def add_member(project: Project, *, email: str, role: Role) -> Membership:
    """Give a person a role. Raises Invalid where nobody has the address, Conflict for a member."""
    user = find_user(email)
    if user is None:
        raise Invalid({"email": ["Nobody here has this address; ask them to register first"]})
    taken = f"{user.email} is a member of project {project.id} already; change the role instead"
    membership = Membership(project_id=project.id, user_id=user.id, role=role)
    db.session.add(membership)
    try:
        db.session.commit()
    except IntegrityError:
        db.session.rollback()
        raise Conflict(taken) from None
    return membership


def change_role(project: Project, user_id: int, *, role: Role) -> Membership:
    """Change a member's role. Raises Conflict where no owner would be left."""
    membership = _member(project, user_id)
    condition = _keeps_an_owner(project) if role != Role.OWNER else true()
    changed = affected(
        update(Membership)
        .where(Membership.project_id == project.id, Membership.user_id == user_id, condition)
        .values(role=role)
    )
    _commit_or_refuse(changed, project)
    db.session.refresh(membership)
    return membership


def remove_member(project: Project, user_id: int) -> None:
    """Take a member out. Raises Conflict where no owner would be left."""
    _member(project, user_id)
    removed = affected(
        delete(Membership).where(
            Membership.project_id == project.id,
            Membership.user_id == user_id,
            _keeps_an_owner(project),
        )
    )
    _commit_or_refuse(removed, project)


def _member(project: Project, user_id: int) -> Membership:
    # Two owners who leave at once must see each other; on SQLite the statement itself suffices.
    db.session.execute(select(Project.id).where(Project.id == project.id).with_for_update())
    membership = db.session.get(Membership, (project.id, user_id))
    if membership is None:
        raise NotFound(f"Project {project.id} has no member {user_id}")
    return membership


def _keeps_an_owner(project: Project) -> ColumnElement[bool]:
    other = aliased(Membership)
    owners = (
        select(func.count())
        .select_from(other)
        .where(other.project_id == project.id, other.role == Role.OWNER)
        .scalar_subquery()
    )
    return (Membership.role != Role.OWNER) | (owners > 1)


def _commit_or_refuse(changed: int, project: Project) -> None:
    if changed != 1:
        db.session.rollback()
        raise Conflict(f"Project {project.id} needs an owner; make somebody else one first")
    db.session.commit()
