"""The local record of an attempt's events: numbered, and on disk before Redis hears of them."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapters.contract import TrainingJob
from adapters.wire import JOURNAL_NAME, Event, EventType

RESERVE_BYTES = 256 * 1024


class Journal:
    """Appends the events of one attempt to ``events.jsonl`` beside the job's outputs.

    A little space is kept, so that an attempt which ends for want of it can still say so.
    """

    def __init__(self, job: TrainingJob) -> None:
        """Open the journal of a placed job. Raises OSError where the folder cannot be written."""
        assert job.output_dir is not None
        job.output_dir.mkdir(parents=True, exist_ok=True)
        self.path: Path = job.output_dir / JOURNAL_NAME
        self._job = job
        self.seq = 0  # of the last event
        self._lock = threading.Lock()
        # Without a name: it is gone with this process, however that ends.
        self._reserve = tempfile.TemporaryFile(dir=job.output_dir, buffering=0)  # noqa: SIM115
        self._reserve.write(bytes(RESERVE_BYTES))
        self._file = self.path.open("ab+", buffering=0)
        self._end_torn_line()
        self.start_offset = self._file.tell()  # earlier attempts lie before it

    def _end_torn_line(self) -> None:
        """Keep what a killed worker wrote half apart from what follows."""
        if self._file.tell() == 0:
            return
        self._file.seek(-1, os.SEEK_END)
        if self._file.read(1) != b"\n":
            self._file.write(b"\n")

    def append(self, type: EventType, data: Mapping[str, Any]) -> Event:
        """Number an event, write it down and return it.

        Raises OSError where it cannot be written: it is then not there, and the next event, for
        which the reserve has been given up, takes its number.
        """
        with self._lock:
            event = Event(
                job_id=self._job.id,
                attempt=self._job.attempt,
                seq=self.seq + 1,
                type=type,
                time=datetime.now(UTC),
                data=data,
            )
            self._write(event.to_json().encode() + b"\n")
            self.seq += 1
            return event

    def _write(self, line: bytes) -> None:
        begin = os.fstat(self._file.fileno()).st_size
        try:
            while line:
                line = line[self._file.write(line) or 0 :]
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(begin)
            self._reserve.close()
            raise

    def close(self) -> None:
        self._reserve.close()
        self._file.close()
