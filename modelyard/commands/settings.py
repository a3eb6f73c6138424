"""`modelyard settings`."""

from __future__ import annotations

import click

from modelyard.settings import settings_table


@click.command("settings")
def settings_command() -> None:
    """Print the table of settings, as in docs/settings.md."""
    click.echo(settings_table(), nl=False)
