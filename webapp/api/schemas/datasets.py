"""Data sets."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from webapp.api.schemas.base import Out, PageOut, PageQuery, Query, UtcTime
from webapp.fields import Body, FormatName, Id, Line, Lines, TaskName, Uuid
from webapp.models import Dataset

_MAX_SEED = 2**63 - 1  # PostgreSQL's BIGINT


class CheckBody(Body):
    check_id: Uuid | None = Field(
        None,
        description="A UUID of your own choice, to ask `/datasets/checks/{check_id}` how far it is",
    )


class Described(BaseModel):
    """What may be said of a data set that is not found out by looking."""

    name: Line = Field(max_length=100)
    format: FormatName | None = Field(None, description="Default: detected")
    task_type: TaskName | None = Field(None, description="Default: detected")
    split_seed: int = Field(
        0, ge=0, le=_MAX_SEED, description="Of the rule that splits images without a val split"
    )
    val_share: float = Field(
        0.2, gt=0, lt=1, description="What that rule holds out of the images of each class"
    )


class DatasetBody(Described, CheckBody):
    project_id: Id
    path: Lines = Field(
        min_length=1,
        max_length=4096,
        description="A folder below one of the data roots; absolute, or relative to one",
    )


class UploadForm(Described):
    """The fields beside the file; texts, as forms have them."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    project_id: Id | None = Field(
        None, description="Needed here or in the address; before the file it is checked first"
    )
    check_id: Uuid | None = None


class UploadQuery(Query):
    project_id: Id | None = Field(
        None, description="Lets the server refuse before anything is sent"
    )


class DatasetQuery(PageQuery):
    project_id: Id | None = None


class PreviewQuery(Query):
    split: str = Field("train", max_length=20, description="train, val or test")
    limit: int = Field(12, ge=1, le=60)


class CheckOut(Out):
    """How far a look at a data set is."""

    phase: Literal["receiving", "unpacking", "checking", "done"]
    done: int = Field(description="Bytes received or unpacked, or images checked")
    total: int | None = Field(description="Of how many; null where that is not known yet")


class PreviewObjectOut(Out):
    class_id: int
    box: list[float] = Field(description="Left, top, right, bottom; fractions of the image")
    polygons: list[list[float]] = Field(description="x1 y1 x2 y2 …")
    keypoints: list[list[float]] = Field(description="x, y, visibility 0, 1 or 2")
    corners: list[float] = Field(description="x1 y1 … x4 y4 of an oriented box")
    crowd: bool


class PreviewImageOut(Out):
    file: str = Field(description="Relative to the data set's folder")
    width: int | None = Field(description="Of the turned image; null where it cannot be read")
    height: int | None
    thumbnail: str | None = Field(description="A JPEG in base64, its longest side 320")
    classes: list[int] = Field(description="Ids: of the image, or those that occur in it")
    objects: list[PreviewObjectOut] = Field(description="At most 200, the largest")
    mask: str | None = Field(description="A PNG in base64, transparent where no class is")
    problems: list[str]


class PreviewOut(Out):
    """Some images of a split, spread over its classes."""

    split: str
    items: list[PreviewImageOut]


class ProblemOut(Out):
    severity: Literal["error", "warning"]
    code: str
    file: str | None
    line: int | None
    message: str


class KeypointsOut(Out):
    number: int
    dimensions: int = Field(description="2: x and y; 3: and visibility")
    names: list[str]
    flip: list[int] = Field(description="The point that each becomes in a mirror image")
    skeleton: list[list[int]] = Field(description="Pairs of points that are drawn as lines")


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

    task_types: list[TaskName] = Field(description="What it could train; the first is `task_type`")
    multi_label: bool = Field(description="Whether an image may have several classes")
    split_rule: str | None = Field(description="How it was split; null where it came with splits")
    split_seed: int
    val_share: float
    statistics: dict[str, Any] = Field(
        description="Images and objects of each class and split, and histograms of sizes"
    )
    keypoints: KeypointsOut | None = Field(description="Of a pose data set")
    uploaded: bool = Field(description="Whether its files are deleted with it")

    @model_validator(mode="before")
    @classmethod
    def _of_old_rows(cls, row: Any) -> Any:
        """Fill in what was not looked at when an old row was written."""
        if not isinstance(row, Dataset):
            return row
        known = {name: getattr(row, name) for name in cls.model_fields}
        known["task_types"] = row.task_types or [row.task_type]
        known["statistics"] = row.statistics or {}
        return known


class DatasetPageOut(PageOut):
    items: list[DatasetOut]
