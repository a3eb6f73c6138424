"""The ways a job reaches what trains it, chosen by TRAINING_EXECUTION_MODE.

Behind each are the same supervisor, child, adapter and events. `api` (training services over
HTTP) takes its place in ``EXECUTORS`` when it comes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import redis
from flask import current_app
from sqlalchemy import Row

from adapters import wire
from adapters.contract import DatasetFormat, DeviceChoice, TaskType, TrainingJob
from modelyard.settings import SettingsError
from webapp.models import Job
from webapp.services import broker, dataset_copies, message_order
from webapp.services.errors import Unavailable

logger = logging.getLogger(__name__)

_CANCEL_TTL_SECONDS = 7 * 24 * 3600


class Executor(Protocol):
    def start(self, job: Job) -> None:
        """Hand over the job's present attempt. Raises Unavailable; may be called twice."""

    def forget(self, job: Job, *, priority: int) -> None:
        """Take back what was handed over with a priority that the job no longer has.

        Raises Unavailable.
        """

    def cancel(self, job: Job) -> None:
        """Make the job's present attempt stop as ``job.cancel_mode`` says, or never start."""

    def forget_deleted(self, attempts: Mapping[int, int]) -> None:
        """Let nobody train these jobs (id: attempt) any more, however late their message comes."""

    def healthy(self) -> None:
        """Raise Unavailable, naming what does not answer."""


class CeleryExecutor:
    """A message on the framework's queue; cancels and fences are keys that workers look at."""

    def start(self, job: Job) -> None:
        if not dataset_copies.at_hand(job):
            return  # it is sent as soon as its data set lies in the store
        try:
            # Only ever raised: of a job that has just ended, a late start must not train again.
            _raise_fence(job.id, to=job.attempt)
        except redis.RedisError as error:
            raise Unavailable(f"The broker cannot be reached ({type(error).__name__})") from error
        queue, task_id = message_queue(job), wire.task_id(job.id, job.attempt)
        age = wire.message_age(job.queued_at or job.created_at, job.id)
        message = training_job(job).to_message()
        broker.send(message, queue=queue, task_id=task_id, priority=job.priority, age=age)
        try:
            message_order.put_in_order(queue, task_id=task_id, priority=job.priority, age=age)
        except redis.RedisError as error:
            logger.warning("job %s waits at the end of its queue: %s", job.id, error)

    def forget(self, job: Job, *, priority: int) -> None:
        task_id = wire.task_id(job.id, job.attempt)
        try:
            message_order.forget(message_queue(job), task_id=task_id, priority=priority)
        except redis.RedisError as error:
            raise Unavailable(f"The broker cannot be reached ({type(error).__name__})") from error

    def cancel(self, job: Job) -> None:
        try:
            told = f"{job.attempt}:{job.cancel_mode or 'now'}"
            broker.redis_client().set(wire.cancel_key(job.id), told, ex=_CANCEL_TTL_SECONDS)
            if job.status == "cancelled":  # it was queued: its message must never train
                _raise_fence(job.id, to=job.attempt + 1)
        except redis.RedisError as error:
            raise Unavailable(f"The broker cannot be reached ({type(error).__name__})") from error

    def forget_deleted(self, attempts: Mapping[int, int]) -> None:
        # The fence outlives the job, for a second copy of its message may. What is not forgotten
        # here, because Redis is away, expires; the recorder refuses whoever trains.
        pipe = broker.redis_client().pipeline(transaction=False)
        for job_id, attempt in attempts.items():
            pipe.eval(_RAISE_FENCE, 1, wire.fence_key(job_id), attempt + 1, wire.FENCE_TTL_SECONDS)
            pipe.delete(wire.cancel_key(job_id), wire.preempt_key(job_id), wire.replay_key(job_id))
        try:
            pipe.execute()
        except redis.RedisError as error:
            logger.warning("deleted jobs are not forgotten by Redis at once: %s", error)

    def healthy(self) -> None:
        broker.ping()


class SubprocessExecutor:
    """The recorder on this host, which takes queued and cancelling jobs from the database."""

    def start(self, job: Job) -> None:
        pass  # the committed status is the whole hand-over

    def forget(self, job: Job, *, priority: int) -> None:
        pass

    def cancel(self, job: Job) -> None:
        pass

    def forget_deleted(self, attempts: Mapping[int, int]) -> None:
        pass

    def healthy(self) -> None:
        pass


EXECUTORS: dict[str, type[Executor]] = {
    "celery": CeleryExecutor,
    "subprocess": SubprocessExecutor,
}


def get_executor() -> Executor:
    return EXECUTORS[current_app.config["EXECUTION_MODE"]]()


def check_mode(mode: str) -> None:
    """Raise SettingsError for a mode that this version cannot run."""
    if mode not in EXECUTORS:
        raise SettingsError(
            f"TRAINING_EXECUTION_MODE is '{mode}', which this version does not have yet; "
            f"use one of {', '.join(EXECUTORS)}"
        )


def message_queue(job: Job | Row[*tuple[Any, ...]]) -> str:
    """Return the broker's queue of a job: of those that must have a GPU, one of their own."""
    if job.device_choice == DeviceChoice.GPU:
        return wire.gpu_queue_name(job.framework)
    return job.queue


def training_job(job: Job) -> TrainingJob:
    """Return what travels to the worker for the job's present attempt."""
    return TrainingJob(
        id=job.id,
        attempt=job.attempt,
        project_id=job.project_id,
        framework=job.framework,
        model_name=job.model_name,
        task_type=TaskType(job.task_type),
        dataset_path=Path(job.dataset_path),
        dataset_format=DatasetFormat(job.dataset_format),
        epochs=job.epochs,
        batch_size=job.batch_size,
        learning_rate=job.learning_rate,
        optimizer=job.optimizer,
        image_size=job.image_size,
        pretrained=job.pretrained,
        seed=job.seed,
        device=DeviceChoice(job.device_choice),
        hyperparameters=job.hyperparameters,
        resume=job.resume,
        initial_job_id=job.initial_job_id,
        dataset_fingerprint=job.dataset_fingerprint,
        split_seed=job.split_seed,
        val_share=job.val_share,
    )


def refuse_attempt(job_id: int, attempt: int) -> None:
    """Raise the fence over an attempt that trains though it is over; its worker kills it."""
    _raise_fence(job_id, to=attempt + 1)


# KEYS: fence. ARGV: attempt, seconds.
_RAISE_FENCE = """
if tonumber(redis.call('GET', KEYS[1]) or '0') < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
end
"""


def _raise_fence(job_id: int, *, to: int) -> None:
    script = broker.redis_client().register_script(_RAISE_FENCE)
    script(keys=[wire.fence_key(job_id)], args=[to, wire.FENCE_TTL_SECONDS])
