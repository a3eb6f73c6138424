"""What is known of a data set after it was looked at, and what may be wrong with it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.contract import AdapterError, DatasetFormat, TaskType

if TYPE_CHECKING:
    from adapters.data.content import Keypoints


class DatasetError(AdapterError):
    """A data set cannot be read at all: nothing lies there, or its format cannot be told."""


class Severity(StrEnum):
    ERROR = "error"  # training on it would fail or lie: the data set is invalid
    WARNING = "warning"  # worth a look; training goes ahead


@dataclass(frozen=True)
class Problem:
    severity: Severity
    code: str  # stable, for programs: 'empty_class', 'unreadable_image', 'label_out_of_range'
    message: str  # one sentence for a person: what is wrong, and what would be right
    file: str | None = None  # relative to the data set's folder
    line: int | None = None  # 1-based

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "severity": str(self.severity)}


@dataclass(frozen=True)
class Description:
    """A data set as its reader found it."""

    path: Path
    format: DatasetFormat
    task_type: TaskType
    classes: tuple[str, ...]  # in the order of their ids
    splits: dict[str, int]  # number of images of each split: train, val, test
    problems: tuple[Problem, ...]
    fingerprint: str  # sha256 over names and contents, so that two jobs are known to share data
    task_types: tuple[TaskType, ...] = ()  # all that it can be read for
    multi_label: bool = False  # classification: an image may have any number of classes
    split_rule: str | None = None  # how its val split was made, in words; None: it came with one
    keypoints: Keypoints | None = None
    statistics: dict[str, Any] = field(default_factory=dict)  # see adapters.data.statistics

    @property
    def num_images(self) -> int:
        return sum(self.splits.values())

    @property
    def valid(self) -> bool:
        return not any(problem.severity == Severity.ERROR for problem in self.problems)
