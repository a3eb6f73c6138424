"""`modelyard up`: everything starts, stays, and ends, from one command."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from modelyard.client import Client
from modelyard.settings import load_settings
from modelyard.up import make_plan
from tests.faults.site import PLUGIN
from tests.services import PATIENCE_SECONDS, Spawned, wait_for

READY = re.compile(r"^READY (http://\S+)$", re.MULTILINE)
ROOT = Path(__file__).parents[2]


class Instance(Spawned):
    """A `modelyard up` in a home folder of its own."""

    def __init__(self, home: Path, *options: str, **environ: str) -> None:
        self.home = home
        command = [sys.executable, "-m", "modelyard", "up", "--home", str(home), "--port", "0"]
        super().__init__(
            [*command, *options],
            log=home.with_suffix(".log"),
            environ={**os.environ, "MODELYARD_WEB_PROCESSES": "1", **environ},
            cwd=home.parent,
        )

    def url(self) -> str:
        """Return the address, once it is ready."""

        def ready() -> re.Match[str] | None:
            assert self.alive(), self.output()
            return READY.search(self.output())

        found = wait_for(ready, timeout_seconds=240, what="READY")
        assert found is not None
        return found[1]

    def password(self) -> str:
        return (self.home / "admin.password").read_text().strip()

    def client(self) -> Client:
        client = Client(self.url())
        client.login("admin@modelyard.local", self.password())
        return client

    def below(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children(recursive=True)

    def service(self, *words: str) -> psutil.Process | None:
        """Return the service whose command line has these words."""
        for process in psutil.Process(self.pid).children():
            with suppress(psutil.NoSuchProcess):  # it ended while it was looked at
                line = " ".join(process.cmdline())
                if all(word in line for word in words):
                    return process
        return None


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Instance]]:
    """Start instances that are certainly gone after the test."""
    started: list[Instance] = []

    def start(name: str = "home", *options: str, **environ: str) -> Instance:
        # Of the installed frameworks, all of which `running` serves, the imports take long.
        quick = {"PYTHONPATH": str(PLUGIN), "MODELYARD_FRAMEWORKS": "quick"}
        instance = Instance(tmp_path / name, *options, **{**quick, **environ})
        started.append(instance.__enter__())
        return instance

    yield start
    for instance in started:
        if instance.alive():
            instance.stop()
        instance.__exit__(None, None, None)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """One instance for the tests that only look at it."""
    with Instance(tmp_path_factory.mktemp("running") / "home") as instance:
        instance.url()
        yield instance
        instance.stop()


def test_up_prints_a_line_a_service_and_serves(running: Instance) -> None:
    with running.client() as client:
        assert client.get("/auth/me")["email"] == "admin@modelyard.local"
        workers = wait_for(lambda: list(client.items("/workers")), what="the worker")
        assert workers[0]["frameworks"] == ["huggingface", "timm", "ultralytics"]
    for line in ("redis", "admin", "web", "recorder", "worker", "flower"):
        assert re.search(rf"^{line} ", running.output(), re.MULTILINE), running.output()


def test_secrets_are_in_no_command_line_and_readable_by_their_owner_only(
    running: Instance,
) -> None:
    kept = [p for p in running.home.rglob("*") if p.suffix in (".password", ".key", ".conf")]
    assert len(kept) >= 5
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
    secrets = [path.read_text().strip() for path in kept if path.suffix != ".conf"]
    for process in running.below():
        with suppress(psutil.NoSuchProcess):  # it ended while it was looked at
            line = " ".join(process.cmdline())
            assert not [secret for secret in secrets if secret in line], line


def test_the_web_process_never_imports_what_trains(running: Instance) -> None:
    with running.client() as client:
        client.get("/models")
    web = running.service("gunicorn")
    assert web is not None
    assert web.children()
    for process in web.children():
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        assert "gevent" in maps  # it is the process that serves, not a wrapper of it
        assert "site-packages/torch/" not in maps


def test_a_shell_finds_the_running_instance(running: Instance) -> None:
    assert (running.home / "running.env").stat().st_mode & 0o077 == 0
    inspect = f"{sys.executable} -m celery -A workers.app inspect ping"
    env = f"{sys.executable} -m modelyard env --home {running.home}"
    shell = ["bash", "-c", f'eval "$({env})" && {inspect}']

    def pong() -> bool:
        answer = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, check=False)
        return "pong" in answer.stdout

    wait_for(pong, what="an answer of the worker, which Celery gives a second for it")


def test_another_shell_is_told_where_everything_of_the_instance_lies(tmp_path: Path) -> None:
    chosen = load_settings(
        {
            "MODELYARD_HOME": str(tmp_path), "MODELYARD_PORT": "0",
            "TRAINING_EXECUTION_MODE": "subprocess",
            "MODELYARD_STORE": "s3://bucket/team", "MODELYARD_OUTPUTS": str(tmp_path / "out"),
            "MODELYARD_UPLOADS": str(tmp_path / "in"), "MODELYARD_WEIGHTS": str(tmp_path / "w"),
            "MODELYARD_DATA_CACHE": str(tmp_path / "cache"),
            "DATABASE_URL": f"sqlite:///{tmp_path / 'other.db'}",
        }
    )  # fmt: skip
    told = load_settings(make_plan(chosen).environ())
    for place in ("home", "store", "outputs", "uploads", "weights", "data_cache", "database_url"):
        assert getattr(told, place) == getattr(chosen, place)


def test_where_no_instance_runs_the_shell_is_told_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "modelyard", "env", "--home", str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert "no instance runs on" in answer.stderr


def test_a_running_instance_is_backed_up_by_its_home_alone_and_not_restored_into(
    running: Instance, tmp_path: Path
) -> None:
    with running.client() as client:
        client.post("/projects", {"name": "Kept"})
        projects = len(list(client.items("/projects")))
    file = tmp_path / "backup.tar.gz"
    taken = _modelyard("backup", "--home", str(running.home), str(file))
    assert taken.returncode == 0, taken.stderr
    refused = _modelyard("restore", "--replace", "--home", str(running.home), str(file))
    assert refused.returncode == 1
    assert f"'modelyard up' runs on {running.home}; stop it first" in refused.stderr
    other = tmp_path / "other"
    restored = _modelyard("restore", "--home", str(other), str(file))
    assert restored.returncode == 0, restored.stderr
    assert re.search(rf"1 user, {projects} projects?\b", restored.stdout), restored.stdout
    assert (other / "secret.key").read_text() == (running.home / "secret.key").read_text()


def _modelyard(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "modelyard", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_second_up_on_the_same_home_is_refused(running: Instance, tmp_path: Path) -> None:
    second = Instance(running.home)
    second.log = tmp_path / "second.log"
    with second:
        assert second.wait() == 2
    assert f"(process {running.pid}) runs on {running.home}" in second.output()
    assert running.alive()


def test_flower_asks_for_its_login(running: Instance) -> None:
    found = re.search(r"^flower +(\S+) \(user admin", running.output(), re.MULTILINE)
    assert found is not None
    password = (running.home / "flower.password").read_text().strip()

    def tasks() -> bool:
        try:
            answer = httpx.get(f"{found[1]}/api/tasks", auth=("admin", password), timeout=5)
        except httpx.TransportError:
            return False
        return answer.status_code == 200 and isinstance(answer.json(), dict)

    wait_for(tasks, what="Flower")
    for wrong in (None, ("admin", "guess")):
        answer = httpx.get(f"{found[1]}/api/tasks", auth=wrong, timeout=PATIENCE_SECONDS)
        assert answer.status_code == 401


def test_a_stop_leaves_no_process_and_a_second_start_tells_no_password(
    start: Callable[..., Instance],
) -> None:
    first = start()
    first.url()
    password = first.password()
    assert password in first.output()
    below = wait_for(
        lambda: len(found := first.below()) > 6 and found, what="the children of the services"
    )
    assert first.stop() == 0
    assert not [process for process in below if process.is_running()]

    first.log.unlink()
    second = start()
    with second.client() as client:
        assert client.get("/auth/me")
    assert password not in second.output()
    below = second.below()
    second.process.send_signal(signal.SIGINT)  # Ctrl-C
    assert second.wait() == 0
    assert not [process for process in below if process.is_running()]


def test_killed_services_are_started_again_and_die_with_an_up_that_is_killed(
    start: Callable[..., Instance],
) -> None:
    instance = start()
    url = instance.url()
    for words in (("valkey-server",), ("gunicorn",), ("webapp.recorder",), ("-m", "workers")):
        victim = instance.service(*words)
        assert victim is not None
        victim.kill()

        def fresh(words: tuple[str, ...] = words, old: int = victim.pid) -> bool:
            now = instance.service(*words)
            return now is not None and now.pid != old

        wait_for(fresh, what=f"another {words}")
    wait_for(lambda: _is_ready(url), what="readiness after the restarts")

    below = instance.below()
    instance.process.kill()
    # The template sees the end of its worker once it has imported its frameworks.
    _, alive = psutil.wait_procs(below, timeout=PATIENCE_SECONDS)
    assert not alive, [process.cmdline() for process in alive]


def test_two_instances_run_side_by_side(running: Instance, start: Callable[..., Instance]) -> None:
    second = start("two", "--frameworks", "timm")
    with running.client() as one, second.client() as two:
        project = one.post("/projects", {"name": "Only in the first"})
        assert project["id"] in [item["id"] for item in one.items("/projects")]
        assert list(two.items("/projects")) == []
        (worker,) = wait_for(lambda: list(two.items("/workers")), what="the worker")
        assert worker["frameworks"] == ["timm"]


def test_a_port_in_use_is_refused_in_a_sentence(start: Callable[..., Instance]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        instance = start("home", "--port", port)
        assert instance.wait() == 2
    assert f"port {port} of 127.0.0.1 is in use" in instance.output()
    assert "MODELYARD_PORT" in instance.output()


def test_a_wrong_setting_is_refused_before_anything_starts(tmp_path: Path) -> None:
    environ = {**os.environ, "MODELYARD_CANCEL_GRACE_SECONDS": "soon"}
    command = [sys.executable, "-m", "modelyard", "up", "--home", str(tmp_path / "home")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "MODELYARD_CANCEL_GRACE_SECONDS is 'soon' but must be a number of" in done.stderr
    assert not (tmp_path / "home").exists()


def test_an_instance_that_cannot_start_says_why_and_leaves_nothing(
    start: Callable[..., Instance],
) -> None:
    instance = start("home", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert instance.wait() == 2
    assert "'migrate' failed" in instance.output()
    assert "READY" not in instance.output()


def test_outside_services_are_used_where_they_are_named(
    start: Callable[..., Instance], redis_url: str, postgres_url: str
) -> None:
    instance = start("home", REDIS_URL=redis_url, DATABASE_URL=postgres_url)
    with instance.client() as client:
        assert wait_for(lambda: list(client.items("/workers")), what="the worker")
    assert instance.service("valkey-server") is None
    assert not (instance.home / "modelyard.db").exists()


def test_without_a_broker_there_is_neither_redis_nor_worker_nor_flower(
    start: Callable[..., Instance],
) -> None:
    instance = start("home", TRAINING_EXECUTION_MODE="subprocess")
    url = instance.url()
    assert wait_for(lambda: _is_ready(url), what="readiness")
    names = {line.split()[0] for line in instance.output().splitlines() if line[:1].strip()}
    assert names == {"admin", "web", "recorder", "READY"}


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5):
            return True
    except OSError:
        return False


def test_a_stop_while_the_database_is_made_starts_nothing_more(
    start: Callable[..., Instance], tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir(mode=0o700)
    with (tmp_path / "home" / "migrate.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # it is not made before the stop
        instance = start()
        wait_for(lambda: "redis" in instance.output(), what="the first service")
        _interrupt(instance)
    assert instance.wait() == 0
    assert "stopping" in instance.output()
    assert "web " not in instance.output()
    assert not (instance.home / "running.env").exists()


def _interrupt(instance: Instance) -> None:
    """Press Ctrl-C in the instance's terminal."""
    for process in [*instance.below(), psutil.Process(instance.pid)]:
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == os.getpgid(instance.pid):
                process.send_signal(signal.SIGINT)


def test_an_address_of_another_machine_is_refused_in_a_sentence(
    start: Callable[..., Instance],
) -> None:
    instance = start("home", "--host", "203.0.113.7")  # set aside for documentation
    assert instance.wait() == 2
    assert "cannot listen on port" in instance.output()
    assert "MODELYARD_HOST to an address of this machine" in instance.output()


def test_a_full_disk_is_told_before_anything_starts(
    start: Callable[..., Instance], small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("500k")
    instance = start("log", "--home", str(disk / "home"))
    assert instance.wait() == 2
    assert f"the disk of {disk / 'home'} is full (" in instance.output()
    assert not (disk / "home" / "up.lock").exists()
