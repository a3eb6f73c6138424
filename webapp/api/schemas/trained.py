"""What follows training: predictions, exports, the evaluation."""

from __future__ import annotations

from typing import Any, Literal

from flask_openapi.models.file import FileStorage
from pydantic import ConfigDict, Field

from webapp.api.schemas.base import Out, PageOut, UtcTime
from webapp.api.schemas.jobs import ErrorOut
from webapp.fields import Body, TaskName


class PredictForm(Body):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    file: FileStorage = Field(description="An image: PNG, JPEG, WebP, BMP, TIFF, GIF or PPM")
    threshold: float = Field(0.25, ge=0, le=1, description="Objects below it are left out")


class ScoreOut(Out):
    name: str
    score: float


class FoundOut(Out):
    model_config = ConfigDict(populate_by_name=True)

    class_name: str = Field(alias="class")
    colour: str = Field(description="Of the class in pictures, like #2d55c9")
    score: float
    box: list[float] = Field(description="Left, top, right, bottom; fractions of the image")
    polygon: list[float] | None = Field(description="x1 y1 x2 y2 …: the outline of its mask")
    keypoints: list[list[float]] | None = Field(description="x, y, confidence of each")
    corners: list[float] | None = Field(description="x1 y1 … x4 y4 of an oriented box")


class LegendOut(Out):
    name: str
    colour: str
    share: float = Field(description="Of the image's pixels")


class TrainedModelOut(Out):
    job_id: int
    framework: str
    model_name: str


class PredictionOut(Out):
    task_type: TaskName
    multi_label: bool
    width: int
    height: int
    classes: list[ScoreOut] | None = Field(description="Of classification, the likeliest first")
    objects: list[FoundOut] | None = Field(description="Of tasks that find things, by score")
    mask: str | None = Field(description="Of semantic segmentation: a PNG as a data URL")
    legend: list[LegendOut] | None = Field(description="The classes in the mask")
    model: TrainedModelOut
    seconds: float = Field(description="That the model took")


class ExportBody(Body):
    format: Literal["onnx", "torchscript"]


class ExportOut(Out):
    id: int
    job_id: int
    format: Literal["onnx", "torchscript"]
    status: Literal["requested", "running", "completed", "failed"]
    artifact: str | None = Field(description="Name of the file, when it is completed")
    largest_difference: float | None = Field(
        description="From the original's output, in units of its largest value where that is "
        "above 1"
    )
    error: ErrorOut | None
    requested_by: str
    requested_at: UtcTime
    completed_at: UtcTime | None


class ExportPageOut(PageOut):
    items: list[ExportOut]


class EvaluationOut(Out):
    """The best model's evaluation; its whole shape is in docs/after-training.md."""

    model_config = ConfigDict(extra="allow")

    version: int
    task_type: TaskName
    framework: str
    model_name: str
    attempt: int
    splits: dict[str, dict[str, Any]] = Field(description="By split: val and, where it is, test")
