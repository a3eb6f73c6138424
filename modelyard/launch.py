"""The command of each service, in one place for `modelyard up`, the Procfile and the containers."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from modelyard.settings import Settings

WEB_CONNECTIONS = 2000  # open pages of one web process
WEB_STOP_SECONDS = 5  # streams stay open for hours; a stop does not wait for them


def web_command(*, host: str, port: int, processes: int) -> list[str]:
    """Return gunicorn's command.

    gevent, because each open page holds a stream; no control socket, because two instances of
    one user would share it.
    """
    command = ["gunicorn", "webapp.wsgi:app", "-k", "gevent", "-w", str(processes)]
    command += ["--worker-connections", str(WEB_CONNECTIONS)]
    command += ["--graceful-timeout", str(WEB_STOP_SECONDS), "--no-control-socket"]
    return module_command(*command, "--bind", f"{bracketed(host)}:{port}")


def recorder_command() -> list[str]:
    return module_command("webapp.recorder")


def worker_command() -> list[str]:
    return module_command("workers")


def manage_command(name: str, *arguments: str) -> list[str]:
    return module_command("webapp.manage", name, *arguments)


def flower_command(*, host: str, port: int) -> list[str]:
    command = ["celery", "-A", "workers.app", "flower"]
    return module_command(*command, f"--address={host}", f"--port={port}")


def flower_environ(settings: Settings) -> dict[str, str]:
    """Return Flower's login, for its environment: a command line is readable by every user."""
    user, password = settings.flower_login()
    return {"FLOWER_BASIC_AUTH": f"{user}:{password}"}


def module_command(*module_and_arguments: str) -> list[str]:
    """Return a command of this environment's interpreter."""
    return [sys.executable, "-m", *module_and_arguments]


def become(command: Sequence[str], environ: Mapping[str, str] | None = None) -> NoReturn:
    """Replace this process, so that a supervisor's signals reach the service itself."""
    sys.stdout.flush()
    os.execve(command[0], list(command), {**os.environ, **(environ or {})})  # noqa: S606


def bracketed(host: str) -> str:
    """Return a host as it is written before a port."""
    return f"[{host}]" if ":" in host else host
