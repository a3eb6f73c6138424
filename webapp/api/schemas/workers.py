"""Queues and workers."""

from __future__ import annotations

from typing import Any

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


class WorkerOut(Out):
    name: str
    host: str
    frameworks: list[str]
    versions: dict[str, str]
    device: str
    gpu: list[dict[str, Any]] = Field(description="Name, memory and utilisation of each it uses")
    slots: int = Field(description="How many jobs it trains at once")
    busy: int
    jobs: list[WorkerJobOut]
    cpu_percent: float | None = None
    memory_percent: float | None = None
    last_seen: str
    status: str = Field(description="online, or draining: it takes no new job")


class WorkerPageOut(PageOut):
    items: list[WorkerOut]
