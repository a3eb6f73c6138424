"""`modelyard doctor`."""

from __future__ import annotations

import sys

import click

from modelyard.counting import counted
from modelyard.settings import load_settings


@click.command("doctor")
def doctor_command() -> None:
    """Check what this machine has, and say what to do about each thing that is missing.

    The exit status is 1 where something will not work.
    """
    from modelyard.checks import Level
    from modelyard.doctor import examine, lines

    problems = 0
    for finding in examine(load_settings()):
        problems += finding.level == Level.PROBLEM
        for line in lines(finding):
            click.echo(line)
    if problems:
        click.echo(f"\n{counted(problems, 'problem')} to mend.")
        sys.exit(1)
