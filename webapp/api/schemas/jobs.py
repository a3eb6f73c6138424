"""Training jobs and what is recorded of them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, RootModel

from webapp.api.schemas.base import Out, PageOut, PageQuery, Query, UtcTime
from webapp.fields import UNSET, Body, FormatName, Id, Line, TaskName
from webapp.services.job_request import Name, Notes, Preempt, Priority, Tags

StatusName = Literal[
    "pending", "queued", "running", "cancelling", "completed", "failed", "cancelled"
]
SortName = Literal[
    "created_at",
    "-created_at",
    "name",
    "-name",
    "status",
    "-status",
    "priority",
    "-priority",
    "preempt",
    "-preempt",
    "accuracy",
    "-accuracy",
    "loss",
    "-loss",
]


class JobPatch(Body):
    name: Name = Field(UNSET)
    notes: Notes = Field(UNSET)
    tags: Tags = Field(UNSET)
    priority: Priority = Field(UNSET, description="While it is pending or queued; 9 goes first")
    preempt: Preempt = Field(UNSET, description="While it is pending or queued; see POST")


class JobQuery(PageQuery):
    project_id: Id | None = None
    status: list[StatusName] | None = Field(None, description="One or more")
    framework: Line | None = Field(None, max_length=50)
    q: str | None = Field(
        None, max_length=200, pattern=r"^[^\x00]*$", description="Words in name, model or notes"
    )
    sort: SortName = "-created_at"


class CancelBody(Body):
    mode: Literal["after_epoch", "now", "kill"] = Field(
        "now",
        description=(
            "after_epoch: when the epoch is done; now: at the next batch, with a checkpoint; "
            "kill: at once, without one"
        ),
    )


class CloneBody(Body):
    overrides: dict[str, Any] = Field(
        default_factory=dict, max_length=50, description="Fields of POST /training/jobs"
    )


class ProgressOut(Out):
    epoch: int
    epochs: int
    step: int = Field(description="Of the epoch")
    steps: int | None
    phase: str | None
    percent: float
    eta_seconds: float | None
    images_per_second: float | None
    device_memory_bytes: int | None = Field(description="The most it held of its GPUs so far")


class BestOut(Out):
    epoch: int
    metric: str
    value: float


class ErrorOut(Out):
    kind: str
    message: str
    hint: str = ""


class DecisionOut(Out):
    value: float | str
    why: str


class JobOut(Out):
    id: int
    project_id: int
    created_by: int | None
    name: str
    notes: str
    tags: list[str]
    framework: str
    model_name: str
    task_type: TaskName
    dataset_id: int | None
    dataset_path: str
    dataset_format: FormatName
    dataset_fingerprint: str
    epochs: int
    batch_size: int = Field(description="0: the largest that fits")
    batch_size_used: int | None = Field(description="Null until the worker has found it")
    learning_rate: float
    optimizer: str | None
    image_size: int | None
    pretrained: bool
    initial_job_id: int | None = Field(description="The job whose best weights it begins with")
    split_seed: int = Field(description="Of the rule that splits data without a val split")
    val_share: float = Field(description="What that rule holds out of each class")
    seed: int
    device: str = Field(description="Where it trains; before that, what was asked for")
    device_requested: Literal["auto", "cpu", "gpu"]
    priority: int
    preempt: bool = Field(description="It may take the place of a less urgent job that runs")
    displaced_by: int | None = Field(
        description="The urgent job that it gives or gave its place to, until it trains again"
    )
    hyperparameters: dict[str, Any]
    status: StatusName
    queue: str
    queue_position: int | None = Field(description="1: it is next; null: it is not queued")
    waiting_reason: str | None
    expected_start: UtcTime | None = Field(description="Null where it cannot be told honestly")
    attempt: int = Field(description="0: never started")
    cancel_mode: str | None
    worker: str | None
    progress: ProgressOut
    metrics: dict[str, float] = Field(description="The latest value of each")
    decisions: dict[str, DecisionOut] = Field(
        description="What the worker chose that the job left open, or had to change"
    )
    best: BestOut | None
    accuracy: float | None = Field(description="The metric of `best`, 0..1")
    loss: float | None = Field(description="Validation loss of the last epoch")
    error: ErrorOut | None
    best_model_path: str | None
    created_at: UtcTime
    queued_at: UtcTime | None
    started_at: UtcTime | None
    completed_at: UtcTime | None
    output_dir: str
    output_bytes: int | None = Field(
        description="What its files take: at its last attempt's end, and measured anew once a day"
    )
    resumable: bool = Field(
        description="It failed or was cancelled, and its last checkpoint was not removed since"
    )


class JobPageOut(PageOut):
    items: list[JobOut]


class StartedOut(Out):
    message: str
    job_id: int
    status: StatusName


class MetricsQuery(Query):
    names: str | None = Field(
        None, max_length=2000, pattern=r"^[^\x00]*$", description="Separated by commas"
    )
    points: int | None = Field(
        None, ge=2, le=100_000, description="At most so many of each, the peaks among them"
    )


class PointOut(Out):
    epoch: int
    step: int | None
    value: float
    time: UtcTime
    attempt: int


class CurvesOut(RootModel[dict[str, list[PointOut]]]):
    """Points by the metric's name."""


class LoadQuery(Query):
    points: int | None = Field(
        None, ge=2, le=100_000, description="At most so many of each, the peaks among them"
    )


class LoadPointOut(Out):
    time: UtcTime
    attempt: int
    value: float


class LoadOut(Out):
    cpu_percent: list[LoadPointOut] = Field(description="Of one core: 200 is two whole ones")
    memory_bytes: list[LoadPointOut]
    gpu_percent: list[LoadPointOut] = Field(description="Of its GPUs together; none on a CPU")
    gpu_memory_bytes: list[LoadPointOut]


class LogQuery(Query):
    attempt: Id | None = Field(None, description="Default: the present one")
    offset: int = Field(0, ge=0, le=2**53, description="First byte wanted")
    tail: int | None = Field(None, ge=0, le=100_000, description="Only the last lines")


class AttemptOut(Out):
    number: int
    worker: str | None
    host: str | None
    device: str | None
    queued_at: UtcTime
    started_at: UtcTime | None
    ended_at: UtcTime | None
    outcome: str | None
    exit_code: int | None
    reason: str | None


class AttemptPageOut(PageOut):
    items: list[AttemptOut]


class ChangeOut(Out):
    attempt: int
    previous: StatusName | None
    status: StatusName
    time: UtcTime
    actor: str
    reason: str


class ChangePageOut(PageOut):
    items: list[ChangeOut]


class ArtifactOut(Out):
    name: str
    kind: str
    size: int = Field(description="Bytes")
    sha256: str
    attempt: int
    created_at: UtcTime


class ArtifactPageOut(PageOut):
    items: list[ArtifactOut]
