"""What takes how much room, and how much is left."""

from __future__ import annotations

from pydantic import Field

from webapp.api.schemas.base import Out, UtcTime


class UseOut(Out):
    name: str = Field(
        description="outputs, uploads, data_cache, weights, database, event_log (in the database), "
        "redis_memory, store_jobs or store_datasets"
    )
    size: int = Field(description="Bytes")
    measured_at: UtcTime = Field(description="Folders are counted once a day and by `modelyard gc`")


class VolumeOut(Out):
    names: list[str] = Field(description="What lies on it")
    path: str = Field(description="Of the first of these on the web host")
    total: int = Field(description="Bytes")
    free: int = Field(description="Bytes")
    low: bool = Field(description="Less than 5 % or 10 GB is free")


class ProjectUseOut(Out):
    project_id: int
    name: str
    jobs: int
    size: int = Field(description="Bytes that its jobs' files take")


class StorageOut(Out):
    uses: list[UseOut]
    volumes: list[VolumeOut] = Field(description="Of the web host; see workers for theirs")
    projects: list[ProjectUseOut] = Field(description="Those you may see, the largest first")
