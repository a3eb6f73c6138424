"""What a person asks for: a job as it is described, with the bounds of every field."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from adapters.wire import DEFAULT_PRIORITY
from webapp.fields import Body, FormatName, Id, Line, Lines, TaskName

MAX_TAGS = 20
Tag = Annotated[Line, Field(max_length=50)]
Name = Annotated[Line, Field(max_length=200)]
Notes = Annotated[Lines, Field(max_length=10_000)]
Tags = Annotated[list[Tag], Field(max_length=MAX_TAGS)]
Priority = Annotated[int, Field(ge=0, le=9, description="9 goes first")]
# Less urgent ones, and those that say nothing of it, take nobody's place.
LEAST_PREEMPTING_PRIORITY = DEFAULT_PRIORITY + 1
Preempt = Annotated[
    bool,
    Field(
        description=(
            "While no slot is free, the least urgent running job of a lower priority is "
            "checkpointed and queued again to make place; for owners of the project, from "
            f"priority {LEAST_PREEMPTING_PRIORITY} on"
        )
    ),
]


def preempt_problem(preempt: bool, *, priority: int) -> str | None:
    """Return why a job may not take another's place, None where it may or does not want to."""
    if not preempt or priority >= LEAST_PREEMPTING_PRIORITY:
        return None
    return (
        f"Only a job of priority {LEAST_PREEMPTING_PRIORITY} or more may take another's place; "
        f"this one has {priority}"
    )


_NULL = {"type": "null"}
# What _one_dataset says, in JSON Schema.
_ONE_DATASET: dict[str, Any] = {
    "oneOf": [
        {
            "required": ["dataset_id"],
            "properties": {
                "dataset_id": {"type": "integer"},
                "dataset_path": _NULL,
                "dataset_format": _NULL,
            },
        },
        {
            "required": ["dataset_path"],
            "properties": {"dataset_path": {"type": "string"}, "dataset_id": _NULL},
        },
    ],
    # And what _urgent_enough says.
    "anyOf": [
        {"properties": {"preempt": {"const": False}}},
        {
            "required": ["priority"],
            "properties": {"priority": {"minimum": LEAST_PREEMPTING_PRIORITY}},
        },
    ],
}


class JobRequest(Body):
    """A training job. Name a registered data set, or a folder and its format."""

    model_config = ConfigDict(json_schema_extra=_ONE_DATASET)

    project_id: Id
    framework: Line = Field(max_length=50, examples=["timm"])
    model_name: Line = Field(max_length=200, examples=["resnet18"])
    task_type: TaskName
    dataset_id: Id | None = None
    dataset_path: Annotated[Lines, Field(min_length=1, max_length=4096)] | None = None
    dataset_format: FormatName | None = None
    epochs: int = Field(ge=1, le=10_000)
    batch_size: int = Field(
        ge=0, le=4096, description="0: the largest that fits, found by trial on the worker"
    )
    learning_rate: float = Field(gt=0, le=10)
    name: Name | None = Field(None, description="Default: made of the model and the data set")
    optimizer: Annotated[Line, Field(max_length=50)] | None = Field(
        None, description="Default: the framework's first; see GET /frameworks"
    )
    image_size: Annotated[int, Field(ge=16, le=4096)] | None = Field(
        None, description="Side in pixels; default: the model's own"
    )
    pretrained: bool = Field(False, description="Begin with the weights its authors published")
    initial_job_id: Id | None = Field(
        None,
        description=(
            "Begin with the best weights of this job, which has the same framework, model and "
            "task; goes before `pretrained`"
        ),
    )
    seed: int = Field(0, ge=0, le=2**32 - 1)
    device: Literal["auto", "cpu", "gpu"] = "auto"
    priority: Priority = DEFAULT_PRIORITY
    preempt: Preempt = False
    hyperparameters: dict[str, Any] = Field(
        default_factory=dict, max_length=200, description="The framework's; see GET /frameworks"
    )
    tags: Tags = Field(default_factory=list)
    notes: Notes = ""

    @field_validator("preempt")
    @classmethod
    def _urgent_enough(cls, preempt: bool, info: ValidationInfo) -> bool:
        problem = preempt_problem(preempt, priority=info.data.get("priority", DEFAULT_PRIORITY))
        if problem is not None:
            raise ValueError(problem)
        return preempt

    @model_validator(mode="after")
    def _one_dataset(self) -> Self:
        if (self.dataset_id is None) == (self.dataset_path is None):
            raise ValueError("Name either dataset_id, or dataset_path with dataset_format")
        if self.dataset_path is None and self.dataset_format is not None:
            raise ValueError("dataset_format goes with dataset_path, not with dataset_id")
        return self
