"""The one training task: from a message to a result, by way of a lease and a child."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import redis
from celery import states
from celery.app.task import Task
from celery.exceptions import Ignore

from adapters import wire
from adapters.contract import ErrorKind, TrainingError, TrainingJob
from adapters.files import is_disk_full
from adapters.wire import Event, EventType, Outcome, job_folder
from modelyard.stored_copies import claim
from workers import runtime
from workers.attempt import introduction, place, run_attempt
from workers.control import Attempt
from workers.fresh_redis import let_others_renew
from workers.journal import Journal
from workers.lease import Lease
from workers.publisher import Publisher
from workers.stopping import Stop
from workers.stored import StoredAttempt
from workers.supervisor import Ending

logger = logging.getLogger(__name__)

ONLOOKER_INTERVAL_SECONDS = 1.0
FLUSH_SECONDS = 2.0
SLOT_SECONDS = 15.0  # a task that came finds a slot at once, unless somebody else was faster


class TrainingFailed(Exception):
    """What Celery's result backend keeps of a failed job; the whole error is in the database."""


class TrainingTask(Task):
    """The base of the training task."""

    Request = "workers.request:TrainingRequest"
    Strategy = "workers.room:strategy"


def train(task: Task, message: Mapping[str, Any]) -> dict[str, Any]:
    """Train the job of a message; the body of the Celery task.

    Returns the result as JSON. Raises TrainingFailed where the attempt failed, and Ignore where
    it was cancelled, handed back, or is not this worker's to train.
    """
    here = runtime.current()
    job = TrainingJob.from_message(message)
    device = here.slots.take(job_id=job.id, wait_seconds=SLOT_SECONDS)
    if device is None:
        # The database calls it queued and the broker has it no more: it is sent again.
        logger.warning("job %s: somebody else has this worker's devices", job.id)
        raise Ignore
    try:
        ending = _train_on(device, job, task, here)
        if ending.held:
            here.gpus.disown(ending.held.pids)  # before the slot is anybody's
    finally:
        here.slots.give_back(device)
    return _answer(task, ending)


def _train_on(device: str, job: TrainingJob, task: Task, here: runtime.Runtime) -> Ending:
    """Train a job on a device under its lease. Raises Ignore where it is somebody else's."""
    lease = Lease(here.redis, job, worker=here.name)
    let_others_renew(here.redis, job, here.settings.outputs / job_folder(job.id))
    if not lease.acquire():
        # Delivered twice, cancelled while it waited, or given up: each is somebody else's now.
        logger.info("job %s attempt %s: not ours to train", job.id, job.attempt)
        raise Ignore
    attempt = here.control.add(job, task_id=task.request.id, lease=lease, device=device)
    if here.shutting_down:  # it came in the last moment
        here.control.shut_down()
    try:
        return AttemptRun(task, attempt, here).run()
    finally:
        here.control.remove(attempt)
        _release(lease)


class AttemptRun:
    """One attempt on this worker: its journal, its publisher, its supervisor."""

    def __init__(self, task: Task, attempt: Attempt, here: runtime.Runtime) -> None:
        self._task_id = task.request.id
        self._app = task.app
        self._celery_hostname = task.request.hostname
        self._attempt = attempt
        self._here = here
        settings = here.settings
        folder = settings.outputs / job_folder(attempt.job.id)
        self._job = place(attempt.job, settings, output_dir=folder, device=attempt.device)
        self._told_onlookers = 0.0

    def run(self) -> Ending:
        try:
            if self._here.settings.store:
                claim(self._here.settings.outputs / job_folder(self._job.id))
            journal = Journal(self._job)
        except OSError as error:
            return self._say_unwritten(error)
        publisher = Publisher(
            self._attempt.lease,
            journal.path,
            start_offset=journal.start_offset,
            on_published=self._tell_onlookers,
        )

        self._attempt.publish_again = publisher.publish_again
        stored: StoredAttempt | None = None

        def sink(type: EventType, data: Mapping[str, Any]) -> None:
            if type == EventType.PROGRESS:
                self._attempt.progress = dict(data)
            journal.append(type, data)
            publisher.notify()
            if stored is not None:
                stored.heard(type, data)

        if self._here.settings.store:
            stored = StoredAttempt(
                self._job,
                self._here.settings,
                journal=journal,
                sink=sink,
                stop=self._attempt.stop,
                lease_until=lambda: self._attempt.lease.until,
            )
        try:
            return run_attempt(
                self._job,
                template=self._here.template,
                settings=self._here.settings,
                sink=sink,
                stop=self._attempt.stop,
                lease_until=lambda: self._attempt.lease.until,
                stored=stored,
            )
        except OSError as error:
            if not is_disk_full(error):
                raise
            self._publish_all(publisher)
            return self._say_unwritten(error, after=journal.seq)
        finally:
            if stored is not None:
                stored.close()
            self._publish_all(publisher)
            journal.close()

    def _publish_all(self, publisher: Publisher) -> None:
        """Wait, also while Redis is away: a result that it has not heard is not lost."""
        while not publisher.flush(wait_seconds=FLUSH_SECONDS):
            if self._here.shutting_down or self._attempt.stop.current == Stop.LOST:
                publisher.give_up()
                return

    def _say_unwritten(self, error: OSError, *, after: int = 0) -> Ending:
        """Fail an attempt whose journal cannot be written, after so many events that are in it."""
        failure = TrainingError(
            ErrorKind.DISK_FULL if is_disk_full(error) else ErrorKind.UNSUPPORTED,
            f"Worker {self._here.name} cannot write to {self._job.output_dir}: {error.strerror}",
            hint="Make space there, or see that MODELYARD_OUTPUTS is mounted and may be written.",
        )
        ending = Ending(Outcome.FAILED, error=failure.to_json())
        started = introduction(self._job, self._here.settings)
        said = [(EventType.STARTED, started), (EventType.FINISHED, ending.to_json())]
        events = [
            Event(self._job.id, self._job.attempt, seq, type, datetime.now(UTC), data)
            for seq, (type, data) in enumerate(said[1 if after else 0 :], start=after + 1)
        ]
        self._attempt.lease.publish([event.to_json().encode() for event in events])
        return ending

    def _tell_onlookers(self, event: Event) -> None:
        """Show the progress to any Celery client and to Flower, about once a second."""
        if event.type != EventType.PROGRESS:
            return
        if time.monotonic() - self._told_onlookers < ONLOOKER_INTERVAL_SECONDS:
            return
        self._told_onlookers = time.monotonic()
        progress = dict(event.data)
        try:
            self._app.backend.store_result(self._task_id, progress, "PROGRESS")
            with self._app.events.default_dispatcher(hostname=self._celery_hostname) as events:
                events.send(
                    "task-progress",
                    uuid=self._task_id,
                    name=wire.TRAIN_TASK,
                    result=_brief(progress),
                )
        except Exception as error:  # of kombu or Celery, too: it must not end the publisher
            logger.debug("onlookers miss a beat: %s", error)


def _answer(task: Task, ending: Ending) -> dict[str, Any]:
    """Say to Celery's clients what the events say to everyone else."""
    if ending.outcome == Outcome.COMPLETED:
        return dict(ending.result or {})
    if ending.outcome == Outcome.FAILED:
        raise TrainingFailed((ending.error or {}).get("message", "failed"))
    status = states.REVOKED if ending.outcome == Outcome.CANCELLED else states.RETRY
    if ending.outcome is not None:
        task.update_state(state=status, meta=dict(ending.result or {}))
    raise Ignore


def _brief(progress: Mapping[str, Any]) -> str:
    text = f"epoch {progress['epoch']}/{progress['epochs']}, {progress['percent']} %"
    if progress.get("eta_seconds") is not None:
        text += f", {progress['eta_seconds']:.0f} s left"
    return text


def _release(lease: Lease) -> None:
    try:
        lease.release()
    except redis.RedisError as error:
        logger.warning("the lease will end by itself: %s", error)
