"""The local record of an attempt's events: numbered, and on disk before Redis hears of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapters.contract import TrainingJob
from adapters.wire import JOURNAL_NAME, Event, EventType


class Journal:
    """Appends the events of one attempt to ``events.jsonl`` beside the job's outputs."""

    def __init__(self, job: TrainingJob) -> None:
        """Open the journal of a placed job. Raises OSError where the folder cannot be written."""
        assert job.output_dir is not None
        job.output_dir.mkdir(parents=True, exist_ok=True)
        self.path: Path = job.output_dir / JOURNAL_NAME
        self._job = job
        self._seq = 0
        self._lock = threading.Lock()
        self._file = self.path.open("ab+")
        self._end_torn_line()
        self.start_offset = self._file.tell()  # earlier attempts lie before it

    def _end_torn_line(self) -> None:
        """Keep what a killed worker wrote half apart from what follows."""
        if self._file.tell() == 0:
            return
        self._file.seek(-1, os.SEEK_END)
        if self._file.read(1) != b"\n":
            self._file.write(b"\n")
            self._file.flush()

    def append(self, type: EventType, data: Mapping[str, Any]) -> Event:
        """Number an event, write it down and return it."""
        with self._lock:
            self._seq += 1
            event = Event(
                job_id=self._job.id,
                attempt=self._job.attempt,
                seq=self._seq,
                type=type,
                time=datetime.now(UTC),
                data=data,
            )
            self._file.write(event.to_json().encode() + b"\n")
            self._file.flush()
            return event

    def close(self) -> None:
        self._file.close()
