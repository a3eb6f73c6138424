"""Projects and their members."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from webapp.api.schemas.auth import Email
from webapp.api.schemas.base import Out, PageOut, UtcTime
from webapp.fields import UNSET, Body, Line, Lines

RoleName = Literal["viewer", "editor", "owner"]


class ProjectBody(Body):
    name: Line = Field(max_length=100)
    description: Lines = Field("", max_length=10_000)


class ProjectPatch(Body):
    name: Line = Field(UNSET, max_length=100)
    description: Lines = Field(UNSET, max_length=10_000)


class ProjectOut(Out):
    id: int
    name: str
    description: str
    role: RoleName = Field(description="What you may do in it")
    created_at: UtcTime


class ProjectPageOut(PageOut):
    items: list[ProjectOut]


class MemberBody(Body):
    email: Email
    role: RoleName


class MemberPatch(Body):
    role: RoleName


class MemberOut(Out):
    user_id: int
    email: str
    name: str
    role: RoleName


class MemberPageOut(PageOut):
    items: list[MemberOut]
