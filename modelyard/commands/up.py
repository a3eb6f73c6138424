"""`modelyard up`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from modelyard.settings import Settings, load_settings

_OPTIONS = (
    click.option("--home", help="Folder of everything that is kept [MODELYARD_HOME]."),
    click.option("--host", help="Address to listen on [MODELYARD_HOST]."),
    click.option("--port", help="Port of dashboard and API; 0: a free one [MODELYARD_PORT]."),
    click.option("--frameworks", help="What the worker serves, like timm,ultralytics."),
)


def instance_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of an instance; it is handed the settings they make."""

    @functools.wraps(command)
    def with_settings(
        home: str | None, host: str | None, port: str | None, frameworks: str | None, **rest: Any
    ) -> None:
        settings = load_settings(
            modelyard_home=home,
            modelyard_host=host,
            modelyard_port=port,
            modelyard_frameworks=frameworks,
        )
        command(settings=settings, **rest)

    for option in reversed(_OPTIONS):
        with_settings = option(with_settings)
    return with_settings


@click.command("up")
@instance_options
def up_command(settings: Settings) -> None:
    """Start, supervise and restart everything until Ctrl-C.

    Redis, the web process, the recorder, a worker with the installed frameworks, and Flower.
    """
    from modelyard.up import up

    up(settings, say=click.echo)
