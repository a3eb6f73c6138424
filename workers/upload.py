"""Sends what an attempt makes to the store, beside it: training never waits for the store.

A round sends the files that changed, then the events, then the index that names them all: so a
checkpoint that another attempt finds never speaks of an epoch whose metrics are not there. The
files of a round are those of one moment: see workers.snapshot.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from adapters.contract import TrainingJob
from modelyard.storage import FileChanged, StorageError, file_sha256, open_store
from modelyard.stored_copies import put_events
from modelyard.stored_outputs import Index, StoredFile, StoredOutputs, object_key
from workers.snapshot import Held, StillChanging, Version, hold, version_of

logger = logging.getLogger(__name__)

ROUND_SECONDS = 30.0  # between rounds where no new checkpoint calls for one
MOST_PAUSE_SECONDS = 120.0
FIRST_RETRY_SECONDS = 1.0
LAST_RETRY_SECONDS = 20.0
_CHANGING_SECONDS = 0.2
_POLL_SECONDS = 0.1


class _Again(Exception):
    """The round is to be begun anew: a file changed meanwhile, or the last ones are wanted."""


class Uploader:
    """The side thread of one attempt that sends its files."""

    def __init__(
        self,
        job: TrainingJob,
        *,
        store: str,
        events: Path,
        events_start: int,
        given: Collection[str] = (),
        may_write: Callable[[], bool] = lambda: True,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Begin to follow a placed job's folder.

        ``events``: the file of its events, which are its own from ``events_start`` on. ``given``:
        files that were there, whole, when it began. ``may_write``: whether the attempt is still
        ours. ``tell`` takes lines for the job's log.
        """
        assert job.output_dir is not None
        self._job = job
        self._url = store
        self._folder: Path = job.output_dir
        self._scratch: Path = job.output_dir / ".uploading"
        self._events = events
        self._events_start = self._events_sent = events_start
        self._may_write = may_write
        self._tell = tell
        self._announced = set(given)
        self._sent: dict[str, tuple[Version, StoredFile]] = {}
        self._written: Index | None = None
        self._replaced: set[str] = set()  # objects that the index before named, and no more
        self._outputs: StoredOutputs | None = None
        self._wake = threading.Event()  # there is something to send
        self._urgent = threading.Event()  # no pause is to be kept
        self._everything, self._complete = threading.Event(), threading.Event()
        self._closing, self._gave_up = threading.Event(), threading.Event()
        self._drops_earlier = False
        self.failure: str | None = None  # why the store takes nothing just now
        self._thread = threading.Thread(target=self._follow, name=f"upload-{job.id}", daemon=True)
        self._wake.set()
        self._thread.start()

    def announced(self, name: str) -> None:
        """Hear that a file below the job's folder is complete."""
        self._announced.add(name)
        self._wake.set()

    def finish(self, *, given_up: Callable[[], bool], completed: bool) -> bool:
        """Send all that the folder holds; nothing is written in it any more.

        Returns whether it is in the store; False once it is ``given_up``. Of a ``completed`` job
        the earlier attempts' files are then removed.
        """
        self._drops_earlier = completed
        self._everything.set()
        self._hurry()
        while not self._complete.wait(_POLL_SECONDS):
            if given_up() or not self._thread.is_alive():
                return False
        return True

    def close(self, *, wait_seconds: float) -> None:
        """Send the last events if that can be done in time, and end."""
        self._closing.set()
        self._hurry()
        self._thread.join(wait_seconds)
        self._gave_up.set()
        self._hurry()

    def _hurry(self) -> None:
        self._urgent.set()
        self._wake.set()

    def _follow(self) -> None:
        retry_seconds = FIRST_RETRY_SECONDS
        while not self._gave_up.is_set():
            self._wake.wait(ROUND_SECONDS)
            self._wake.clear()
            self._urgent.clear()  # before it is looked what is wanted: what comes now sets it again
            closing, began = self._closing.is_set(), time.monotonic()
            try:
                ours = self._round()
                self._well()
            except (_Again, StillChanging, FileChanged):
                self._retry_in(_CHANGING_SECONDS)
                continue
            except Exception as error:  # of whatever library: training does not depend on it
                self._ill(error)
                self._retry_in(retry_seconds)
                retry_seconds = min(2 * retry_seconds, LAST_RETRY_SECONDS)
                continue
            retry_seconds = FIRST_RETRY_SECONDS
            if closing:
                break
            if ours:  # it is at work half of the time at most
                self._urgent.wait(min(time.monotonic() - began, MOST_PAUSE_SECONDS))
            else:
                self._retry_in(_CHANGING_SECONDS)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _retry_in(self, seconds: float) -> None:
        self._urgent.wait(seconds)
        self._wake.set()

    def _round(self) -> bool:
        """Send what changed; return False where the attempt is not ours just now.

        Raises StorageError, OSError, _Again, StillChanging and FileChanged.
        """
        everything = self._everything.is_set()
        if self._outputs is None:
            self._outputs = StoredOutputs(open_store(self._url), self._job.id)
        if not self._ours():
            return False
        announced = None if everything else self._announced
        sent = {name: version for name, (version, _) in self._sent.items()}
        held, names = hold(self._folder, self._scratch, announced=announced, but=sent)
        for one in held:
            if self._everything.is_set() != everything:
                raise _Again
            self._send(self._outputs, one)
        self._send_events(self._outputs)
        if not self._ours():
            return False
        self._write_index(self._outputs, names)
        if everything and not self._complete.is_set():
            self._clear_up(self._outputs)
            self._complete.set()
        return True

    def _ours(self) -> bool:
        return not self._gave_up.is_set() and self._may_write()

    def _send(self, outputs: StoredOutputs, one: Held) -> None:
        before = version_of(one.link)
        sha256 = file_sha256(one.link)
        known = self._sent.get(one.name)
        if known is None or known[1].sha256 != sha256:
            prefix = outputs.attempt_prefix(self._job.attempt)
            key = object_key(prefix, one.name, sha256=sha256)
            size = outputs.store.put(one.link, key, sha256=sha256).size
            file = StoredFile(one.name, size, sha256, key, one.modified)
        else:
            file = known[1]
        if version_of(one.link) != before:
            raise _Again  # it is written in place
        self._sent[one.name] = (one.version, file)
        one.link.unlink()

    def _send_events(self, outputs: StoredOutputs) -> None:
        if self._events.stat().st_size > self._events_sent:
            self._events_sent = put_events(
                outputs.store,
                outputs.events_key(self._job.attempt),
                self._events,
                start=self._events_start,
                scratch=self._scratch / "events.gz",
            )

    def _write_index(self, outputs: StoredOutputs, names: Collection[str]) -> None:
        self._sent = {name: sent for name, sent in self._sent.items() if name in names}
        files = {name: file for name, (_, file) in self._sent.items()}
        index, before = Index(files, self._job.attempt), self._written
        if index == before or (before is None and not files):
            return  # an attempt that has made nothing hides nothing of those before it
        outputs.write(index)
        self._written = index
        named = {file.key for file in files.values()}
        # Whoever has read the index before may be reading what it names: that goes the next time.
        due, self._replaced = self._replaced - named, set()
        if before is not None:
            self._replaced = {file.key for file in before.files.values()} - named
        for key in due:
            with suppress(StorageError):  # what is left now goes at the attempt's end
                outputs.store.delete(key)

    def _clear_up(self, outputs: StoredOutputs) -> None:
        """Remove what no index names any more: nobody needs it, and nobody else would."""
        if self._written is None:
            return
        try:
            kept = [file.key for file in self._written.files.values()]
            outputs.drop_objects(outputs.attempt_prefix(self._job.attempt), keep=kept)
            earlier = [number for number in outputs.attempts() if number < self._job.attempt]
            # One is kept while the job may go on: should a file of this attempt be damaged.
            for number in earlier if self._drops_earlier else earlier[1:]:
                outputs.drop_attempt(number)
        except StorageError as error:
            logger.warning("job %s: old files stay in the store: %s", self._job.id, error)

    def _ill(self, error: Exception) -> None:
        if not isinstance(error, StorageError | OSError):
            logger.error("job %s: an upload failed", self._job.id, exc_info=error)
        if self.failure is None:
            logger.warning("job %s: its files wait for the store: %s", self._job.id, error)
            self._say(f"The job's files wait on this worker, the store does not take them: {error}")
        self.failure = str(error)

    def _well(self) -> None:
        if self.failure is not None:
            logger.info("job %s: the store takes its files again", self._job.id)
            self._say("The store takes the job's files again")
        self.failure = None

    def _say(self, line: str) -> None:
        if self._ours() and not self._closing.is_set():
            self._tell(line)
