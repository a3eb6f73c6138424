"""A job, its attempts, and everything that was recorded of them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Float,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
    false,
    select,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from webapp.extensions import Model
from webapp.models.columns import BigId, Json, UtcDateTime, utc_now


class JobStatus(StrEnum):
    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


class LastCheckpoint(StrEnum):
    """Whether an ended job could go on: see webapp.services.retention."""

    KEPT = "kept"
    REMOVING = "removing"  # decided, and from then on the job cannot be resumed
    GONE = "gone"


class Job(Model):
    """What a person asked for. ``status`` is assigned only in webapp.services.lifecycle."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_project_id_id", "project_id", "id"),
        Index("ix_jobs_project_id_status_id", "project_id", "status", "id"),  # a page's filter
        # The queue's order, and what the reaper looks through.
        Index("ix_jobs_status_queue", "status", "queue", "priority", "queued_at"),
        # Of thousands, the few that are being deleted.
        Index(
            "ix_jobs_deleted",
            "deleted_at",
            postgresql_where=text("deleted_at IS NOT NULL"),
            sqlite_where=text("deleted_at IS NOT NULL"),
        ),
        # An id is never used twice: Redis's fences and the output folder outlive a deleted job.
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))

    # What was asked for.
    name: Mapped[str] = mapped_column(String(200))
    notes: Mapped[str] = mapped_column(Text, default="")
    tags: Mapped[list[str]] = mapped_column(Json, default=list)
    framework: Mapped[str] = mapped_column(String(50))
    model_name: Mapped[str] = mapped_column(String(200))
    task_type: Mapped[str] = mapped_column(String(30))
    dataset_id: Mapped[int | None] = mapped_column(
        ForeignKey("datasets.id", ondelete="SET NULL"), index=True
    )
    dataset_path: Mapped[str] = mapped_column(Text)
    dataset_format: Mapped[str] = mapped_column(String(20))
    dataset_fingerprint: Mapped[str] = mapped_column(String(64))
    split_seed: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    val_share: Mapped[float] = mapped_column(Float(53), default=0.2, server_default="0.2")
    epochs: Mapped[int]
    batch_size: Mapped[int]  # 0: the largest that fits
    learning_rate: Mapped[float] = mapped_column(Float(53))
    optimizer: Mapped[str | None] = mapped_column(String(50))
    image_size: Mapped[int | None]
    pretrained: Mapped[bool] = mapped_column(default=False)
    # Whose best weights it begins with; no foreign key, for that job may be deleted meanwhile.
    initial_job_id: Mapped[int | None]
    seed: Mapped[int] = mapped_column(BigInteger, default=0)
    device_choice: Mapped[str] = mapped_column(String(10), default="auto")  # a DeviceChoice
    priority: Mapped[int]  # 0..9, 9 is the most urgent
    # Whether it may take the place of a less urgent job that runs.
    preempt: Mapped[bool] = mapped_column(default=False, server_default=false())
    hyperparameters: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)

    # Where it is.
    status: Mapped[str] = mapped_column(String(20), default=JobStatus.PENDING)
    queue: Mapped[str] = mapped_column(String(50))
    attempt: Mapped[int] = mapped_column(default=0)  # 0: never started
    lost_attempts: Mapped[int] = mapped_column(default=0)  # those that a dead worker cost
    # The urgent job that it was asked to give its place to, until it trains again.
    displaced_by: Mapped[int | None]
    resume: Mapped[bool] = mapped_column(default=False)  # the attempt goes on from a checkpoint
    cancel_mode: Mapped[str | None] = mapped_column(String(20))
    worker: Mapped[str | None] = mapped_column(String(100))
    device: Mapped[str | None] = mapped_column(String(100))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    queued_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    # What came of it.
    progress: Mapped[dict[str, Any] | None] = mapped_column(Json)
    latest_metrics: Mapped[dict[str, float]] = mapped_column(Json, default=dict)
    best: Mapped[dict[str, Any] | None] = mapped_column(Json)
    accuracy: Mapped[float | None] = mapped_column(Float(53))
    loss: Mapped[float | None] = mapped_column(Float(53))
    best_model_path: Mapped[str | None] = mapped_column(Text)
    # {name: {value, why}}
    decisions: Mapped[dict[str, Any] | None] = mapped_column(Json)
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)  # {kind, message, hint}

    # What it takes of the disk, and how long.
    output_bytes: Mapped[int | None] = mapped_column(
        BigInteger
    )  # when its folder was last measured
    last_checkpoint: Mapped[str] = mapped_column(
        String(10), default=LastCheckpoint.KEPT, server_default="kept"
    )
    # From then on nobody sees it, and what it has left goes: see webapp.services.deletion.
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    @classmethod
    def is_visible(cls) -> ColumnElement[bool]:
        """Return the condition that a job is not deleted; it leaves counts to the other indexes."""
        return cls.id.not_in(select(cls.id).where(cls.deleted_at.is_not(None)))


class DeletedJob(Model):
    """A job that is gone, remembered for as long as a lost worker might still write its files."""

    __tablename__ = "deleted_jobs"

    job_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    deleted_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)


class Attempt(Model):
    """One execution of a job."""

    __tablename__ = "attempts"

    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str | None] = mapped_column(String(100))
    host: Mapped[str | None] = mapped_column(String(255))
    device: Mapped[str | None] = mapped_column(String(100))
    queued_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    outcome: Mapped[str | None] = mapped_column(String(20))  # completed, failed, …, lost
    exit_code: Mapped[int | None]
    reason: Mapped[str | None] = mapped_column(Text)
    failure: Mapped[dict[str, Any] | None] = mapped_column(Json)  # {kind, epoch, step} if it failed
    last_seq: Mapped[int] = mapped_column(BigInteger, default=0)  # the last event recorded
    log_size: Mapped[int] = mapped_column(BigInteger, default=0)  # bytes of log recorded


class StatusChange(Model):
    """One line of a job's history."""

    __tablename__ = "status_changes"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    attempt: Mapped[int]
    previous: Mapped[str | None] = mapped_column(String(20))
    status: Mapped[str] = mapped_column(String(20))
    time: Mapped[datetime] = mapped_column(UtcDateTime)
    actor: Mapped[str] = mapped_column(String(300))  # 'user:3 a@b.c', 'worker:gpu1', 'reaper'
    reason: Mapped[str] = mapped_column(Text)


class Metric(Model):
    """One metric of one epoch; a resumed attempt that trains an epoch again replaces it."""

    __tablename__ = "metrics"
    __table_args__ = (UniqueConstraint("job_id", "name", "epoch"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    name: Mapped[str] = mapped_column(String(100))
    epoch: Mapped[int]
    step: Mapped[int | None] = mapped_column(BigInteger)
    value: Mapped[float] = mapped_column(Float(53))
    time: Mapped[datetime] = mapped_column(UtcDateTime)


class LoadSample(Model):
    """What an attempt's processes took of their machine at a moment."""

    __tablename__ = "load_samples"
    __table_args__ = (Index("ix_load_samples_job_id_id", "job_id", "id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    time: Mapped[datetime] = mapped_column(UtcDateTime)
    cpu_percent: Mapped[float] = mapped_column(Float(53))  # of one core: 200 is two whole ones
    memory_bytes: Mapped[int] = mapped_column(BigInteger)
    gpu_percent: Mapped[float | None] = mapped_column(Float(53))
    gpu_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)


class Export(Model):
    """A person's wish to have a job's best model in another form, and what came of it."""

    __tablename__ = "exports"

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    format: Mapped[str] = mapped_column(String(20))  # onnx | torchscript
    status: Mapped[str] = mapped_column(String(20))  # requested | running | completed | failed
    artifact: Mapped[str | None] = mapped_column(String(300))  # its name, when completed
    largest_difference: Mapped[float | None] = mapped_column(
        Float(53)
    )  # from the original's output
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)  # {kind, message, hint}
    requested_by: Mapped[str] = mapped_column(String(300))  # an actor, as in the history
    requested_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Artifact(Model):
    """A file below the job's output folder."""

    __tablename__ = "artifacts"
    __table_args__ = (UniqueConstraint("job_id", "name"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    name: Mapped[str] = mapped_column(String(300))  # relative to the output folder
    kind: Mapped[str] = mapped_column(String(30))
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class JobEvent(Model):
    """What browsers are told: a log in the order of ids, written with what it tells of.

    An attempt's superseded progress is deleted, so the table grows with epochs and log lines.
    """

    __tablename__ = "job_events"
    __table_args__ = (
        Index("ix_job_events_job_id_id", "job_id", "id"),
        Index("ix_job_events_project_id_id", "project_id", "id"),
        # A job has one progress event at most, among any number of others.
        Index(
            "ix_job_events_progress",
            "job_id",
            postgresql_where=text("type = 'progress'"),
            sqlite_where=text("type = 'progress'"),
        ),
        Index(
            "ix_job_events_load",  # and one load event
            "job_id",
            postgresql_where=text("type = 'load'"),
            sqlite_where=text("type = 'load'"),
        ),
        {"sqlite_autoincrement": True},  # an id is never used twice, also after deletions
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    project_id: Mapped[int]
    attempt: Mapped[int]
    type: Mapped[str] = mapped_column(String(20))  # status, progress, metrics, log, artifact
    time: Mapped[datetime] = mapped_column(UtcDateTime)
    log_start: Mapped[int | None] = mapped_column(BigInteger)  # byte offset of a log event's text
    data: Mapped[dict[str, Any]] = mapped_column(Json)
