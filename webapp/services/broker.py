"""What the web host asks of Redis: is it there, who works, and may a message be sent."""

from __future__ import annotations

import json
from typing import Any, cast

import redis
from celery import Celery
from flask import current_app
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry

from adapters import wire
from modelyard.settings import Settings
from webapp.services.errors import Unavailable

_TIMEOUT_SECONDS = 3.0  # a person waits for the answer


def init_app(app: Any, settings: Settings) -> None:
    """Prepare the Redis client and the Celery producer; neither connects before it is used."""
    if settings.execution_mode != "celery":
        return
    url = settings.require_redis()
    app.extensions["modelyard_redis"] = redis.Redis.from_url(
        url,
        socket_timeout=_TIMEOUT_SECONDS,
        socket_connect_timeout=_TIMEOUT_SECONDS,
        health_check_interval=10,
        retry=Retry(NoBackoff(), 1),  # once: for a connection that Redis closed meanwhile
        decode_responses=True,
    )
    app.extensions["modelyard_producer"] = _producer(url)


def redis_client() -> redis.Redis:
    return current_app.extensions["modelyard_redis"]


def uses_broker() -> bool:
    return "modelyard_redis" in current_app.extensions


def ping() -> None:
    """Raise Unavailable where Redis does not answer."""
    try:
        redis_client().ping()
    except redis.RedisError as error:
        raise Unavailable(f"The broker cannot be reached ({type(error).__name__})") from error


def events_waiting() -> int:
    """Return how many events no recorder has written down yet. Raises Unavailable."""
    if not uses_broker():
        return 0
    try:
        return redis_client().xlen(wire.EVENT_STREAM)
    except redis.RedisError as error:
        raise Unavailable(f"The broker cannot be reached ({type(error).__name__})") from error


def send(
    job_message: dict[str, Any], *, queue: str, task_id: str, priority: int, age: str = ""
) -> None:
    """Put a job's message on its queue. Raises Unavailable where the broker does not take it."""
    producer: Celery = current_app.extensions["modelyard_producer"]
    try:
        producer.send_task(
            wire.TRAIN_TASK,
            kwargs={"job": job_message},
            queue=queue,
            task_id=task_id,
            priority=wire.broker_priority(priority),
            headers={wire.AGE_HEADER: age},
            retry=False,
        )
    except (OSError, redis.RedisError, OperationalError) as error:
        raise Unavailable(f"The broker cannot be reached ({type(error).__name__})") from error


def workers() -> list[dict[str, Any]]:
    """Return what each worker last published of itself; empty in a mode without a broker."""
    if not uses_broker():
        return []
    client = redis_client()
    try:
        names = cast(list[str], client.zrange(wire.WORKERS_KEY, 0, -1))
        published = client.mget([wire.worker_key(name) for name in names]) if names else []
        draining = client.mget([wire.drain_key(name) for name in names]) if names else []
    except redis.RedisError as error:
        raise Unavailable(f"The broker cannot be reached ({type(error).__name__})") from error
    found = []
    for text, drain in zip(published, draining, strict=True):
        if text is not None:  # expired: the worker is gone
            worker = json.loads(text)
            if drain is not None:
                worker["status"] = "draining"
            found.append(worker)
    return found


def _producer(url: str) -> Celery:
    # No result backend: with one, each message leaves this process a subscription, for good.
    app = Celery("modelyard-web", broker=url, backend="disabled://", set_as_current=False)
    app.config_from_object("celeryconfig")
    app.conf.update(
        broker_url=url,
        result_backend="disabled://",
        broker_transport_options={
            **app.conf.broker_transport_options,
            "socket_timeout": _TIMEOUT_SECONDS,
            "socket_connect_timeout": _TIMEOUT_SECONDS,
            "max_retries": 0,
        },
    )
    return app
