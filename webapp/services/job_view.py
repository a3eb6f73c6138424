"""A job as people see it: its row, with what follows from the queue, the workers and the time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from webapp.models import Job, JobStatus, LastCheckpoint
from webapp.services.outputs import output_dir
from webapp.services.waiting import NOT_WAITING, Wait, waits

_AS_THEY_ARE = (
    "id",
    "project_id",
    "created_by",
    "name",
    "notes",
    "tags",
    "framework",
    "model_name",
    "task_type",
    "dataset_id",
    "dataset_path",
    "dataset_format",
    "dataset_fingerprint",
    "epochs",
    "batch_size",
    "learning_rate",
    "optimizer",
    "image_size",
    "pretrained",
    "initial_job_id",
    "split_seed",
    "val_share",
    "seed",
    "priority",
    "preempt",
    "displaced_by",
    "hyperparameters",
    "status",
    "queue",
    "attempt",
    "cancel_mode",
    "worker",
    "best",
    "accuracy",
    "loss",
    "error",
    "best_model_path",
    "created_at",
    "queued_at",
    "started_at",
    "completed_at",
    "output_bytes",
)


def views(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Return jobs in the API's form."""
    waiting = waits(jobs)
    return [_view(job, waiting.get(job.id, NOT_WAITING)) for job in jobs]


def view(job: Job) -> dict[str, Any]:
    """Return a job in the API's form."""
    return views([job])[0]


def progress(job: Job) -> dict[str, Any]:
    """Return how far a job is; time left only while there is some to be left."""
    told = job.progress or {}
    runs = job.status in (JobStatus.RUNNING, JobStatus.CANCELLING)
    done = job.status == JobStatus.COMPLETED
    return {
        "epoch": told.get("epoch") or 0,
        "epochs": job.epochs,
        "step": told.get("step") or 0,
        "steps": told.get("steps"),
        "phase": told.get("phase"),
        "percent": 100.0 if done else told.get("percent") or 0.0,
        "eta_seconds": told.get("eta_seconds") if runs else None,
        "images_per_second": told.get("images_per_second"),
        "device_memory_bytes": told.get("device_memory_bytes"),
    }


def _is_resumable(job: Job) -> bool:
    """Tell whether a job stopped before its end, and its last checkpoint was not removed since."""
    stopped = job.status in (JobStatus.FAILED, JobStatus.CANCELLED) and job.attempt > 0
    return stopped and job.last_checkpoint == LastCheckpoint.KEPT


def _batch_size_used(job: Job) -> int | None:
    """Return the batch size that is trained with, None until the worker has found it."""
    found = (job.decisions or {}).get("batch_size")
    return int(found["value"]) if found else job.batch_size or None


def _view(job: Job, wait: Wait) -> dict[str, Any]:
    seen = {name: getattr(job, name) for name in _AS_THEY_ARE}
    return seen | {
        "device": job.device or job.device_choice,
        "device_requested": job.device_choice,
        "queue_position": wait.position,
        "waiting_reason": wait.reason,
        "expected_start": wait.expected_start,
        "progress": progress(job),
        "metrics": job.latest_metrics or {},
        "decisions": job.decisions or {},
        "batch_size_used": _batch_size_used(job),
        "output_dir": str(output_dir(job.id)),
        "resumable": _is_resumable(job),
    }
