"""Whether a service does its work: what a container's health check asks."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import redis

from adapters import wire
from modelyard.errors import ModelyardError
from modelyard.launch import bracketed
from modelyard.settings import Settings

ANSWER_SECONDS = 5
MOST_SAID = 500  # bytes of what a service says is wrong
RECORDER_IDLE_SECONDS = 60  # it reads twice a second, except while it writes a large batch

# An address to listen on is not always one to connect to.
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


class Unhealthy(ModelyardError):
    """A service does not do its work."""


def check_web(settings: Settings) -> None:
    _ask(f"{local_url(settings.host, settings.port)}/readyz")


def check_flower(settings: Settings) -> None:
    _ask(f"{local_url(settings.host, settings.flower_port)}/healthcheck")


def check_worker(settings: Settings) -> None:
    """Look whether the worker has told the team of itself within the last half minute."""
    if not _redis(settings).exists(wire.worker_key(settings.worker_name)):
        raise Unhealthy(f"worker {settings.worker_name} has not been heard of lately")


def check_recorder(settings: Settings) -> None:
    """Look whether some recorder reads the event stream."""
    client: Any = _redis(settings)
    try:
        consumers = client.xinfo_consumers(wire.EVENT_STREAM, wire.RECORDER_GROUP)
    except redis.ResponseError:  # there is no stream yet: none has ever begun
        consumers = []
    idle = min((consumer["idle"] for consumer in consumers), default=None)
    if idle is None or idle > RECORDER_IDLE_SECONDS * 1000:
        raise Unhealthy("no recorder reads the event stream")


CHECKS: dict[str, Callable[[Settings], None]] = {
    "web": check_web,
    "flower": check_flower,
    "worker": check_worker,
    "recorder": check_recorder,
}


def check(service: str, settings: Settings) -> None:
    """Return if a service of this host does its work. Raises Unhealthy saying what is wrong."""
    try:
        CHECKS[service](settings)
    except redis.RedisError as error:
        raise Unhealthy(
            f"{service} cannot be asked, Redis does not answer; look at REDIS_URL: {error}"
        ) from error


def local_url(host: str, port: int) -> str:
    """Return the address under which this machine reaches a service that listens on `host`."""
    return f"http://{bracketed(_ANY.get(host, host))}:{port}"


def _ask(url: str) -> None:
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS):  # noqa: S310 (our own URL)
            pass
    except urllib.error.HTTPError as error:
        with error:
            raise Unhealthy(f"{url} answers {error.code}: {_said(error)}") from error
    except OSError as error:
        why = getattr(error, "reason", error)
        raise Unhealthy(f"{url} does not answer: {why}") from error


def _said(error: urllib.error.HTTPError) -> str:
    """Return what a service says is wrong: the web process in a problem document."""
    said = error.read(MOST_SAID).decode(errors="replace").strip()
    try:
        return str(json.loads(said)["detail"])
    except (ValueError, KeyError, TypeError):
        return said or str(error.reason)


def _redis(settings: Settings) -> redis.Redis:
    return redis.Redis.from_url(
        settings.require_redis(),
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
    )
