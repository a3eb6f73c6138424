"""What one worker process has besides Celery: its devices, its template, its side threads."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from adapters import installed_frameworks, known_frameworks, wire
from modelyard.gpu_guard import GpuGuard
from modelyard.gpu_locks import GpuLocks
from modelyard.gpus import choose_devices
from modelyard.settings import Settings, SettingsError
from workers.asks import Asks
from workers.control import Attempt, Control
from workers.dataset_cache import cache_of
from workers.devices import Slots, gpu_watch
from workers.disks import Disks
from workers.inventory import Inventory
from workers.notice import SpotNotice
from workers.presence import Presence
from workers.template import Template

logger = logging.getLogger(__name__)

CONTROL_TIMEOUT_SECONDS = 3.0
PEEK_TIMEOUT_SECONDS = 1.0
TIDY_SECONDS = 10.0  # after the children's grace: to publish how they ended and to say goodbye
HURRY_SECONDS = 6.0  # usually one is enough: to kill, to write it down and to tell

_current: Runtime | None = None


class Runtime:
    """The parts of a worker that outlive single jobs."""

    def __init__(self, settings: Settings, *, on_drain: Callable[[bool], None]) -> None:
        """Choose frameworks and devices. Raises SettingsError where the host lacks them."""
        self.settings = settings
        self.name = settings.worker_name
        self.frameworks = choose_frameworks(settings.frameworks)
        try:
            self.devices = choose_devices(settings.gpus, per_slot=settings.gpus_per_slot)
        except ValueError as error:
            raise SettingsError(f"MODELYARD_GPUS: {error}") from error
        self.redis = connect(settings.require_redis())
        # Of the thread that takes messages, which must not wait long for an order among queues.
        self.peek = connect(settings.require_redis(), timeout_seconds=PEEK_TIMEOUT_SECONDS)
        # Of its own, and quicker to give up: a renewal must be tried several times in a lease time.
        self.control = Control(
            connect(settings.require_redis(), timeout_seconds=CONTROL_TIMEOUT_SECONDS),
            trains_without_redis=settings.redis_away == "train",
        )
        self.gpus = GpuGuard(
            self.devices,
            locks=GpuLocks(settings.home / "gpus", gpus=gpu_watch.gpus(), worker=self.name),
            trains_on=lambda: [attempt.device for attempt in self.control.attempts()],
            view=gpu_watch.view_now,
        )
        self.slots = Slots(self.devices, guard=self.gpus)
        self.template = Template(self.frameworks, threads=settings.threads)
        self.inventory = Inventory(
            self.frameworks, template=self.template, weights=settings.weights
        )
        folders = {"outputs": settings.outputs}
        if settings.store:
            folders["data_cache"] = settings.data_cache
        self.disks = Disks(folders)
        self.presence = Presence(
            self.redis,
            name=self.name,
            frameworks=self.frameworks,
            devices=self.devices,
            slots=self.slots,
            gpus=self.gpus,
            control=self.control,
            inventory=self.inventory,
            disks=self.disks,
            on_drain=on_drain,
        )
        self.asks = Asks(self.redis, settings=settings, name=self.name, frameworks=self.frameworks)
        self.notice = SpotNotice(settings.spot_notice) if settings.spot_notice else None
        self.shutting_down = False

    @property
    def queues(self) -> list[str]:
        """The broker's queues to read; of jobs that must have a GPU only where there is one."""
        names = [wire.queue_name(name) for name in self.frameworks]
        if self.devices != ["cpu"]:
            names += [wire.gpu_queue_name(name) for name in self.frameworks]
        return names

    def start(self) -> None:
        self.template.warm_up()
        if self.settings.store:
            cache_of(self.settings).sweep_in_background()
        self.inventory.start()
        self.gpus.start()
        self.control.start()
        self.disks.start()
        self.presence.start()
        if self.notice is not None:
            self.notice.start()
        self.asks.start()

    def shut_down(self) -> None:
        """Take nothing new and let what trains write its checkpoint; the second time: at once.

        Called in a signal handler of the main thread.
        """
        if self.shutting_down:
            self.control.hurry()
            exit_after(HURRY_SECONDS)
        else:
            self.shutting_down = True
            self.control.shut_down()
            exit_after(self.settings.shutdown_grace_seconds + TIDY_SECONDS)

    def stop(self) -> None:
        """End the side threads; the last thing a worker does."""
        self.control.stop()
        self.gpus.stop()
        self.presence.stop()
        self.disks.stop()
        self.asks.stop()


def start(settings: Settings, *, on_drain: Callable[[bool], None]) -> Runtime:
    """Make and start this process's runtime; ``on_drain`` is told when to take no more jobs."""
    global _current
    _current = Runtime(settings, on_drain=on_drain)
    _current.start()
    return _current


def current() -> Runtime:
    """Return this process's runtime. Raises SettingsError outside a worker."""
    if _current is None:
        raise SettingsError("this process is not a worker; start one with: modelyard worker")
    return _current


def find_attempt(task_id: str) -> Attempt | None:
    """Return the attempt that a Celery task trains here, if it does."""
    return None if _current is None else _current.control.find(task_id)


def choose_frameworks(wanted: tuple[str, ...] | None) -> list[str]:
    """Return the frameworks to serve. Raises SettingsError where one is unknown or missing."""
    installed = installed_frameworks()
    if wanted is None:
        if not installed:
            raise SettingsError(
                "no training framework is installed; install one, for example: "
                "pip install -r requirements/timm.txt"
            )
        return installed
    for name in wanted:
        if name not in known_frameworks():
            known = ", ".join(known_frameworks())
            raise SettingsError(f"MODELYARD_FRAMEWORKS names '{name}'; known are: {known}")
        if name not in installed:
            raise SettingsError(
                f"MODELYARD_FRAMEWORKS names '{name}', which is not installed here; "
                f"install it with: pip install -r requirements/{name}.txt"
            )
    return list(wanted)


def exit_after(seconds: float) -> None:
    """End this process in so many seconds, whatever it then waits for; its children end with it."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def connect(url: str, *, timeout_seconds: float = 10.0) -> redis.Redis:
    """Return a client that gives up on a silent connection and tries again."""
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=min(timeout_seconds, 5.0),
        socket_keepalive=True,
        health_check_interval=10,
        retry=Retry(ExponentialBackoff(cap=1, base=0.1), 2),
        retry_on_error=[redis.ConnectionError, redis.TimeoutError],
    )
