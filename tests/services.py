"""Real services for tests: a Redis-compatible server and PostgreSQL, started by the tests.

Nothing here imports pytest; the fixtures are in ``conftest.py``. A server dies with the process
that started it, so an interrupted test run leaves nothing behind.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import boto3
import botocore.exceptions
import psutil
import psycopg
import redis

from modelyard import redis_server
from modelyard.ports import free_port
from modelyard.process import die_with_parent

T = TypeVar("T")
ROOT = Path(__file__).parent.parent
POSTGRES_BINARIES = "/usr/lib/postgresql/*/bin/pg_ctl"
# What takes a moment on a quiet machine takes many on one that other tests use, too: a limit on a
# wait tells that something never comes, not that it came late.
PATIENCE_SECONDS = 120.0
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def wait_for(
    condition: Callable[[], T],
    *,
    timeout_seconds: float = PATIENCE_SECONDS,
    what: str = "the condition",
    pause_seconds: float = 0.05,
) -> T:
    """Return what `condition` returns once it is true. Raises TimeoutError saying what was not."""
    deadline = time.monotonic() + timeout_seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come about within {timeout_seconds:g} s")
        time.sleep(pause_seconds)
    return value


_reserved: deque[socket.socket] = deque(maxlen=100)  # of so many, the first is long over


def own_port() -> int:
    """Return a loopback port that no other test is given, while this one runs.

    It is bound and not listened on: whoever connects is refused until a server has it, which on
    Linux each can that sets SO_REUSEADDR, also where another had it and was killed.
    """
    while True:
        port = free_port()
        if sys.platform != "linux":
            return port
        holder = socket.socket()
        with suppress(OSError):  # somebody else was faster
            holder.bind(("127.0.0.1", port))
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _reserved.append(holder)
            return port


class RedisService:
    """A server of its own with a password; may be killed, frozen and started again."""

    def __init__(self, folder: Path) -> None:
        self.server = redis_server.prepare(folder, port=own_port())
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.server.url

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, decode_responses=True)

    def start(self) -> None:
        log = (self.server.folder / "redis.log").open("ab")
        with log:
            self.process = process = subprocess.Popen(
                self.server.command,
                stdout=log,
                stderr=log,
                preexec_fn=partial(die_with_parent, os.getpid()),
            )
        redis_server.wait_until_ready(
            self.url, timeout_seconds=PATIENCE_SECONDS, alive=lambda: process.poll() is None
        )
        with self.client() as client:
            client.config_set("aof-timestamp-enabled", "yes")  # see forget()

    def kill(self) -> None:
        """End it as a power cut would."""
        self._signal(signal.SIGKILL)
        self.wait()

    def forget(self, *, seconds: float | None) -> int:
        """Cut the log of a killed server, as a power cut does; return how many bytes are lost.

        ``seconds``: what it had written last, and perhaps not synced; None: everything.
        """
        assert self.process is not None
        assert self.process.poll() is not None, "kill it first"
        if seconds is None:
            shutil.rmtree(self.server.folder / "appendonlydir")
            return 0
        logs = self.server.folder.glob("appendonlydir/*.incr.aof")
        log = max(logs, key=lambda path: path.stat().st_mtime)
        size, kept = log.stat().st_size, _place_before(log, seconds)
        os.truncate(log, kept)
        return size - kept

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.thaw()
            self._signal(signal.SIGTERM)
            self.wait()

    def wait(self) -> None:
        assert self.process is not None
        self.process.wait(timeout=PATIENCE_SECONDS)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)


def _place_before(log: Path, seconds: float) -> int:
    """Return where in an append-only log its last seconds begin, by its own notes of the time."""
    content = log.read_bytes()
    notes = [(int(m[1]), m.start()) for m in re.finditer(rb"#TS:(\d+)\r\n", content)]
    if not notes:
        return len(content)
    last = notes[-1][0]
    return min(place for second, place in notes if second > last - seconds)


class PostgresService:
    """A PostgreSQL of its own, without fsync: fast, and gone after the tests."""

    def __init__(self) -> None:
        self.binaries = postgres_binaries()
        self.port = own_port()
        _remove_left_databases()
        # Not below pytest's folder, which is closed to the user that PostgreSQL runs as.
        self.folder = Path(tempfile.mkdtemp(prefix="modelyard-postgres-"))
        # PostgreSQL refuses to run as root.
        self.user = "postgres" if os.getuid() == 0 else None

    def start(self) -> None:
        if self.user:
            shutil.chown(self.folder, self.user, self.user)
        self._initdb()
        command = [
            str(self.binaries / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port),
            "-k", str(self.folder), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off",
            "-c", "synchronous_commit=off",
            "-c", "full_page_writes=off", "-c", "max_connections=200",
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder,
                preexec_fn=partial(die_with_parent, os.getpid()),
                user=self.user, group=self.user, extra_groups=[] if self.user else None,
            )  # fmt: skip
        wait_for(self._answers, what="an answer of PostgreSQL")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=PATIENCE_SECONDS)
        shutil.rmtree(self.folder)

    def create_database(self) -> str:
        """Return the URL of a fresh, empty database."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://modelyard@127.0.0.1:{self.port}/{name}"

    def refuse(self, url: str) -> None:
        """Let nobody into a database and throw out who is, as one that is away does."""
        name = url.rsplit("/", 1)[1]
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
            )

    def accept(self, url: str) -> None:
        name = url.rsplit("/", 1)[1]
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    def drop_database(self, url: str) -> None:
        name = url.rsplit("/", 1)[1]
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _dsn(self, database: str) -> str:
        return f"postgresql://modelyard@127.0.0.1:{self.port}/{database}"

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._dsn("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    def _initdb(self) -> None:
        command = [str(self.binaries / "initdb"), "-D", str(self.folder / "data")]
        command += ["-U", "modelyard", "-A", "trust", "-E", "UTF8", "--no-sync"]
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, check=False,
            user=self.user, group=self.user, extra_groups=[] if self.user else None,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed: {done.stderr.strip()}")


class S3Service:
    """A real S3 server; may be frozen or killed and started again, and tells its requests."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.log = folder / "s3.log"
        self.port = own_port()

    @property
    def environ(self) -> dict[str, str]:
        """What a process needs to reach it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                python("-m", "tests.s3_server", str(self.port), str(self.folder / "objects")),
                stdout=log, stderr=log, cwd=ROOT,
                preexec_fn=partial(die_with_parent, os.getpid()),
            )  # fmt: skip
        wait_for(self._answers, what="an answer of the S3 server")

    def kill(self) -> None:
        """End it as a power cut would; started again, it has the objects it had answered for."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.thaw()
        self.kill()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def create_bucket(self) -> str:
        """Return the name of a fresh, empty bucket."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name

    def client(self) -> Any:
        environ = self.environ
        return boto3.client(
            "s3",
            endpoint_url=environ["AWS_ENDPOINT_URL"],
            aws_access_key_id=environ["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
            region_name=environ["AWS_DEFAULT_REGION"],
        )

    def requests(self, method: str, path: str) -> int:
        """Return how many requests of a method it has answered whose path holds a text."""
        asked = re.findall(rf'"{method} (\S+) HTTP', self.log.read_text(errors="replace"))
        return sum(path in place for place in asked)

    def _answers(self) -> bool:
        try:
            self.client().list_buckets()
        except botocore.exceptions.BotoCoreError:
            return False
        return True


def _remove_left_databases() -> None:
    """Remove the folders of servers that were killed with the tests that had started them."""
    for file in Path(tempfile.gettempdir()).glob("modelyard-postgres-*/data/postmaster.pid"):
        try:
            if not psutil.pid_exists(int(file.read_text().split()[0])):
                shutil.rmtree(file.parents[1], ignore_errors=True)
        except (OSError, ValueError, IndexError):
            continue  # it is just being started or stopped


def postgres_binaries() -> Path:
    """Return the folder of PostgreSQL's newest binaries.

    Raises FileNotFoundError saying what to install.
    """
    found = sorted(Path("/").glob(POSTGRES_BINARIES[1:]), key=lambda p: _version(p.parts[-3]))
    on_path = shutil.which("pg_ctl")
    if not found and on_path is None:
        raise FileNotFoundError("PostgreSQL is not installed; run: apt-get install postgresql")
    return found[-1].parent if found else Path(str(on_path)).resolve().parent


def chromium() -> str:
    """Return Chromium's path. Raises FileNotFoundError saying what to install."""
    for name in CHROMIUM_NAMES:
        if path := shutil.which(name):
            return path
    raise FileNotFoundError("Chromium is not installed; run: apt-get install chromium")


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def python(*arguments: str) -> list[str]:
    """Return a command of this environment's interpreter."""
    return [sys.executable, *arguments]


class Spawned:
    """A process with its output in a file; use it as a context manager."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.command = [str(word) for word in command]
        self.environ = dict(os.environ if environ is None else environ)
        self.log = log
        self.cwd = cwd

    def __enter__(self) -> Self:
        program = shutil.which(self.command[0], path=self.environ.get("PATH"))
        assert program is not None, self.command
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [program, *self.command[1:]],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environ, cwd=self.cwd,
                preexec_fn=partial(die_with_parent, os.getpid()),
            )  # fmt: skip
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.alive():
            self.process.kill()
        self.process.wait()

    @property
    def pid(self) -> int:
        return self.process.pid

    def alive(self) -> bool:
        return self.process.poll() is None

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(
        self, condition: Callable[[], T], *, timeout_seconds: float = PATIENCE_SECONDS, what: str
    ) -> T:
        """Return what `condition` returns once it is true. Fails at once when the process ends."""

        def met() -> T:
            assert self.alive(), f"ended before {what}:\n{self.output()}"
            return condition()

        return wait_for(met, timeout_seconds=timeout_seconds, what=what)

    def wait(self, *, timeout_seconds: float = PATIENCE_SECONDS) -> int:
        return self.process.wait(timeout=timeout_seconds)

    def stop(self, *, timeout_seconds: float = PATIENCE_SECONDS) -> int:
        """Ask it to stop as a supervisor does, and return its exit status."""
        self.process.terminate()
        return self.wait(timeout_seconds=timeout_seconds)


def answers(command: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Tell whether a command ends with status 0."""
    program = shutil.which(command[0], path=environ.get("PATH"))
    assert program is not None, command
    done = subprocess.run(
        [program, *command[1:]],
        env=environ, capture_output=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    return done.returncode == 0
