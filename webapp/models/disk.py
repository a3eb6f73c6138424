"""What takes how much of the web host's disks, as it was last measured."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from webapp.extensions import Model
from webapp.models.columns import UtcDateTime, utc_now


class DiskMeasure(Model):
    __tablename__ = "disk_measures"

    name: Mapped[str] = mapped_column(String(30), primary_key=True)  # outputs, uploads, weights, …
    size: Mapped[int] = mapped_column(BigInteger)  # bytes
    measured_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
