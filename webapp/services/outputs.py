"""The folders that jobs write their checkpoints and artifacts to."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from adapters.wire import job_folder
from webapp.config import settings
from webapp.services.cpu import run_blocking


def output_dir(job_id: int) -> Path:
    """Return the folder of everything that a job writes."""
    return settings().outputs / job_folder(job_id)


def remove(job_ids: Iterable[int]) -> None:
    """Delete all that jobs wrote; call it after they are deleted from the database."""
    folders = [output_dir(job_id) for job_id in job_ids]
    run_blocking(_remove, folders)


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
