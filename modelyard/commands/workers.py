"""`modelyard workers` and `modelyard drain`: who trains, and who is to take nothing new.

They speak with Redis, as the workers do, so they work on every host that has REDIS_URL, also
while the web process is away.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import click
import redis

from adapters import wire
from modelyard.errors import ModelyardError
from modelyard.settings import load_settings

ANSWER_SECONDS = 5
HEARD_SECONDS = 3 * wire.WORKER_HEARTBEAT_SECONDS  # a worker looks at each heartbeat
LOOK_SECONDS = 0.5

Worker = dict[str, Any]


class WorkersError(ModelyardError):
    """The workers cannot be asked, or there is none of this name."""


@click.command("workers")
def workers_command() -> None:
    """List the workers that are up: what they have, what they do, whether they take jobs."""
    with _redis() as client:
        found = [_asked(client, name) for name in _names(client)]
    rows = [_row(worker) for worker in found if worker is not None]
    if not rows:
        click.echo("no worker is up; start one with: modelyard worker")
        return
    rows.insert(0, ("NAME", "STATUS", "BUSY", "DEVICE", "FRAMEWORKS", "JOBS"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


@click.command("drain")
@click.argument("worker", required=False)
@click.option("--undo", is_flag=True, help="Let it take jobs again.")
@click.option("--wait", is_flag=True, help="Return once it has finished what it trains.")
def drain_command(worker: str | None, undo: bool, wait: bool) -> None:
    """Let WORKER (by default this host's) finish what it trains and take nothing new.

    It stays drained, also when it is started again, until `modelyard drain --undo`.
    """
    if undo and wait:
        raise click.UsageError("--wait and --undo exclude each other: what takes jobs is not idle")
    name = worker or load_settings().worker_name
    with _redis() as client:
        if undo:
            _undo(client, name)
            return
        if _read(client, name) is None:
            raise WorkersError(_unknown(client, name))
        client.set(wire.drain_key(name), "1")
        if _heard(client, name):
            click.echo(f"worker {name} takes no new job")
        else:
            click.echo(f"worker {name} has not answered yet; it takes no new job once it has heard")
        if wait:
            _wait_until_idle(client, name)


def _undo(client: redis.Redis, name: str) -> None:
    if client.delete(wire.drain_key(name)):
        click.echo(f"worker {name} takes jobs again")
    elif _read(client, name) is None:
        raise WorkersError(_unknown(client, name))
    else:
        click.echo(f"worker {name} was not drained")


def _heard(client: redis.Redis, name: str) -> bool:
    """Wait until the worker itself says that it drains: until then it may take one job more."""
    deadline = time.monotonic() + HEARD_SECONDS
    while time.monotonic() < deadline:
        worker = _read(client, name)
        if worker is not None and worker["status"] == "draining":
            return True
        time.sleep(LOOK_SECONDS)
    return False


def _wait_until_idle(client: redis.Redis, name: str) -> None:
    """Return when the worker itself has said twice that it drains and trains nothing.

    Twice, because the first time a job that it took in the last moment may not be told yet.
    """
    told: set[str] = set()
    said = ""
    while len(told) < 2:
        worker = _read(client, name)
        if worker is None:
            click.echo(f"worker {name} is gone")
            return
        if worker["status"] == "draining" and not worker["jobs"]:
            told.add(worker["last_seen"])
        if worker["jobs"] and _jobs(worker) != said:
            said = _jobs(worker)
            click.echo(f"it still trains {said}")
        time.sleep(LOOK_SECONDS)
    click.echo(f"worker {name} is idle")


def _row(worker: Worker) -> tuple[str, ...]:
    return (
        worker["name"],
        worker["status"],
        f"{worker['busy']}/{worker['slots']}",
        worker["device"],
        ",".join(worker["frameworks"]),
        _jobs(worker) or "-",
    )


def _jobs(worker: Worker) -> str:
    return ", ".join(
        f"job {job['job_id']}"
        + (f" (epoch {job['epoch']} of {job['epochs']})" if job["epoch"] else "")
        for job in worker["jobs"]
    )


def _unknown(client: redis.Redis, name: str) -> str:
    known = [other for other in _names(client) if _read(client, other) is not None]
    return f"there is no worker {name}; up are: {', '.join(known) or 'none'}"


def _names(client: redis.Redis) -> list[str]:
    return cast(list[str], client.zrange(wire.WORKERS_KEY, 0, -1))


def _read(client: redis.Redis, name: str) -> Worker | None:
    """Return what a worker last told of itself, None where it is silent."""
    text = cast(str | None, client.get(wire.worker_key(name)))
    if text is None:
        return None
    worker: Worker = json.loads(text)
    return worker


def _asked(client: redis.Redis, name: str) -> Worker | None:
    """Return the same, as draining where that was asked for a moment ago and not yet told."""
    worker = _read(client, name)
    if worker is not None and client.exists(wire.drain_key(name)):
        worker["status"] = "draining"
    return worker


@contextmanager
def _redis() -> Iterator[redis.Redis]:
    url = load_settings().require_redis()
    try:
        with redis.Redis.from_url(
            url,
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            decode_responses=True,
        ) as client:
            yield client
    except redis.RedisError as error:
        raise WorkersError(f"Redis does not answer; look at REDIS_URL: {error}") from error
