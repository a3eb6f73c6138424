"""`subprocess` mode: this host's recorder has exports made by a tool process of its own."""

from __future__ import annotations

import queue
import threading
from typing import Any

from adapters.contract import ErrorKind
from modelyard.settings import Settings
from modelyard.tool_process import EXPORTS, ToolError, ToolProcess
from webapp.services import exports


class LocalExports:
    """Makes one export after the other, beside what trains."""

    def __init__(self, settings: Settings) -> None:
        self._tool = ToolProcess(settings, purpose=EXPORTS)
        self._ended: queue.SimpleQueue[tuple[int, dict[str, Any]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def give_up_orphans(self) -> None:
        """End what was being made when the last recorder of this host died."""
        for export, _ in exports.active(exports.RUNNING):
            exports.end(export.id, error=_error("The recorder on this host was lost"))

    def step(self) -> None:
        """Record what has ended and begin what is wanted; does not wait."""
        while not self._ended.empty():
            export_id, answer = self._ended.get()
            exports.end(export_id, answer=answer)
        if self._thread is not None and self._thread.is_alive():
            return
        for export, job in exports.active(exports.REQUESTED)[:1]:
            request = exports.export_request(job, export)
            if exports.begin(export.id):
                self._thread = threading.Thread(
                    target=self._make, args=(export.id, request), name="export", daemon=True
                )
                self._thread.start()

    def stop(self) -> None:
        """End the tool process, whatever it is at."""
        self._tool.close()

    def _make(self, export_id: int, request: dict[str, Any]) -> None:
        try:
            answer = self._tool.ask(request)
        except ToolError as error:
            answer = {"error": _error(str(error))}
        self._ended.put((export_id, answer))


def _error(message: str) -> dict[str, str]:
    return {"kind": str(ErrorKind.CHILD_DIED), "message": message, "hint": "Ask for it again."}
