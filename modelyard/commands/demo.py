"""`modelyard demo`."""

from __future__ import annotations

import sys

import click

from modelyard.commands.up import instance_options
from modelyard.settings import Settings


@click.command("demo")
@instance_options
@click.option("--detection", is_flag=True, help="Train a detector instead of a classifier.")
@click.option("--exit", "stop_afterwards", is_flag=True, help="Stop when the job has ended.")
def demo_command(settings: Settings, detection: bool, stop_afterwards: bool) -> None:
    """Start everything and train a model on the sample data through the REST API.

    With --exit the exit status is 0 only if the job completed.
    """
    from rich.console import Console

    from modelyard.demo import CLASSIFICATION, DETECTION, run_demo

    completed = run_demo(
        settings,
        demo=DETECTION if detection else CLASSIFICATION,
        stop_afterwards=stop_afterwards,
        console=Console(),
    )
    if stop_afterwards and not completed:
        sys.exit(1)
