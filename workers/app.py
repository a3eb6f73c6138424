"""The Celery application of the workers: `celery -A workers.app …`.

Light to import, since Flower and `celery inspect` import it too.
"""

from __future__ import annotations

import socket
from typing import Any

from celery import Celery, signals

from adapters import wire
from workers import runtime
from workers.room import RoomForMore
from workers.task import TrainingTask, train

app = Celery("modelyard")
app.config_from_object("celeryconfig")
app.steps["consumer"].add(RoomForMore)


@app.task(bind=True, name=wire.TRAIN_TASK, base=TrainingTask)
def run_training(self: TrainingTask, job: dict[str, Any]) -> dict[str, Any]:
    """Train one attempt of a job; see workers.task.train."""
    return train(self, job)


def drain(draining: bool) -> None:
    """Stop consuming this worker's queues, or begin again; what trains goes on.

    Called again and again: a word to Celery that comes before its consumer is up, or while Redis
    is away, is lost. Where it was heard, there is nothing left to say.
    """
    here = runtime.current()
    change = app.control.cancel_consumer if draining else app.control.add_consumer
    for queue in here.queues:
        if (queue in app.amqp.queues.consume_from) == draining:
            change(queue, destination=[nodename(here.name)])


def nodename(worker: str) -> str:
    """Return the name under which Celery knows a worker."""
    return f"{worker}@{socket.gethostname()}"


@signals.worker_shutting_down.connect
def _shut_down(**kwargs: Any) -> None:
    """At SIGTERM: have checkpoints written and jobs handed back, while Celery waits for them."""
    runtime.current().shut_down()


@signals.worker_shutdown.connect
def _stop(**kwargs: Any) -> None:
    runtime.current().stop()
