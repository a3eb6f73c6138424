"""Fields that the schemas of several frameworks have."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from pydantic.fields import FieldInfo

from adapters.contract import TaskType

TASKS = "task_types"  # in the JSON schema of a field that not every task has


def for_tasks(tasks: tuple[TaskType, ...]) -> dict[str, Any] | None:
    """Return what the JSON schema says of a field that only these tasks have; none: all have it."""
    return {TASKS: [str(task) for task in tasks]} if tasks else None


def tasks_of(field: FieldInfo) -> tuple[str, ...]:
    """Return the tasks that have a field, none where all have it."""
    extra = field.json_schema_extra
    tasks = extra.get(TASKS, ()) if isinstance(extra, dict) else ()
    return tuple(map(str, tasks)) if isinstance(tasks, list) else ()


def number(
    default: float | None,
    low: float,
    high: float,
    description: str,
    tasks: tuple[TaskType, ...] = (),
) -> Any:
    """Return a field of a finite number between two bounds, both allowed."""
    return Field(
        default,
        ge=low,
        le=high,
        allow_inf_nan=False,
        description=description,
        json_schema_extra=for_tasks(tasks),
    )
