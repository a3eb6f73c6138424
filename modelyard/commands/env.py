"""`modelyard env`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from modelyard.errors import ModelyardError
from modelyard.settings import load_settings


@click.command("env")
@click.option("--home", help="Folder of the instance [MODELYARD_HOME].")
def env_command(home: str | None) -> None:
    """Print the settings of the instance that runs on this machine, for a shell.

    With `eval "$(modelyard env)"` every other command finds that instance: a second worker, or
    `celery -A workers.app inspect active`. The output holds the password of its Redis.
    """
    folder = load_settings(modelyard_home=home).home
    told = instance_environ(folder)
    if not told:
        raise ModelyardError(f"no instance runs on {folder}; start one with: modelyard up")
    for name, value in told.items():
        click.echo(f"export {name}={shlex.quote(value)}")


def instance_environ(home: Path) -> dict[str, str]:
    """Return what the processes of `modelyard up` on a home are told; empty where none runs."""
    from modelyard.up import ENVIRON_FILE

    file = home / ENVIRON_FILE
    if not file.exists():
        return {}
    lines = (line.partition("=") for line in file.read_text().splitlines())
    return {name: value for name, _, value in lines}
