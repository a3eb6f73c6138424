"""Models that the store has, for the tool processes of a worker, and exports on their way back.

A tool process decodes strangers' images and knows no credentials; so what it reads is fetched
before it is asked, and what it makes is sent after it has answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapters.wire import AskKind, job_folder
from modelyard.settings import Settings
from modelyard.store_process import ask
from modelyard.stored_copies import read_state, sweep
from workers.stored import KEPT_SECONDS

FETCH_SECONDS = 100.0  # a person waits for a prediction, and others for the lane
SEND_SECONDS = 600.0


class StoredModels:
    """What one lane of requests has of the store; without a store, nothing."""

    def __init__(self, settings: Settings) -> None:
        self._store = settings.store
        self._outputs = settings.outputs
        self._had: set[tuple[int, int]] = set()  # jobs and attempts

    def have(self, request: Mapping[str, Any]) -> None:
        """Have the best model of a request's job on this host. Raises StorageError."""
        if self._store is None:
            return
        job_id, attempt, folder = self._of(request)
        if (job_id, attempt) in self._had and any(folder.glob("checkpoints/best*")):
            return
        state = read_state(folder)
        if state is None or not state.whole or state.attempt < attempt:
            sweep(folder.parent, idle_seconds=KEPT_SECONDS)
            ask(self._store, "best", job=job_id, folder=str(folder), timeout_seconds=FETCH_SECONDS)
        self._had.add((job_id, attempt))

    def keep(self, request: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """Send what an export has made. Raises StorageError."""
        if self._store is None or request["kind"] != AskKind.EXPORT or "artifact" not in answer:
            return
        job_id, _, folder = self._of(request)
        ask(
            self._store, "export", job=job_id, folder=str(folder), format=request["format"],
            name=answer["artifact"]["name"], timeout_seconds=SEND_SECONDS,
        )  # fmt: skip

    def _of(self, request: Mapping[str, Any]) -> tuple[int, int, Path]:
        job_id, attempt = int(request["job"]["id"]), int(request["job"]["attempt"])
        return job_id, attempt, self._outputs / job_folder(job_id)
