"""An attempt's way from the store and back, on a host that shares no outputs folder.

Before its child starts it has in its folder what it goes on from, unless this host has it itself.
While it trains, workers.upload sends what it makes. It has ended when all of that is in the store,
and a job is called completed no sooner.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from adapters.contract import ErrorKind, TrainingError, TrainingJob
from adapters.data.unpack import in_words
from adapters.wire import EventType, Outcome
from modelyard.settings import Settings
from modelyard.storage import RETRY_PAUSES_SECONDS, ObjectDamaged, StorageError
from modelyard.store_process import StoreDiskError, asking
from modelyard.stored_copies import LocalState, below, changing, read_state, sweep, write_state
from workers.fetching import FetchStopped
from workers.journal import Journal
from workers.leash import lease_clock
from workers.stopping import Stop, StopRequest
from workers.supervisor import Ending, EventSink
from workers.upload import Uploader

logger = logging.getLogger(__name__)

LOG_EVERY_SECONDS = 5.0
LAST_EVENTS_SECONDS = 5.0
# How long an attempt's end waits for the store. What trained to its end is worth a long wait: were
# it called failed, the next attempt would begin where the store was last heard of.
COMPLETED_SECONDS = 3600.0
ENDED_SECONDS = 120.0
AWAY_SECONDS = 15.0  # of an end that is none of success, where the store does not answer
LEAST_SHUTDOWN_SECONDS = 4.0
KEPT_SECONDS = 24 * 3600.0  # a job's folder that is in the store: it may be resumed here
_CHECK_SECONDS = 0.1


class StoredAttempt:
    """One attempt whose outputs travel through the store."""

    def __init__(
        self,
        job: TrainingJob,
        settings: Settings,
        *,
        journal: Journal,
        sink: EventSink,
        stop: StopRequest,
        lease_until: Callable[[], float],
    ) -> None:
        assert job.output_dir is not None
        assert settings.store is not None
        self._job = job
        self._folder = job.output_dir
        self._store = settings.store
        self._shutdown_grace_seconds = settings.shutdown_grace_seconds
        self._worker = settings.worker_name
        self._journal = journal
        self._sink = sink
        self._stop = stop
        self._lease_until = lease_until
        self._uploader: Uploader | None = None

    def bring(self) -> None:
        """Have in the job's folders what it goes on from, and begin to send what it makes.

        Raises TrainingError where it cannot be had, and FetchStopped.
        """
        job, given = self._job, []
        if job.resume:
            self._bring_own()
            given = list(below(self._folder))
        goes_on = any(self._folder.glob("checkpoints/last*"))
        if job.initial_job_id is not None and job.initial_dir is not None and not goes_on:
            self._again_and_again(
                lambda: self._ask("best", job=job.initial_job_id, folder=str(job.initial_dir))
            )
        with changing(self._folder):
            write_state(self._folder, LocalState(job.attempt, whole=True))
        self._uploader = Uploader(
            job,
            store=self._store,
            events=self._journal.path,
            events_start=self._journal.start_offset,
            given=given,
            may_write=self._may_write,
            tell=self._log,
        )

    def heard(self, type: EventType, data: Mapping[str, Any]) -> None:
        """Hear an event of the attempt."""
        if type == EventType.ARTIFACT and self._uploader is not None:
            self._uploader.announced(data["name"])

    def finish(self, ending: Ending) -> Ending:
        """Send what the attempt has left; return how it ended, all told."""
        if ending.outcome is None or self._uploader is None:
            return ending
        completed = ending.outcome == Outcome.COMPLETED
        patience = self._patience(ending.outcome)
        if self._uploader.finish(given_up=patience, completed=completed):
            with changing(self._folder):
                write_state(self._folder, LocalState(self._job.attempt, whole=True, stored=True))
            return ending
        self._log(f"Not all files of the job have reached the store; they lie on {self._worker}")
        return self._unstored(ending) if completed else ending

    def close(self) -> None:
        """Send the last events, if there is a store to take them."""
        if self._uploader is not None:
            hurry = self._stop.without_grace or self._stop.current == Stop.LOST
            self._uploader.close(wait_seconds=0 if hurry else LAST_EVENTS_SECONDS)
        if self._stop.current is None:
            sweep(self._folder.parent, idle_seconds=KEPT_SECONDS)

    def _bring_own(self) -> None:
        """Have the files of the newest attempt, and tell again what it measured.

        Its metrics may have been recorded in part: of a worker that was cut off, not all that it
        had written, and sent to the store, was heard. Those of its last epoch the adapter tells.
        """
        state = read_state(self._folder)
        events = self._folder / ".stored-events.jsonl"
        if state is not None and state.whole and state.attempt >= self._job.attempt - 1:
            self._tell_metrics(self._journal.path, attempt=state.attempt)  # none was elsewhere
            return
        answer = self._again_and_again(
            lambda: self._ask(
                "bring", job=self._job.id, attempt=self._job.attempt,
                folder=str(self._folder), events=str(events),
            )
        )  # fmt: skip
        for note in answer["notes"]:
            self._log(note)
        if answer["from_store"]:
            self._log(f"Going on from what attempt {answer['attempt']} has in the store")
        source = events if answer["from_store"] else self._journal.path
        self._tell_metrics(source, attempt=answer["attempt"])
        events.unlink(missing_ok=True)

    def _tell_metrics(self, events: Path, *, attempt: int) -> None:
        for data in _metrics_of(events, attempt=attempt, until=self._journal_end(events)):
            self._sink(EventType.METRICS, data)

    def _journal_end(self, events: Path) -> int | None:
        """Return where earlier attempts' events end in the file that this one appends to."""
        return self._journal.start_offset if events == self._journal.path else None

    def _again_and_again(self, do: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return an answer of the store, with patience where it does not give one."""
        for pause in (*RETRY_PAUSES_SECONDS, None):
            try:
                return do()
            except ObjectDamaged as error:
                raise TrainingError(
                    ErrorKind.CHECKPOINT_INVALID,
                    f"What the job goes on from is damaged in the store: {error}",
                    hint="Clone the job and start the clone: it trains from the beginning.",
                ) from error
            except StoreDiskError as error:
                raise TrainingError(
                    ErrorKind.DISK_FULL,
                    f"The job's files cannot be written to {self._folder}: {error}",
                    hint="Free some space there, or set MODELYARD_OUTPUTS to a larger disk.",
                ) from error
            except StorageError as error:
                if pause is None:
                    raise TrainingError(
                        ErrorKind.STORAGE,
                        f"What the job goes on from cannot be fetched from the store: {error}",
                        hint="Look at the store, at MODELYARD_STORE and at the worker's "
                        "credentials.",
                    ) from error
                self._log(f"The store does not give the job's files; again in {pause:g} s: {error}")
                self._sleep(pause)
        raise AssertionError

    def _ask(self, do: str, **request: Any) -> dict[str, Any]:
        told_at = time.monotonic()
        with asking(self._store, do, **request) as process:
            for told in process.lines(unwanted=lambda: self._stop.current is not None):
                if "answer" in told:
                    answer: dict[str, Any] = told["answer"]
                    return answer
                if time.monotonic() - told_at > LOG_EVERY_SECONDS and told["total"]:
                    told_at = time.monotonic()
                    percent = 100 * told["done"] // told["total"]
                    self._log(f"Fetching the job's files: {percent} % of {in_words(told['total'])}")
        self._look_for_stop()
        raise StorageError("the process that was to fetch them ended without a word")

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._look_for_stop()
            time.sleep(_CHECK_SECONDS)

    def _look_for_stop(self) -> None:
        if self._stop.current is not None:
            raise FetchStopped

    def _may_write(self) -> bool:
        return self._stop.current != Stop.LOST and lease_clock() < self._lease_until()

    def _patience(self, outcome: Outcome) -> Callable[[], bool]:
        """Return what tells when an attempt's end has waited long enough for the store."""
        began = time.monotonic()
        whole = COMPLETED_SECONDS if outcome == Outcome.COMPLETED else ENDED_SECONDS

        def given_up() -> bool:
            stop, waited = self._stop.current, time.monotonic() - began
            if stop == Stop.LOST or self._stop.without_grace:
                return True
            if stop == Stop.SHUTDOWN:
                asked_at = self._stop.asked_at or began
                left = asked_at + self._shutdown_grace_seconds - began
                return waited > max(left, LEAST_SHUTDOWN_SECONDS)
            if outcome == Outcome.COMPLETED:
                # A person who cancels now wants the place; who cancelled too late, the model.
                return stop == Stop.KILL or waited > whole
            away = self._uploader is not None and self._uploader.failure is not None
            return waited > (AWAY_SECONDS if away else whole)

        return given_up

    def _unstored(self, ending: Ending) -> Ending:
        """Return how an attempt ended that was trained to its end, with nobody to take its files.

        The next one goes on from the end, if it is on this host, and has only to send them.
        """
        stop = self._stop.current
        if stop == Stop.LOST:
            return replace(ending, outcome=None)
        if stop is not None and stop.by_person:
            return replace(ending, outcome=Outcome.CANCELLED)
        if stop in (Stop.SHUTDOWN, Stop.PREEMPTED):
            return replace(
                ending,
                outcome=Outcome.PREEMPTED if stop == Stop.PREEMPTED else Outcome.HANDED_BACK,
            )
        error = TrainingError(
            ErrorKind.STORAGE,
            f"The job was trained, but its files did not reach the store for "
            f"{COMPLETED_SECONDS / 60:g} minutes; they lie on {self._worker} in {self._folder}",
            hint="Mend the store or the worker's way to it, then resume the job.",
        )
        return replace(ending, outcome=Outcome.FAILED, result=None, error=error.to_json())

    def _log(self, line: str) -> None:
        self._sink(EventType.LOG, {"lines": [line]})


def _metrics_of(events: Path, *, attempt: int, until: int | None) -> Iterator[dict[str, Any]]:
    """Yield the data of an attempt's metrics from a file of events, as far as it is whole."""
    if attempt == 0 or not events.exists():
        return
    size = events.stat().st_size if until is None else until
    with events.open("rb") as file:
        while file.tell() < size and (line := file.readline()):
            if b'"type":"metrics"' not in line[:200]:
                continue
            try:
                event = json.loads(line)
            except ValueError:
                continue  # cut short by the end of a worker
            if event["attempt"] == attempt:
                yield event["data"]
