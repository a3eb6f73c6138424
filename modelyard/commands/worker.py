"""`modelyard worker`: what runs on a GPU box."""

from __future__ import annotations

import importlib.util
import os
import sys

import click

from adapters import installed_frameworks, known_frameworks
from modelyard.errors import ModelyardError
from modelyard.settings import load_settings


class WorkerError(ModelyardError):
    """The worker cannot do what is asked of it."""


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
    settings = load_settings(None, **options)
    settings.require_redis()
    served = check_frameworks(settings.frameworks)
    chosen = {variable.upper(): text for variable, text in options.items() if text is not None}
    chosen["MODELYARD_FRAMEWORKS"] = ",".join(served)
    # The worker replaces this process: a supervisor's signals reach it, and a password
    # given as --broker leaves the process list.
    os.execve(  # noqa: S606
        sys.executable, [sys.executable, "-m", "workers"], {**os.environ, **chosen}
    )


def check_frameworks(wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the frameworks to serve. Raises WorkerError for one that cannot be served here."""
    known, installed = known_frameworks(), installed_frameworks()
    for name in wanted or ():
        if name not in known:
            raise WorkerError(f"unknown framework '{name}'; known are: {', '.join(known)}")
        if name not in installed:
            raise WorkerError(
                f"framework '{name}' is not installed here; "
                f"run: pip install -r requirements/{name}.txt"
            )
    if not (served := wanted or tuple(installed)):
        raise WorkerError(
            "no framework is installed here; run, for example: pip install -r requirements/timm.txt"
        )
    if importlib.util.find_spec("celery") is None:
        raise WorkerError("celery is missing; run: pip install -r requirements/worker.txt")
    return served
