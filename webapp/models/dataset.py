"""Data sets as they were when they were last looked at."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from webapp.extensions import Model
from webapp.models.columns import Json, UtcDateTime, utc_now


class Dataset(Model):
    __tablename__ = "datasets"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(
        ForeignKey("projects.id", ondelete="CASCADE"), index=True
    )
    name: Mapped[str] = mapped_column(String(100))
    path: Mapped[str] = mapped_column(Text)  # absolute, links resolved, below a data root
    format: Mapped[str] = mapped_column(String(20))  # a DatasetFormat
    task_type: Mapped[str] = mapped_column(String(30))  # a TaskType
    num_images: Mapped[int]
    classes: Mapped[list[str]] = mapped_column(Json)
    splits: Mapped[dict[str, int]] = mapped_column(Json)
    status: Mapped[str] = mapped_column(String(10))  # valid | invalid
    problems: Mapped[list[dict[str, Any]]] = mapped_column(Json)
    fingerprint: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    checked_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)

    @property
    def num_classes(self) -> int:
        return len(self.classes)
