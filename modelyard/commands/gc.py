"""`modelyard gc`."""

from __future__ import annotations

import click

from modelyard import launch
from modelyard.settings import load_settings


@click.command("gc")
@click.option("--home", help="Folder of the instance [MODELYARD_HOME].")
@click.option("--dry-run", is_flag=True, help="Only tell what would go, and how large it is.")
@click.option("--json", "as_json", is_flag=True, help="Tell it in JSON.")
def gc_command(home: str | None, dry_run: bool, as_json: bool) -> None:
    """Remove what is kept no more, and tell what was freed.

    That is: what deleted jobs have left; last checkpoints of jobs that ended more than
    MODELYARD_KEEP_LAST_DAYS ago; temporary files of killed writers and broken-off uploads; and
    outputs, uploads and objects in the store that the database does not know. What was written
    within the last day stays, and nothing of a job that has not ended is touched. What is of no
    known kind is named and left.

    Runs on the web host, beside everything else. The recorder does the same once a day, but for
    what the database does not know: after the restore of an old backup that may be worth keeping.
    """
    from modelyard.commands.env import instance_environ

    chosen = load_settings(modelyard_home=home).home
    flags = [("--dry-run", dry_run), ("--json", as_json)]
    # A running instance says best where its database and outputs are.
    environ = {"MODELYARD_HOME": str(chosen), **instance_environ(chosen)}
    launch.become(launch.manage_command("gc", *(flag for flag, wanted in flags if wanted)), environ)
