"""What people call the things that a job refers to by number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from sqlalchemy import select

from adapters.data.description import Severity
from webapp.extensions import db
from webapp.models import Dataset, Job, User


def dataset_names(jobs: Sequence[Job]) -> dict[int, str]:
    """Return the name of each job's data set, or of its unregistered folder, by the job's id."""
    wanted = {job.dataset_id for job in jobs if job.dataset_id is not None}
    query = select(Dataset.id, Dataset.name).where(Dataset.id.in_(wanted))
    known = {row.id: row.name for row in db.session.execute(query)} if wanted else {}
    return {job.id: known.get(job.dataset_id, PurePath(job.dataset_path).name) for job in jobs}


def creator_names(jobs: Sequence[Job]) -> dict[int, str]:
    """Return who created each job by the job's id; jobs of people who are gone are left out."""
    wanted = {job.created_by for job in jobs if job.created_by is not None}
    query = select(User.id, User.name).where(User.id.in_(wanted))
    known = {row.id: row.name for row in db.session.execute(query)} if wanted else {}
    return {job.id: known[job.created_by] for job in jobs if job.created_by in known}


def dataset_warnings(job: Job) -> list[str]:
    """Return what is odd in a job's data set, as far as it is registered and unchanged."""
    dataset = db.session.get(Dataset, job.dataset_id) if job.dataset_id is not None else None
    if dataset is None or dataset.fingerprint != job.dataset_fingerprint:
        return []
    return [p["message"] for p in dataset.problems if p["severity"] == Severity.WARNING]
