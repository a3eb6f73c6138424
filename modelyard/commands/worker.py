"""`modelyard worker`: what runs on a GPU box."""

from __future__ import annotations

import importlib.util

import click

from modelyard import launch
from modelyard.errors import ModelyardError
from modelyard.settings import load_settings


class WorkerError(ModelyardError):
    """The worker cannot run here."""


@click.command("worker")
@click.option("--frameworks", help="What to serve, like timm,ultralytics; default: all installed.")
@click.option("--gpus", help="GPUs to use, like 0,1; default: all; '' for none.")
@click.option("--name", help="Name of the worker, unique in the team; default: the host's.")
@click.option("--broker", help="Redis URL; better in REDIS_URL, which no process list shows.")
def worker_command(
    frameworks: str | None, gpus: str | None, name: str | None, broker: str | None
) -> None:
    """Take jobs from the queues of the frameworks and train them.

    Needs requirements/worker.txt, the framework's file, a Redis and the data; nothing of the
    web application. Ctrl-C or SIGTERM lets children write a checkpoint and hands their jobs back.
    """
    options = {
        "modelyard_frameworks": frameworks,
        "modelyard_gpus": gpus,
        "modelyard_worker_name": name,
        "redis_url": broker,
    }
    load_settings(None, **options).require_redis()
    if importlib.util.find_spec("celery") is None:
        raise WorkerError("celery is missing; run: pip install -r requirements/worker.txt")
    # In the environment a password given as --broker leaves the process list.
    chosen = {variable.upper(): text for variable, text in options.items() if text is not None}
    launch.become(launch.worker_command(), chosen)
