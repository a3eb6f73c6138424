"""`modelyard settings`."""

from __future__ import annotations

import click

from modelyard.settings import settings_table

_PAGE = """\
# Settings

Every setting is an environment variable, or a line of a `.env` file in the folder where a
command is started; the environment goes before the file, and an option of the command line
before both. A wrong one is refused at the start, with its name and what would be right. This
page is what `modelyard settings` prints.

"""


def settings_page() -> str:
    """Return the whole of docs/settings.md."""
    return _PAGE + settings_table()


@click.command("settings")
def settings_command() -> None:
    """Print the table of settings, as in docs/settings.md."""
    click.echo(settings_page(), nl=False)
