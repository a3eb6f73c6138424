"""`modelyard up`: everything on one machine, from one command.

    home/
    ├── up.lock             held while it runs, so that one home serves once
    ├── modelyard.db        SQLite, unless DATABASE_URL names another database
    ├── redis/              password, configuration and append-only log of the embedded server
    ├── logs/<service>.log
    ├── data/  outputs/  weights/
    ├── secret.key, flower.password, admin.password (0600)
    └── running.env          while it runs: what its processes are told (0600; `modelyard env`)

Order of shutdown: the worker first, so that its children write checkpoints and their jobs go
back to the queue while Redis and the recorder still listen; Redis last.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from adapters import installed_frameworks
from modelyard import launch, ports, redis_server
from modelyard.disk import readable, room
from modelyard.errors import ModelyardError
from modelyard.health import local_url
from modelyard.settings import Settings, kept_secret, write_private
from modelyard.supervisor import Service, Supervisor, tail

ENVIRON_FILE = "running.env"
READY_SECONDS = 180.0  # of a slow or busy host; what fails at its start is told much sooner
HOPELESS_FAILURES = 3  # a service that ended so often before READY will not come up by waiting
SETUP_SECONDS = 120.0
LEAST_FREE_BYTES = 1_000_000  # with less, neither Redis nor the database could begin
WORKER_STOP_MARGIN_SECONDS = 0.5  # for the worker itself, after its children's grace


class UpError(ModelyardError):
    """The services cannot be started."""


@dataclass(frozen=True)
class Plan:
    """Where everything listens and lies, with every free port chosen."""

    settings: Settings
    port: int
    flower_port: int
    redis: redis_server.RedisServer | None  # None: an outside server, or a mode without one

    @property
    def url(self) -> str:
        return local_url(self.settings.host, self.port)

    @property
    def flower_url(self) -> str:
        default = local_url(self.settings.host, self.flower_port)
        return self.settings.flower_url or default

    @property
    def redis_url(self) -> str | None:
        return self.redis.url if self.redis else self.settings.redis_url

    @property
    def uses_queue(self) -> bool:
        return self.settings.execution_mode == "celery"

    def environ(self) -> dict[str, str]:
        """Return what every service is told, whatever the environment of `up` says."""
        s = self.settings
        told = {
            "MODELYARD_HOME": str(s.home),
            "MODELYARD_HOST": s.host,
            "MODELYARD_PORT": str(self.port),
            "MODELYARD_FLOWER_PORT": str(self.flower_port),
            "MODELYARD_DATA_ROOTS": ":".join(str(root) for root in s.data_roots),
            "MODELYARD_UPLOADS": str(s.uploads),
            "MODELYARD_OUTPUTS": str(s.outputs),
            "MODELYARD_DATA_CACHE": str(s.data_cache),
            "MODELYARD_WEIGHTS": str(s.weights),
            "MODELYARD_WORKER_NAME": s.worker_name,
            "DATABASE_URL": s.database_url,
            "TRAINING_EXECUTION_MODE": s.execution_mode,
            "PYTHONUNBUFFERED": "1",  # a log that lags behind is no help
        }
        if s.store:
            told["MODELYARD_STORE"] = s.store
        if s.frameworks:
            told["MODELYARD_FRAMEWORKS"] = ",".join(s.frameworks)
        if self.uses_queue:
            told["MODELYARD_FLOWER_URL"] = self.flower_url
        if self.redis_url:
            told["REDIS_URL"] = self.redis_url
        if self.redis:
            # All on this host: no worker can be cut off from this Redis alone.
            told["MODELYARD_REDIS_AWAY"] = "train"
        return told


def up(
    settings: Settings,
    *,
    say: Callable[[str], None],
    supervisor: Supervisor | None = None,
    ready: Callable[[Plan], None] = lambda plan: None,
) -> None:
    """Start everything, call `ready` once it serves, and keep it running until a signal.

    Raises UpError or RedisServerError, with everything stopped again, where it cannot start.
    """
    supervisor = supervisor or Supervisor(say=say)
    supervisor.handle_signals()
    _make_folders(settings)
    _require_room(settings.home)
    with _only_one(settings.home):
        plan = make_plan(settings)
        environ_file = settings.home / ENVIRON_FILE
        try:
            write_private(environ_file, "".join(f"{k}={v}\n" for k, v in plan.environ().items()))
            _start(plan, supervisor, say)
            if not supervisor.stopping:
                say(f"READY {plan.url}")
                ready(plan)
            supervisor.watch()
        finally:
            supervisor.stop()
            environ_file.unlink(missing_ok=True)


def make_plan(settings: Settings) -> Plan:
    """Choose the ports. Raises UpError naming one that is taken."""
    port = _port("MODELYARD_PORT", settings.host, settings.port)
    uses_queue = settings.execution_mode == "celery"
    flower_port = 0
    if uses_queue:
        flower_port = _port("MODELYARD_FLOWER_PORT", settings.host, settings.flower_port)
    server = None
    if uses_queue and settings.redis_url is None:
        redis_port = _port("MODELYARD_REDIS_PORT", "127.0.0.1", settings.redis_port)
        server = redis_server.prepare(settings.home / "redis", port=redis_port)
    return Plan(settings=settings, port=port, flower_port=flower_port, redis=server)


def services(plan: Plan) -> Iterator[Service]:
    """Yield what runs beside the embedded server, in the order of the start."""
    s = plan.settings
    web = launch.web_command(host=s.host, port=plan.port, processes=s.web_processes)
    yield _service(plan, "web", web, about=plan.url)
    recorder = launch.recorder_command()
    yield _service(plan, "recorder", recorder, about="keeps the database true")
    if not plan.uses_queue:
        return
    if frameworks := s.frameworks or tuple(installed_frameworks()):
        about = "trains " + ", ".join(frameworks)
        worker = _service(plan, "worker", launch.worker_command(), about=about)
        grace = s.shutdown_grace_seconds + WORKER_STOP_MARGIN_SECONDS
        yield replace(worker, stop_stage=0, stop_seconds=grace)
    where = "MODELYARD_FLOWER_PASSWORD" if s.flower_password else s.home / "flower.password"
    about = f"{plan.flower_url} (user {s.flower_user}, password in {where})"
    flower = launch.flower_command(host=s.host, port=plan.flower_port)
    environ = {**plan.environ(), **launch.flower_environ(s)}
    yield replace(_service(plan, "flower", flower, about=about), environ=environ)


def _start(plan: Plan, supervisor: Supervisor, say: Callable[[str], None]) -> None:
    if plan.redis:
        _start_redis(plan, plan.redis, supervisor)
    if supervisor.stopping:
        return
    _manage(plan, "migrate")
    _ensure_admin(plan, say)
    for service in services(plan):
        supervisor.start(service)
    if plan.uses_queue and not (plan.settings.frameworks or installed_frameworks()):
        say("worker     none: no framework is installed here, jobs wait for a GPU box to join")
    _wait_until_ready(plan, supervisor)


def _start_redis(plan: Plan, server: redis_server.RedisServer, supervisor: Supervisor) -> None:
    log = _log(plan, "redis")
    about = f"127.0.0.1:{server.port}, log in {server.folder}"
    supervisor.start(
        Service("redis", server.command, log, about=about, stop_stage=2, stop_seconds=1.0)
    )
    try:
        redis_server.wait_until_ready(
            server.url, timeout_seconds=READY_SECONDS, alive=lambda: supervisor.alive("redis")
        )
    except redis_server.RedisServerError as error:
        if supervisor.stopping:
            return  # it was not even started
        raise UpError(f"{error}; the end of {log}:\n{tail(log)}") from error


def _ensure_admin(plan: Plan, say: Callable[[str], None]) -> None:
    """Create the administrator of a new database, and tell a password that was made up."""
    given, kept_in = plan.settings.admin_password, plan.settings.home / "admin.password"
    # Kept beside the other secrets, so that `modelyard demo` can log in as well.
    password = given or kept_secret(kept_in, nbytes=9)
    created = _manage(plan, "ensure-admin", MODELYARD_ADMIN_PASSWORD=password)
    if created:
        say(f"{'admin':<10} {plan.settings.admin_email}")
    if created and not given:
        say(f"{'':<10} password {password} (not shown again; kept in {kept_in})")


def _manage(plan: Plan, command: str, **environ: str) -> str:
    """Run a command of `webapp.manage` to its end and return what it printed."""
    log = _log(plan, command)
    with log.open("wb") as file:
        done = subprocess.run(
            launch.manage_command(command),
            env={**os.environ, **plan.environ(), **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file,
            timeout=SETUP_SECONDS,
            check=False,
            text=True,
            start_new_session=True,  # Ctrl-C does not cut it off: it is done in a moment
        )
    if done.returncode != 0:
        raise UpError(f"'{command}' failed; the end of {log}:\n{done.stdout}{tail(log)}")
    return done.stdout


def _wait_until_ready(plan: Plan, supervisor: Supervisor) -> None:
    deadline = time.monotonic() + READY_SECONDS
    answer = ""

    def settled() -> bool:
        nonlocal answer
        answer = _readyz(plan)
        late = time.monotonic() > deadline
        return not answer or late or supervisor.failures("web") >= HOPELESS_FAILURES

    supervisor.watch(until=settled)
    if answer and not supervisor.stopping:
        log = _log(plan, "web")
        raise UpError(
            f"the web process is not ready at {plan.url}/readyz: {answer}; "
            f"the end of {log}:\n{tail(log)}"
        )


def _readyz(plan: Plan) -> str:
    """Return why the instance is not ready yet; empty when it is."""
    try:
        with urllib.request.urlopen(f"{plan.url}/readyz", timeout=5):  # noqa: S310 (our own URL)
            return ""
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode(errors="replace")[:500]
    except OSError as error:
        return str(error)


def _service(plan: Plan, name: str, command: Sequence[str], *, about: str) -> Service:
    return Service(name, command, _log(plan, name), about=about, environ=plan.environ())


def _log(plan: Plan, name: str) -> Path:
    return plan.settings.home / "logs" / f"{name}.log"


def _make_folders(settings: Settings) -> None:
    try:
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (
            settings.home / "logs",
            settings.uploads,
            settings.outputs,
            settings.weights,
        ):
            folder.mkdir(parents=True, exist_ok=True)
        if settings.data_roots == (settings.home / "data",):
            settings.data_roots[0].mkdir(exist_ok=True)
    except OSError as error:
        raise UpError(f"cannot make {error.filename}: {error.strerror}") from error


def _require_room(home: Path) -> None:
    left = room(home)
    if left is not None and left.free < LEAST_FREE_BYTES:
        raise UpError(
            f"the disk of {home} is full ({readable(left.free)} free): make room, for example with "
            "'modelyard gc', or choose another folder with --home"
        )


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Hold the home's lock; the kernel lets go of it however this process ends."""
    with (home / "up.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UpError(
                f"another 'modelyard up' (process {lock.read().strip()}) runs on {home}; "
                "stop it, or choose another folder with --home"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _port(variable: str, host: str, port: int) -> int:
    port = port or ports.free_port()
    try:
        taken = ports.port_in_use(host, port)
    except OSError as error:
        raise UpError(
            f"cannot listen on port {port} of {host}: {error.strerror}; set MODELYARD_HOST to an "
            f"address of this machine, and {variable} to a port from 1024 on"
        ) from error
    if taken:
        raise UpError(
            f"port {port} of {host} is in use by another program; "
            f"choose another with {variable} (0 takes a free one)"
        )
    return port
