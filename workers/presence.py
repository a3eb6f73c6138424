"""Tells the team that this worker is there, what it is and what it does."""

from __future__ import annotations

import dataclasses
import json
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil
import redis

from adapters import framework_version, wire
from modelyard import __version__
from modelyard.gpu_guard import GpuGuard
from modelyard.gpus import Gpu, device_indices
from workers.control import Attempt, Control
from workers.devices import Slots, device_title, gpu_watch
from workers.disks import Disks
from workers.inventory import Inventory

logger = logging.getLogger(__name__)


def framework_versions(frameworks: Sequence[str]) -> dict[str, str]:
    """Return the versions of Modelyard, torch and the frameworks, found without importing them."""
    found = {"torch": _version("torch"), **{name: framework_version(name) for name in frameworks}}
    return {"modelyard": __version__, **{name: v for name, v in found.items() if v is not None}}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


class Presence:
    """Publishes the worker every few seconds; Redis forgets it when it falls silent."""

    def __init__(
        self,
        client: redis.Redis,
        *,
        name: str,
        frameworks: Sequence[str],
        devices: Sequence[str],
        slots: Slots,
        gpus: GpuGuard,
        control: Control,
        inventory: Inventory,
        disks: Disks,
        on_drain: Callable[[bool], None],
    ) -> None:
        self._client = client
        self._name = name
        self._frameworks = list(frameworks)
        self._devices = list(devices)
        self._slots = slots
        self._gpus = gpus
        self._control = control
        self._inventory = inventory
        self._disks = disks
        self._versions = framework_versions(frameworks)
        self._host = socket.gethostname()
        self._stopped = threading.Event()
        self._on_drain = on_drain
        self.draining = False  # it takes no new job, as far as is known
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="presence", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop publishing and be forgotten at once."""
        self._stopped.set()
        self._wake.set()
        self._thread.join()
        try:
            self._client.delete(wire.worker_key(self._name))
            self._client.zrem(wire.WORKERS_KEY, self._name)
        except redis.RedisError as error:
            logger.warning("Redis will forget this worker by itself: %s", error)

    def _loop(self) -> None:
        while True:
            try:
                self._look_for_drain()
                self.publish()
            except redis.RedisError as error:
                logger.debug("not published: %s", error)
            except Exception:  # a worker that falls silent is taken for dead
                logger.exception("this worker could not be published")
            self._wake.wait(wire.WORKER_HEARTBEAT_SECONDS)
            self._wake.clear()
            if self._stopped.is_set():
                return

    def _look_for_drain(self) -> None:
        """Take no new job while a person wants it so; what trains goes on."""
        wanted = self.is_drained()
        self._on_drain(wanted)
        self._set_draining(wanted)

    def notice_drain(self, client: redis.Redis) -> bool:
        """Look with this client, and take nothing from now on if so. Raises RedisError."""
        if client.exists(wire.drain_key(self._name)):
            self._set_draining(True)
            self._wake.set()  # Celery is told at once
            return True
        return False

    def _set_draining(self, wanted: bool) -> None:
        if wanted != self.draining:
            self.draining = wanted
            logger.info("worker %s %s", self._name, "drains" if wanted else "takes jobs again")

    def is_drained(self) -> bool:
        """Tell whether a person wants it to take no new job. Raises RedisError."""
        return bool(self._client.exists(wire.drain_key(self._name)))

    def publish(self) -> None:
        """Publish once. Raises RedisError."""
        now = datetime.now(UTC)
        pipe = self._client.pipeline()
        ttl = int(wire.WORKER_TTL_SECONDS)
        pipe.set(wire.worker_key(self._name), json.dumps(self.describe(now)), ex=ttl)
        pipe.zadd(wire.WORKERS_KEY, {self._name: now.timestamp()})
        pipe.zremrangebyscore(wire.WORKERS_KEY, "-inf", now.timestamp() - 24 * 3600)
        pipe.execute()

    def describe(self, now: datetime) -> dict[str, Any]:
        """Return the worker in the API's form."""
        gpus = gpu_watch.gpus() if self._devices != ["cpu"] else []
        attempts = self._control.attempts()
        memory = psutil.virtual_memory()
        return {
            "name": self._name,
            "host": self._host,
            "frameworks": self._frameworks,
            "versions": self._versions,
            "models": self._inventory.describe(),
            "device": ", ".join(device_title(device, gpus) for device in self._devices),
            "gpu": [self._describe_gpu(gpu) for gpu in self._own(gpus)],
            "slots": len(self._devices),
            "busy": len(attempts),
            "held": self._slots.unusable(),
            "jobs": [_brief(attempt) for attempt in attempts],
            "cpu_percent": psutil.cpu_percent(),
            "memory_percent": memory.percent,
            "disks": self._disks.describe(),
            "last_seen": wire.format_time(now),
            "status": "draining" if self.draining else "online",
        }

    def _own(self, shown: Sequence[Gpu]) -> list[Gpu]:
        """Return this worker's GPUs; of one that has failed, nvidia-smi shows only the others."""
        known = {gpu.index: gpu for gpu in shown}
        mine = {index for device in self._devices for index in device_indices(device)}
        lost = Gpu(-1, "a GPU that has failed", memory=0, memory_used=0, utilisation=None)
        return [
            known.get(index) or dataclasses.replace(lost, index=index)
            for index in sorted(mine)
            if shown
        ]

    def _describe_gpu(self, gpu: Gpu) -> dict[str, Any]:
        holder = self._gpus.holder(gpu.index)
        return {**gpu.to_json(), "held_by": holder and holder.to_json()}


def _brief(attempt: Attempt) -> dict[str, Any]:
    progress = attempt.progress
    return {
        "job_id": attempt.job.id,
        "attempt": attempt.job.attempt,
        "device": attempt.device,
        "epoch": progress.get("epoch"),
        "epochs": attempt.job.epochs,
        "percent": progress.get("percent"),
    }
