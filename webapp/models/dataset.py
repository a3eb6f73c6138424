"""Data sets as they were when they were last looked at, and the looks under way."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, Float, ForeignKey, String, Text, false
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
    task_type: Mapped[str] = mapped_column(String(30))  # a TaskType: what it is made for
    task_types: Mapped[list[str] | None] = mapped_column(Json)  # what it could train
    multi_label: Mapped[bool] = mapped_column(default=False, server_default=false())
    split_seed: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    val_share: Mapped[float] = mapped_column(Float(53), default=0.2, server_default="0.2")
    split_rule: Mapped[str | None] = mapped_column(Text)  # in words; None: it came with its splits
    num_images: Mapped[int]
    classes: Mapped[list[str]] = mapped_column(Json)
    splits: Mapped[dict[str, int]] = mapped_column(Json)
    status: Mapped[str] = mapped_column(String(10))  # valid | invalid
    problems: Mapped[list[dict[str, Any]]] = mapped_column(Json)
    fingerprint: Mapped[str] = mapped_column(String(64))
    statistics: Mapped[dict[str, Any] | None] = mapped_column(Json)
    keypoints: Mapped[dict[str, Any] | None] = mapped_column(Json)  # of a pose data set
    uploaded: Mapped[bool] = mapped_column(default=False, server_default=false())  # ours to delete
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    checked_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)

    @property
    def num_classes(self) -> int:
        return len(self.classes)


class DatasetCheck(Model):
    """How far a look at a data set is, for the page that waits for it; gone a day later."""

    __tablename__ = "dataset_checks"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)  # a UUID that the client chose
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    phase: Mapped[str] = mapped_column(String(20))  # receiving | unpacking | checking | done
    done: Mapped[int] = mapped_column(BigInteger, default=0)  # bytes, files or images of the phase
    total: Mapped[int | None] = mapped_column(BigInteger)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)


class CopyStatus(StrEnum):
    """How far a data set's copy in the store is."""

    WANTED = "wanted"  # it is to be packed, for the first time or again
    PACKING = "packing"
    STORED = "stored"
    FAILED = "failed"  # it cannot be packed: its folder has changed, or cannot be read
    REMOVING = "removing"  # nothing needs it any more


class DatasetCopy(Model):
    """A data set's copy in the store, for workers that do not see its folder."""

    __tablename__ = "dataset_copies"

    fingerprint: Mapped[str] = mapped_column(String(64), primary_key=True)
    status: Mapped[str] = mapped_column(String(10))  # a CopyStatus
    path: Mapped[str] = mapped_column(Text)  # where the content was found last
    format: Mapped[str] = mapped_column(String(20))
    task_type: Mapped[str] = mapped_column(String(30))  # what it was read for when it was checked
    split_seed: Mapped[int] = mapped_column(BigInteger)
    val_share: Mapped[float] = mapped_column(Float(53))
    damaged: Mapped[bool] = mapped_column(default=False, server_default=false())
    done: Mapped[int] = mapped_column(BigInteger, default=0)  # images packed
    total: Mapped[int | None] = mapped_column(BigInteger)
    size: Mapped[int | None] = mapped_column(BigInteger)  # bytes in the store
    error: Mapped[str | None] = mapped_column(Text)  # of the last try
    tries: Mapped[int] = mapped_column(default=0)  # that failed, one after the other
    try_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # not before
    packer: Mapped[str | None] = mapped_column(String(100))  # who is at it
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)  # its last word
