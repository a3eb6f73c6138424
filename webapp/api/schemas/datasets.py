"""Data sets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from webapp.api.schemas.base import Out, PageOut, PageQuery, UtcTime
from webapp.fields import Body, FormatName, Id, Line, Lines, TaskName


class DatasetBody(Body):
    project_id: Id
    name: Line = Field(max_length=100)
    path: Lines = Field(
        min_length=1,
        max_length=4096,
        description="A folder below one of the data roots; absolute, or relative to one",
    )
    format: FormatName | None = Field(None, description="Default: detected")
    task_type: TaskName | None = Field(None, description="Default: detected")


class DatasetQuery(PageQuery):
    project_id: Id | None = None


class ProblemOut(Out):
    severity: Literal["error", "warning"]
    code: str
    file: str | None
    line: int | None
    message: str


class DatasetOut(Out):
    id: int
    project_id: int
    name: str
    format: FormatName
    task_type: TaskName
    path: str
    num_images: int
    num_classes: int
    classes: list[str] = Field(description="In the order of their ids")
    splits: dict[str, int] = Field(description="Number of images of each split")
    status: Literal["valid", "invalid"]
    problems: list[ProblemOut]
    fingerprint: str
    created_at: UtcTime
    checked_at: UtcTime


class DatasetPageOut(PageOut):
    items: list[DatasetOut]
