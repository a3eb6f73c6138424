"""`modelyard env`."""

from __future__ import annotations

import shlex

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
    from modelyard.up import ENVIRON_FILE

    file = load_settings(modelyard_home=home).home / ENVIRON_FILE
    if not file.exists():
        raise ModelyardError(f"no instance runs on {file.parent}; start one with: modelyard up")
    for line in file.read_text().splitlines():
        name, _, value = line.partition("=")
        click.echo(f"export {name}={shlex.quote(value)}")
