"""Celery's record of a running task, with the progress of its training added.

Makes `celery -A workers.app inspect active` and every client of it show how far a job is.
"""

from __future__ import annotations

from typing import Any

from celery.worker.request import Request

from workers import runtime


class TrainingRequest(Request):
    def info(self, safe: bool = False) -> dict[str, Any]:
        """Return what `inspect` shows; extends celery.worker.request.Request.info."""
        info: dict[str, Any] = super().info(safe=safe)
        attempt = runtime.find_attempt(self.id)
        if attempt is not None:
            info["device"] = attempt.device
            info["progress"] = dict(attempt.progress)
        return info
