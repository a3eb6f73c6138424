"""Lets Celery take no message that this worker has no usable slot for, or none while it drains.

Celery's own bound is the pool's size. Here it is smaller while somebody else has a GPU, and that
changes at any moment: also while Redis is already asked for the next message.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import MethodType
from typing import Any

import redis
from celery import bootsteps
from celery.app.task import Task
from celery.worker import state
from celery.worker.strategy import default

from workers import runtime

logger = logging.getLogger(__name__)


def has_room() -> bool:
    """Tell whether there is a slot for one more task than those that have come and not ended."""
    here = runtime.current()
    return not here.presence.draining and here.slots.room(tasks=len(state.reserved_requests))


class RoomForMore(bootsteps.StartStopStep):
    """Asks Redis for a message only where there is room; begun anew with each connection."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        """Bound the consumer's channel, as Celery's worker_disable_prefetch does."""
        channel = parent.task_consumer.channel
        allowed: Callable[[], bool] = channel.qos.can_consume

        def can_consume(self: Any) -> bool:
            # While Redis is being asked, its answer must be read: it may be a message, which
            # would lie in the socket, taken by nobody.
            return allowed() and (bool(channel._in_poll) or has_room())

        channel.qos.can_consume = MethodType(can_consume, channel.qos)


def _drains() -> bool:
    """Ask whether a person wants no more jobs taken; the presence asks only every few seconds."""
    here = runtime.current()
    try:
        return here.presence.notice_drain(here.peek)
    except redis.RedisError as error:
        logger.debug("a job is taken, drained or not: %s", error)
        return False


def strategy(task: Task, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Return what handles a message of the task: begins it, or puts it back where it was."""
    handle: Callable[..., Any] = default(task, app, consumer, **options)

    def on_message(message: Any, *arguments: Any, **keywords: Any) -> Any:
        if has_room() and not _drains():
            return handle(message, *arguments, **keywords)
        logger.info("a job came that this worker must not take now: it is put back")
        # To the end that is read next; a message that is rejected goes to the other.
        message.channel.qos.restore_by_tag(message.delivery_tag)
        message.ack()
        return None

    return on_message
