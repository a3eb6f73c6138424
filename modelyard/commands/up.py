"""`modelyard up`."""

from __future__ import annotations

import click

from modelyard.settings import load_settings


@click.command("up")
@click.option("--home", help="Folder of everything that is kept [MODELYARD_HOME].")
@click.option("--host", help="Address to listen on [MODELYARD_HOST].")
@click.option("--port", help="Port of the dashboard and the API; 0: a free one [MODELYARD_PORT].")
@click.option("--frameworks", help="What the worker serves, like timm,ultralytics.")
def up_command(
    home: str | None, host: str | None, port: str | None, frameworks: str | None
) -> None:
    """Start, supervise and restart everything until Ctrl-C.

    Redis, the web process, the recorder, a worker with the installed frameworks, and Flower.
    """
    from modelyard.up import up

    settings = load_settings(
        modelyard_home=home,
        modelyard_host=host,
        modelyard_port=port,
        modelyard_frameworks=frameworks,
    )
    up(settings, say=click.echo)
