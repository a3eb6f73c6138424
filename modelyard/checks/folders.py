"""Disk space, data, outputs and weights, and whether all hosts see the same outputs."""

from __future__ import annotations

import os
import socket
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from modelyard.checks import Finding, ok, problem, warning
from modelyard.counting import counted
from modelyard.disk import readable, room
from modelyard.settings import Settings

LEAST_DISK_BYTES = 10**9
_MARKER = ".modelyard-outputs"
_MARKER_KEY = "modelyard:outputs"  # string: '<id in the marker> <host that made it>'


def data_roots(settings: Settings) -> Iterator[Finding]:
    """Look whether the data folders are there and can be read."""
    for root in settings.data_roots:
        if not root.is_dir() and _made_by_up(root, settings):
            yield ok("data", f"{root}, made at the first start")
        elif not root.is_dir():
            remedy = f"mount it, make it (mkdir -p {root}), or set MODELYARD_DATA_ROOTS"
            yield warning("data", f"{root} is not there", remedy=remedy)
        elif not os.access(root, os.R_OK | os.X_OK):
            remedy = f"let this user read it: chmod o+rx {root}"
            yield problem("data", f"{root} cannot be read", remedy=remedy)
        else:
            yield ok("data", str(root))


def outputs(settings: Settings) -> Iterator[Finding]:
    """Look whether checkpoints can be written."""
    folder = settings.outputs
    place = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=place):
            pass
    except OSError as error:
        remedy = f"let this user write there (chown), or set MODELYARD_OUTPUTS ({error.strerror})"
        yield problem("outputs", f"{folder} cannot be written", remedy=remedy)
        return
    yield ok("outputs", str(folder))


def disks(settings: Settings) -> Iterator[Finding]:
    """Look whether the volumes of the folders have room left, each volume once."""
    folders = {
        "MODELYARD_OUTPUTS": settings.outputs,
        "MODELYARD_HOME": settings.home,
        "MODELYARD_UPLOADS": settings.uploads,
        "MODELYARD_DATA_CACHE": settings.data_cache,
        "MODELYARD_WEIGHTS": settings.weights,
    }
    seen = set()
    for variable, folder in folders.items():
        left = room(folder)
        if left is None or left.volume in seen:
            continue
        seen.add(left.volume)
        text = f"{readable(left.free)} of {readable(left.total)} free for {folder}"
        remedy = f"delete jobs, see what modelyard gc --dry-run tells, or set {variable} elsewhere"
        if left.free < LEAST_DISK_BYTES:
            yield problem("disk", text, remedy=remedy)
        elif left.low:
            yield warning("disk", text, remedy=remedy)
        else:
            yield ok("disk", text)


def shared_outputs(settings: Settings) -> Iterator[Finding]:
    """Look whether this host's outputs folder is the one the other hosts have.

    The first host leaves a mark in the folder and in Redis; another folder has another mark. With
    a store each host has its own.
    """
    if settings.store or settings.redis_url is None or not settings.outputs.is_dir():
        return
    import redis

    try:
        mark = _marked(settings.outputs)
        with redis.Redis.from_url(
            settings.redis_url, decode_responses=True, socket_connect_timeout=5, socket_timeout=5
        ) as client:
            client.set(_MARKER_KEY, f"{mark} {socket.gethostname()}", nx=True)
            known, _, first_host = str(client.get(_MARKER_KEY)).partition(" ")
    except (OSError, redis.RedisError):
        return  # reported by the checks of the folder and of Redis
    if known == mark:
        yield ok("shared", f"the outputs folder is the one that {first_host} has")
    else:
        remedy = "mount the same folder on every host, and set MODELYARD_OUTPUTS to it"
        text = f"{settings.outputs} is not the outputs folder that {first_host} has"
        yield problem("shared", text, remedy=remedy)


def weights(settings: Settings) -> Iterator[Finding]:
    """Look at the folder of pretrained weights."""
    folder = settings.weights
    if not folder.is_dir() and _made_by_up(folder, settings):
        yield ok("weights", f"{folder}, made at the first start")
        return
    if not folder.is_dir():
        remedy = f"mkdir -p {folder}; without it, pretrained models are downloaded or refused"
        yield warning("weights", f"{folder} is not there", remedy=remedy)
        return
    count = sum(1 for path in folder.rglob("*") if path.is_file())
    yield ok("weights", f"{folder}, {counted(count, 'file')}")


def _made_by_up(folder: Path, settings: Settings) -> bool:
    """Tell whether `modelyard up` makes a folder; a worker host has to mount what others have."""
    return folder.parent == settings.home and settings.redis_url is None


def _marked(folder: Path) -> str:
    """Return the folder's mark, making it where there is none."""
    marker = folder / _MARKER
    if not marker.exists():
        fresh = marker.with_name(f"{_MARKER}.{uuid.uuid4().hex}")
        fresh.write_text(uuid.uuid4().hex)
        try:
            os.link(fresh, marker)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return marker.read_text().strip()
