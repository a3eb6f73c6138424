"""Models and frameworks."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from webapp.api.schemas.base import Out, PageOut, PageQuery
from webapp.fields import FormatName, Line, TaskName


class ModelQuery(PageQuery):
    framework: Line | None = Field(None, max_length=50)
    task_type: TaskName | None = None
    q: str | None = Field(None, max_length=200, description="Words that the name has")


class ModelOut(Out):
    framework: str
    name: str
    task_types: list[TaskName]
    params_m: float = Field(description="Millions of parameters")
    input_size: int = Field(description="Side in pixels")
    pretrained: Literal["cached", "download", "none"]


class ModelPageOut(PageOut):
    items: list[ModelOut]


class FrameworkOut(Out):
    name: str
    title: str
    licence: str
    queue: str
    task_types: list[TaskName]
    formats: dict[str, list[FormatName]] = Field(description="By task, what it is trained on")
    multi_label: bool = Field(
        description="Image classification: whether an image may have several classes"
    )
    version: str | None = Field(description="Of the library that its models are listed from")
    optimizers: list[str] = Field(description="The first is the default")
    image_size_step: int = Field(description="An image's side must be a multiple of it")
    hyperparameters: dict[str, Any] = Field(
        description=(
            "JSON Schema of a job's hyperparameters; `groups` in it names each group of a form by "
            "its first field, `task_types` of a field the tasks that have it"
        )
    )


class FrameworkPageOut(PageOut):
    items: list[FrameworkOut]
