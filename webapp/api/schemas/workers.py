"""Queues and workers."""

from __future__ import annotations

from pydantic import Field

from webapp.api.schemas.base import Out, PageOut


class QueueOut(Out):
    name: str
    framework: str
    depth: int = Field(description="Jobs that wait in it")
    running: int = Field(description="Jobs of it that are being trained")
    workers: int = Field(description="Workers that serve it")
    worker_names: list[str]


class QueuePageOut(PageOut):
    items: list[QueueOut]


class WorkerJobOut(Out):
    job_id: int
    attempt: int
    device: str | None = None
    epoch: int | None = None
    epochs: int | None = None
    percent: float | None = None


class WorkerModelsOut(Out):
    version: str | None = Field(description="Of the framework's library")
    models: int = Field(description="How many it has")
    missing: list[str] = Field(description="Of the catalog; it has no such model")
    new: list[str] = Field(description="It has them, and the catalog does not")
    weights: list[str] = Field(description="Models whose published weights are there")


class GpuHolderOut(Out):
    text: str = Field(description="What follows 'GPU 1' in a sentence")
    pid: int | None = None
    process: str | None = Field(None, description="The process's name")
    memory: int | None = Field(None, description="MiB")
    worker: str | None = Field(None, description="Another worker that trains on it")
    job_id: int | None = Field(None, description="The job that it trains")


class GpuOut(Out):
    index: int
    name: str
    memory: int = Field(description="MiB")
    memory_used: int = Field(description="MiB")
    utilisation: int | None = Field(None, description="Percent")
    uuid: str = ""
    held_by: GpuHolderOut | None = Field(None, description="Who else has it, so that it waits")


class DiskOut(Out):
    name: str = Field(description="outputs or data_cache")
    volume: int | None = Field(None, description="The same for what shares a volume of the worker")
    total: int = Field(description="Bytes of the volume that it lies on")
    free: int = Field(description="Bytes")
    low: bool = Field(description="Less than 5 % or 10 GB is free")


class WorkerOut(Out):
    name: str
    host: str
    frameworks: list[str]
    versions: dict[str, str]
    models: dict[str, WorkerModelsOut] = Field(
        default_factory=dict, description="By framework, what it really has"
    )
    device: str
    gpu: list[GpuOut] = Field(description="Each that it uses")
    slots: int = Field(description="How many jobs it trains at once")
    busy: int
    held: int = Field(0, description="Slots that are free and not usable: others have their GPUs")
    jobs: list[WorkerJobOut]
    cpu_percent: float | None = None
    memory_percent: float | None = None
    disks: list[DiskOut] = Field(default_factory=list)
    last_seen: str
    status: str = Field(description="online, or draining: it takes no new job")


class WorkerPageOut(PageOut):
    items: list[WorkerOut]
