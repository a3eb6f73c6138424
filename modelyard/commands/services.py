"""One service of an instance: `modelyard web`, `recorder`, `flower`, `release`, and `health`."""

from __future__ import annotations

import os
import signal
import subprocess

import click
import psutil

from modelyard import launch
from modelyard.errors import ModelyardError
from modelyard.settings import load_settings

_host = click.option("--host", help="Address to listen on [MODELYARD_HOST].")


class ReleaseError(ModelyardError):
    """The database could not be prepared."""


@click.command("web")
@_host
@click.option("--port", help="Port to listen on [MODELYARD_PORT].")
def web_command(host: str | None, port: str | None) -> None:
    """Serve the dashboard and the API."""
    settings = load_settings(modelyard_host=host, modelyard_port=port)
    launch.become(
        launch.web_command(host=settings.host, port=settings.port, processes=settings.web_processes)
    )


@click.command("recorder")
def recorder_command() -> None:
    """Write what workers report into the database, and put lost jobs back."""
    launch.become(launch.recorder_command())


@click.command("flower")
@_host
@click.option("--port", help="Port to listen on [MODELYARD_FLOWER_PORT].")
def flower_command(host: str | None, port: str | None) -> None:
    """Serve Flower, behind MODELYARD_FLOWER_USER and MODELYARD_FLOWER_PASSWORD."""
    settings = load_settings(modelyard_host=host, modelyard_flower_port=port)
    settings.require_redis()
    command = launch.flower_command(host=settings.host, port=settings.flower_port)
    launch.become(command, launch.flower_environ(settings))


@click.command("release")
def release_command() -> None:
    """Bring the database up to date and create the first administrator."""
    for name in ("migrate", "ensure-admin"):
        if subprocess.run(launch.manage_command(name), check=False).returncode != 0:
            raise ReleaseError(f"'{name}' failed, see above")
    if _honcho_starts_everything():
        # honcho ends all processes when one has ended, also one that has done its work.
        signal.pause()


@click.command("health")
@click.argument("service", type=click.Choice(["web", "recorder", "worker", "flower"]))
def health_command(service: str) -> None:
    """Ask whether a service of this host does its work; the exit status says so."""
    from modelyard.health import check

    check(service, load_settings())


def _honcho_starts_everything() -> bool:
    if "HONCHO_PROCESS_NAME" not in os.environ:
        return False
    commands = [parent.cmdline() for parent in psutil.Process().parents()]
    return not any("release" in words for words in commands if "honcho" in " ".join(words))
