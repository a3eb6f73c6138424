"""What a database held at each revision that was ever released, row by row.

Written down as it was then, in the words of that revision and not of today's models: each revision
says which tables it added, and what its new columns held in the rows that were there before. A new
revision needs an entry here, or tests/integration/test_migrations.py fails.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

Rows = dict[str, list[dict[str, Any]]]

TIME = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)
LATER = TIME + timedelta(minutes=5)
EMAIL, PASSWORD = "grace@example.org", "correct horse battery"
_HASH = (
    "$argon2id$v=19$m=47104,t=1,p=1$til2lkTRm5f6huVdew49OA$"
    "s8rES37rZsmx+paNevHYz0J2UsCOQAsKC5PnwNU4xoQ"
)
_ERROR = {"kind": "child_died", "message": "The training process was killed", "hint": "Less"}
_PROGRESS = {
    "epoch": 2, "epochs": 2, "step": 10, "steps": 10, "phase": "train", "percent": 100.0,
    "eta_seconds": 0.0, "images_per_second": 81.5,
}  # fmt: skip
_KEYPOINTS = {
    "number": 1, "dimensions": 3, "names": ["nose"], "flip": [0], "skeleton": [[0, 0]],
}  # fmt: skip
_BEST = {"epoch": 2, "metric": "top1", "value": 0.75}


def _job(id: int, status: str, **columns: Any) -> dict[str, Any]:
    return {
        "id": id, "project_id": 1, "created_by": 1, "name": f"job {id} äöü 漢字",
        "notes": "line\nbreak", "tags": ["a", "ü"], "framework": "timm",
        "model_name": "resnet18", "task_type": "image_classification", "dataset_id": 1,
        "dataset_path": "/data/shades", "dataset_format": "imagefolder",
        "dataset_fingerprint": "f" * 64, "epochs": 2, "batch_size": 8, "learning_rate": 0.1 + 0.2,
        "optimizer": "adamw", "image_size": 64, "pretrained": True, "seed": 2**40,
        "device_choice": "cpu", "priority": 9, "hyperparameters": {"weight_decay": 1e-05},
        "status": status, "queue": "timm", "attempt": 1, "lost_attempts": 1, "resume": True,
        "cancel_mode": None, "worker": "gpu1", "device": "cpu", "created_at": TIME,
        "queued_at": TIME, "started_at": TIME, "completed_at": None, "progress": _PROGRESS,
        "latest_metrics": {"top1": 0.75, "val_loss": 0.5}, "best": _BEST, "accuracy": 0.75,
        "loss": 0.5, "best_model_path": "checkpoints/best.pth", "error": None, **columns,
    }  # fmt: skip


def _attempt(job_id: int, outcome: str | None, **columns: Any) -> dict[str, Any]:
    return {
        "job_id": job_id, "number": 1, "worker": "gpu1", "host": "box", "device": "cpu",
        "queued_at": TIME, "started_at": TIME, "ended_at": LATER if outcome else None,
        "outcome": outcome, "exit_code": 0 if outcome else None, "reason": None, "last_seq": 5,
        "log_size": 6, **columns,
    }  # fmt: skip


def _change(id: int, job_id: int, previous: str | None, status: str) -> dict[str, Any]:
    return {
        "id": id, "job_id": job_id, "attempt": 1, "previous": previous, "status": status,
        "time": TIME, "actor": "user:1 grace@example.org", "reason": "started",
    }  # fmt: skip


def _event(id: int, type: str, data: dict[str, Any], start: int | None = None) -> dict[str, Any]:
    return {
        "id": id, "job_id": 1, "project_id": 1, "attempt": 1, "type": type, "time": TIME,
        "log_start": start, "data": data,
    }  # fmt: skip


_REVISIONS: dict[str, Rows] = {
    "0001": {
        "projects": [
            {"id": 1, "name": "Shades", "description": "of grey", "created_at": TIME},
            {"id": 2, "name": "Empty", "description": "", "created_at": TIME},
        ],
        "users": [
            {
                "id": 1, "email": EMAIL, "name": "Grace", "password_hash": _HASH,
                "is_admin": True, "created_at": TIME,
            },
        ],
        "memberships": [{"project_id": 1, "user_id": 1, "role": "owner"}],
        "auth_sessions": [
            {
                "id": "8a6e0804-2bd0-4672-b79d-d97027f9071a", "user_id": 1,
                "refresh_jti": "6ecd8c99-4036-403d-bf84-cf8400f67836", "created_at": TIME,
                "rotated_at": TIME, "expires_at": LATER, "revoked_at": LATER,
            },
        ],
        "personal_tokens": [
            {
                "id": 1, "user_id": 1, "name": "ci", "token_hash": "a" * 64, "created_at": TIME,
                "last_used_at": TIME, "expires_at": LATER,
            },
        ],
        "datasets": [
            {
                "id": 1, "project_id": 1, "name": "shades", "path": "/data/shades",
                "format": "imagefolder", "task_type": "image_classification", "num_images": 12,
                "classes": ["dark", "light"], "splits": {"train": 8, "val": 4},
                "status": "valid", "fingerprint": "f" * 64, "created_at": TIME,
                "checked_at": LATER,
                "problems": [
                    {
                        "severity": "warning", "code": "few_images", "file": None, "line": None,
                        "message": "Only 12 images",
                    }
                ],
            },
        ],
        "jobs": [
            _job(1, "completed", completed_at=LATER),
            _job(2, "failed", completed_at=LATER, error=_ERROR),
            _job(3, "running", completed_at=None),
            _job(4, "cancelled", completed_at=LATER, cancel_mode="now"),
            _job(5, "pending", attempt=0, queued_at=None, started_at=None, worker=None),
        ],
        "attempts": [
            _attempt(1, "completed"),
            _attempt(2, "failed", exit_code=-9, reason=_ERROR["message"]),
            _attempt(3, None),
            _attempt(4, "cancelled"),
        ],
        "status_changes": [
            _change(1, 1, None, "pending"), _change(2, 1, "pending", "queued"),
            _change(3, 1, "queued", "running"), _change(4, 1, "running", "completed"),
        ],
        "metrics": [
            {
                "id": epoch, "job_id": 1, "attempt": 1, "name": "top1", "epoch": epoch,
                "step": 10 * epoch, "value": epoch / 3, "time": TIME,
            }
            for epoch in (1, 2)
        ],
        "artifacts": [
            {
                "id": 1, "job_id": 1, "attempt": 1, "name": "checkpoints/best.pth",
                "kind": "checkpoint", "size": 2**33, "sha256": "b" * 64, "created_at": TIME,
            },
        ],
        "job_events": [
            _event(1, "status", {"status": "running", "previous": "queued"}),
            _event(2, "progress", _PROGRESS),
            _event(3, "metrics", {"epoch": 1, "values": {"top1": 1 / 3}}),
            _event(4, "log", {"text": "grün\n"}, start=0),
        ],
    },
    "0002": {
        "datasets": [
            {
                "task_types": ["image_classification"], "multi_label": True, "split_seed": 2**40,
                "val_share": 0.3, "split_rule": "stratified", "keypoints": _KEYPOINTS,
                "statistics": {"sizes": [24]}, "uploaded": True,
            }
        ],
        "jobs": [
            {
                "split_seed": 2**40, "val_share": 0.3, "initial_job_id": 1,
                "decisions": {"batch_size": {"value": 8, "why": "it fits"}},
            }
            for _ in range(5)
        ],
        "attempts": [
            {}, {"failure": {"kind": "child_died", "epoch": 1, "step": 3}}, {}, {},
        ],
        "dataset_checks": [
            {
                "id": "b3f1a1f0-7a0e-4c59-9c1b-1f7f6d3a2a10", "user_id": 1, "phase": "done",
                "done": 12, "total": 12, "updated_at": TIME,
            },
        ],
        "load_samples": [
            {
                "id": 1, "job_id": 1, "attempt": 1, "time": TIME, "cpu_percent": 101.5,
                "memory_bytes": 2**33, "gpu_percent": 99.0, "gpu_memory_bytes": 2**34,
            },
        ],
        "exports": [
            {
                "id": 1, "job_id": 1, "format": "onnx", "status": "completed",
                "artifact": "exports/model.onnx", "largest_difference": 1e-06, "error": _ERROR,
                "requested_by": "user:1 grace@example.org", "requested_at": TIME,
                "completed_at": LATER,
            },
        ],
    },
    "0003": {
        "projects": [{}, {"deleted_at": LATER}],
        "jobs": [
            {
                "preempt": True, "displaced_by": 2, "output_bytes": 2**40,
                "last_checkpoint": "dropped",
            },
            {}, {}, {}, {"deleted_at": None},
        ],
        "deleted_jobs": [{"job_id": 70, "deleted_at": TIME}],
        "disk_measures": [{"name": "outputs", "size": 2**40, "measured_at": TIME}],
        "dataset_copies": [
            {
                "fingerprint": "f" * 64, "status": "ready", "path": "/data/shades",
                "format": "imagefolder", "task_type": "image_classification", "split_seed": 0,
                "val_share": 0.2, "damaged": False, "done": 12, "total": 12, "size": 4096,
                "error": "was away", "tries": 1, "try_at": TIME, "packer": "web1",
                "updated_at": TIME,
            },
        ],
    },
}  # fmt: skip

REVISIONS = tuple(_REVISIONS)


def rows_at(revision: str) -> Rows:
    """Return the rows of every table at a revision."""
    held: Rows = {}
    for number, added in _REVISIONS.items():
        if number > revision:
            break
        for table, rows in added.items():
            before = held.setdefault(table, [{} for _ in rows])
            held[table] = [{**old, **new} for old, new in zip(before, rows, strict=True)]
    return held
