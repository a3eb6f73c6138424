"""/api/v1/projects: projects and who may do what in them."""

from __future__ import annotations

from typing import Any

from webapp.api.authentication import current_user
from webapp.api.document import problems, resource
from webapp.api.paths import MemberPath, ProjectPath
from webapp.api.schemas.base import PageQuery, dump
from webapp.api.schemas.projects import (
    MemberBody,
    MemberOut,
    MemberPageOut,
    MemberPatch,
    ProjectBody,
    ProjectOut,
    ProjectPageOut,
    ProjectPatch,
)
from webapp.fields import given
from webapp.models import Membership, Project, Role
from webapp.services import projects

blueprint = resource("projects", title="Projects")

Answer = tuple[dict[str, Any], int]


@blueprint.get("", responses={200: ProjectPageOut})
def list(query: PageQuery) -> Answer:
    """List your projects, the newest first"""
    found = projects.list_projects(current_user(), limit=query.limit, cursor=query.cursor)
    items = [_project(project, role) for project, role in found.items]
    return {"items": items, "next_cursor": found.next_cursor, "total": found.total}, 200


@blueprint.post("", responses={201: ProjectOut})
def create(body: ProjectBody) -> Answer:
    """Create a project; you are its owner"""
    project = projects.create_project(current_user(), name=body.name, description=body.description)
    return _project(project, Role.OWNER), 201


@blueprint.get("/<id:project_id>", responses={200: ProjectOut})
def get(path: ProjectPath) -> Answer:
    """Get a project"""
    return _mine(_fetch(path, Role.VIEWER)), 200


@blueprint.patch("/<id:project_id>", responses={200: ProjectOut, **problems(403)})
def update(path: ProjectPath, body: ProjectPatch) -> Answer:
    """Change a project's name or description"""
    project = _fetch(path, Role.EDITOR)
    projects.update_project(project, given(body))
    return _mine(project), 200


@blueprint.delete("/<id:project_id>", responses={204: None, **problems(403, 409)})
def delete(path: ProjectPath) -> tuple[str, int]:
    """Delete a project with its data sets, jobs and results"""
    projects.delete_project(_fetch(path, Role.OWNER))
    return "", 204


@blueprint.get("/<id:project_id>/members", responses={200: MemberPageOut})
def members(path: ProjectPath, query: PageQuery) -> Answer:
    """List who is in a project"""
    project = _fetch(path, Role.VIEWER)
    found = projects.list_members(project, limit=query.limit, cursor=query.cursor)
    items = [_member(membership) for membership in found.items]
    return {"items": items, "next_cursor": found.next_cursor, "total": found.total}, 200


@blueprint.post("/<id:project_id>/members", responses={201: MemberOut, **problems(403, 409)})
def add_member(path: ProjectPath, body: MemberBody) -> Answer:
    """Give somebody a role in a project"""
    project = _fetch(path, Role.OWNER)
    return _member(projects.add_member(project, email=body.email, role=Role(body.role))), 201


@blueprint.patch(
    "/<id:project_id>/members/<id:user_id>", responses={200: MemberOut, **problems(403, 409)}
)
def change_member(path: MemberPath, body: MemberPatch) -> Answer:
    """Change somebody's role"""
    project = _fetch(path, Role.OWNER)
    return _member(projects.change_role(project, path.user_id, role=Role(body.role))), 200


@blueprint.delete(
    "/<id:project_id>/members/<id:user_id>", responses={204: None, **problems(403, 409)}
)
def remove_member(path: MemberPath) -> tuple[str, int]:
    """Take somebody out of a project; everybody may take out themselves"""
    needed = Role.VIEWER if path.user_id == current_user().id else Role.OWNER
    projects.remove_member(_fetch(path, needed), path.user_id)
    return "", 204


def _fetch(path: ProjectPath, needed: Role) -> Project:
    return projects.get_project(path.project_id, user=current_user(), needed=needed)


def _mine(project: Project) -> dict[str, Any]:
    role = projects.role_in(project.id, user=current_user())
    return _project(project, role or Role.VIEWER)


def _project(project: Project, role: Role) -> dict[str, Any]:
    values = {name: getattr(project, name) for name in ("id", "name", "description", "created_at")}
    return dump(ProjectOut, {**values, "role": str(role)})


def _member(membership: Membership) -> dict[str, Any]:
    user = membership.user
    return dump(
        MemberOut,
        {"user_id": user.id, "email": user.email, "name": user.name, "role": membership.role},
    )
