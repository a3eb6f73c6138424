"""The Celery application of the workers: `celery -A workers.app …`.

Light to import, since Flower and `celery inspect` import it too.
"""

from __future__ import annotations

from typing import Any

from celery import Celery, signals

from adapters import wire
from workers import runtime
from workers.task import TrainingTask, train

app = Celery("modelyard")
app.config_from_object("celeryconfig")


@app.task(bind=True, name=wire.TRAIN_TASK, base=TrainingTask)
def run_training(self: TrainingTask, job: dict[str, Any]) -> dict[str, Any]:
    """Train one attempt of a job; see workers.task.train."""
    return train(self, job)


@signals.worker_shutting_down.connect
def _shut_down(**kwargs: Any) -> None:
    """At SIGTERM: have checkpoints written and jobs handed back, while Celery waits for them."""
    runtime.current().shut_down()


@signals.worker_shutdown.connect
def _stop(**kwargs: Any) -> None:
    runtime.current().stop()
