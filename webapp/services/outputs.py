"""The folders that jobs write their checkpoints and artifacts to."""

from __future__ import annotations

from pathlib import Path

from adapters.wire import job_folder
from webapp.config import settings


def output_dir(job_id: int) -> Path:
    """Return the folder of everything that a job writes."""
    return settings().outputs / job_folder(job_id)
