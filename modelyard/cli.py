"""The command line `modelyard`.

A GPU box has the worker's requirements and no web application, so a command's module is
imported only when that command is asked for.
"""

from __future__ import annotations

import importlib
import logging
import sys

import click

from modelyard import __version__
from modelyard.errors import ModelyardError

# command: (module and attribute, one line of help)
COMMANDS = {
    "up": ("modelyard.commands.up:up_command", "Start everything on this machine."),
    "worker": ("modelyard.commands.worker:worker_command", "Train what waits on the queues."),
    "workers": ("modelyard.commands.workers:workers_command", "List the workers that are up."),
    "drain": ("modelyard.commands.workers:drain_command", "Let a worker take no new job."),
    "web": ("modelyard.commands.services:web_command", "Serve the dashboard and the API."),
    "recorder": ("modelyard.commands.services:recorder_command", "Keep the database true."),
    "flower": ("modelyard.commands.services:flower_command", "Serve Flower behind its login."),
    "release": ("modelyard.commands.services:release_command", "Bring the database up to date."),
    "backup": ("modelyard.commands.backup:backup_command", "Write all it knows to one file."),
    "restore": ("modelyard.commands.backup:restore_command", "Bring a backup back."),
    "gc": ("modelyard.commands.gc:gc_command", "Remove what is kept no more."),
    "health": ("modelyard.commands.services:health_command", "Ask whether a service works."),
    "env": ("modelyard.commands.env:env_command", "Print what a running instance is told."),
    "doctor": ("modelyard.commands.doctor:doctor_command", "Check what this machine has."),
    "demo": ("modelyard.commands.demo:demo_command", "Start everything and train a model."),
    "samples": ("modelyard.samples:samples_command", "Write the sample data sets."),
    "settings": ("modelyard.commands.settings:settings_command", "Print the table of settings."),
}


class _LazyGroup(click.Group):
    """A group that lists its commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="modelyard")
def cli() -> None:
    """Modelyard trains vision models for a team.

    Every setting is an environment variable or a line of a .env file; see `modelyard settings`.
    """


def main() -> None:
    """Run the command line; a refusal is one sentence on stderr and exit status 2."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    try:
        cli()
    except ModelyardError as error:
        click.echo(f"modelyard: {error}", err=True)
        sys.exit(2)
    except ModuleNotFoundError as error:
        click.echo(
            f"modelyard: this command needs the package '{error.name}', which is not installed "
            "here; run 'make install', or pip install the file of requirements/ for this host",
            err=True,
        )
        sys.exit(2)
