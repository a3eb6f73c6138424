"""`make chaos`: kill at random among web, recorders, workers, children and Redis while jobs train.

Prints a table of what was killed and of what was found wrong afterwards, and ends with status 1
where anything was. The same seed gives the same jobs and the same order of kills; when exactly
one hits what is up to the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from modelyard.client import ApiError, Client, ClientError, Conflict, Unreachable
from modelyard.ports import free_port
from modelyard.process import die_with_parent
from tests.factories import environment
from tests.faults.invariants import ENDED, Findings, Invariants
from tests.faults.site import PLUGIN, make_images, processes_of, trains
from tests.services import PostgresService, RedisService, wait_for
from tests.worker_service import ROOT

PASSWORD = "correct horse battery staple"
SETTLE_SECONDS = 240.0
LEAVING_SECONDS = 10.0  # of what a process that was killed has started
POWER_CUTS = 0.4  # of Redis's deaths, those that cost it its last second
# Of ten jobs some are short, then more long ones come than there are workers, and when those train
# an urgent one that takes a place.
LONG, URGENT = (3, 4, 5, 6, 7), 8
URGENT_AFTER_SECONDS = 5.0
WEIGHTS = {"worker": 25, "child": 25, "recorder": 20, "redis": 18, "web": 12}


class Part:
    """A process of the instance that is started again after each kill, as a supervisor would."""

    def __init__(self, name: str, command: list[str], environ: dict[str, str], home: Path) -> None:
        self.name = name
        self.command = command
        self.environ = environ
        self.log = home / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.start_at = 0.0

    def tend(self) -> None:
        """Start it where it does not run and its time has come."""
        if self.process is not None and self.process.poll() is None:
            return
        if time.monotonic() < self.start_at:
            return
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env=self.environ, stdout=log, stderr=log,
                preexec_fn=partial(die_with_parent, os.getpid()),
            )  # fmt: skip
        self.start_at = time.monotonic() + 1.0

    def kill(self, *, down_seconds: float) -> bool:
        if self.process is None or self.process.poll() is not None:
            return False
        self.process.kill()
        self.process.wait()
        self.start_at = time.monotonic() + down_seconds
        return True

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Chaos:
    """One run."""

    def __init__(self, home: Path, *, database_url: str, seed: int, jobs: int) -> None:
        self.home = home
        self.random = random.Random(seed)
        self.job_count = jobs
        self.database_url = database_url
        self.redis = RedisService(home / "redis")
        self.redis_up_at: float | None = None
        self.port = free_port()
        self.client = Client(f"http://127.0.0.1:{self.port}")
        make_images(home / "data" / "tiny")
        told = environment(
            home, database_url=database_url, redis_url=self.redis.url,
            MODELYARD_DATA_ROOTS=str(home / "data"), MODELYARD_GPUS="",
            MODELYARD_MAX_ATTEMPTS="100", MODELYARD_FRAMEWORKS="quick",
            MODELYARD_ADMIN_EMAIL="admin@example.org", MODELYARD_ADMIN_PASSWORD=PASSWORD,
        )  # fmt: skip
        clean = {k: v for k, v in os.environ.items() if not k.startswith("MODELYARD_")}
        self.environ = {**clean, **told, "PYTHONPATH": str(PLUGIN)}
        self.parts = [self._web(), *(self._recorder(n) for n in (1, 2))]
        self.parts += [self._worker(n) for n in (1, 2, 3)]
        self.next_kind: str | None = None
        self.kills: Counter[str] = Counter()
        self.accepted: dict[int, str] = {}
        self.displaced = 0  # attempts that gave their place to an urgent job

    def _python(self, name: str, *arguments: str, **environ: str) -> Part:
        command = [sys.executable, "-m", *arguments]
        return Part(name, command, {**self.environ, **environ}, self.home)

    def _web(self) -> Part:
        return self._python(
            "web", "gunicorn", "webapp.wsgi:app", "-k", "gevent", "-w", "1",
            "--graceful-timeout", "5", "--no-control-socket", "--bind", f"127.0.0.1:{self.port}",
        )  # fmt: skip

    def _recorder(self, number: int) -> Part:
        return self._python(f"recorder{number}", "webapp.recorder")

    def _worker(self, number: int) -> Part:
        name = f"w{number}"
        return self._python(f"worker{number}", "workers", MODELYARD_WORKER_NAME=name)

    # What a person does.

    def prepare(self) -> None:
        self.redis.start()
        for command in ("migrate", "ensure-admin"):
            subprocess.run(
                [sys.executable, "-m", "webapp.manage", command],
                cwd=ROOT, env=self.environ, check=True, capture_output=True,
            )  # fmt: skip

    def begin(self) -> None:
        """Log in and make the project that the jobs are in, once the web process answers."""
        self._insist(lambda: self.client.login("admin@example.org", PASSWORD))
        self.project = self._insist(lambda: self.client.post("/projects", {"name": "chaos"}))["id"]

    def submit(self) -> None:
        """Create a job and start it, through whatever goes wrong meanwhile."""
        place = len(self.accepted) % 10
        long = {"steps": 50, "step_seconds": 0.06, "loaders": 0}  # 24 s
        urgent = {"priority": 9, "preempt": True}
        body = {
            "project_id": self.project,
            "framework": "quick",
            "model_name": "lcg",
            "task_type": "image_classification",
            "dataset_path": str(self.home / "data" / "tiny"),
            "epochs": self.random.randint(3, 8),
            "batch_size": 8,
            "learning_rate": 0.1,
            "seed": self.random.randrange(1000),
            "hyperparameters": {
                "steps": self.random.choice([5, 20, 40]),
                "step_seconds": self.random.choice([0.005, 0.02, 0.04]),
                "loaders": self.random.choice([0, 0, 1]),
            },
        } | ({"epochs": 8, "hyperparameters": long} if place in LONG else {})
        body |= urgent if place == URGENT else {}
        job_id = self._insist(lambda: self.client.post("/training/jobs", body))["id"]
        try:
            self._insist(lambda: self.client.post(f"/training/jobs/{job_id}/start"))
        except Conflict:  # it was started by a request whose answer was lost
            pass
        self.accepted[job_id] = "completed"

    def _insist(self, ask: Callable[[], Any]) -> Any:
        """Ask until the web process answers; keeps the parts running meanwhile."""
        deadline = time.monotonic() + 120
        while True:
            try:
                return ask()
            except (Unreachable, ApiError) as error:
                away = isinstance(error, Unreachable) or error.status >= 500
                if not away or time.monotonic() > deadline:
                    raise
            self.tend()
            time.sleep(0.2)

    # What a bad week does.

    def tend(self) -> None:
        if self.redis_up_at is not None and time.monotonic() >= self.redis_up_at:
            self.redis_up_at = None
            self.redis.start()
        for part in self.parts:
            part.tend()

    def kill_something(self) -> bool:
        """Kill a part, once it is there; tell whether it was."""
        kind = self.next_kind or self.random.choices([*WEIGHTS], [*WEIGHTS.values()])[0]
        down_seconds = self.random.uniform(0.2, 4.0)
        killed = self._kill(kind, down_seconds)
        self.next_kind = None if killed else kind
        self.kills[kind] += killed
        return killed

    def _kill(self, kind: str, down_seconds: float) -> bool:
        if kind == "redis":
            if self.redis_up_at is not None:
                return False
            self.redis.kill()
            if self.random.random() < POWER_CUTS:
                self.redis.forget(seconds=1.0)
            self.redis_up_at = time.monotonic() + down_seconds
            return True
        if kind == "child":
            children = [p for p in processes_of(self.home) if trains(p)]
            if not children:
                return False
            try:
                self.random.choice(children).kill()
            except psutil.NoSuchProcess:  # it has just ended
                return False
            return True
        part = self.random.choice([p for p in self.parts if p.name.startswith(kind)])
        return part.kill(down_seconds=down_seconds)

    def run(self, *, minutes: float) -> None:
        """Submit and kill for so long, then repair everything and wait for the jobs to end."""
        begun = time.monotonic()
        seconds = minutes * 60
        submit_every = 0.7 * seconds / self.job_count
        next_submit, next_kill = begun, begun + 2
        while time.monotonic() < begun + seconds or len(self.accepted) < self.job_count:
            self.tend()
            if time.monotonic() >= next_kill and time.monotonic() < begun + seconds:
                pause = self.random.uniform(1.0, 4.0) if self.kill_something() else 0.2
                next_kill = time.monotonic() + pause
            if time.monotonic() >= next_submit and len(self.accepted) < self.job_count:
                self.submit()
                next_submit += self._pause_before_next(submit_every)
            time.sleep(0.05)

    def _pause_before_next(self, usual_seconds: float) -> float:
        place = len(self.accepted) % 10
        if place in LONG[1:]:
            return 0.0
        return URGENT_AFTER_SECONDS if place == URGENT else usual_seconds

    def settle(self) -> float:
        """Wait until every job has ended or the time is up; return the seconds it took."""
        begun = time.monotonic()
        while time.monotonic() < begun + SETTLE_SECONDS:
            self.tend()
            try:
                jobs = self.client.items("/training/jobs")
                ids = {job["id"] for job in jobs if job["status"] in ENDED}
                # One whose creation was not answered is there twice, and is never started.
                if ids >= self.accepted.keys():
                    break
            except ClientError:
                pass
            time.sleep(0.5)
        return time.monotonic() - begun

    def check(self) -> Findings:
        looks = Invariants(self.home, database_url=self.database_url, redis=self.redis)
        self.displaced = looks.displaced()
        found = looks.check(accepted=self.accepted)
        self.stop_all()
        try:
            wait_for(lambda: not processes_of(self.home), timeout_seconds=LEAVING_SECONDS)
        except TimeoutError:
            found.orphans += [f"{process} is left" for process in processes_of(self.home)]
        return found

    def stop_all(self) -> None:
        self.client._http.close()
        for part in reversed(self.parts):
            part.stop()
        self.redis.stop()


def run(
    *, home: Path, database_url: str, seed: int, minutes: float, jobs: int
) -> tuple[Chaos, Findings, float]:
    chaos = Chaos(home, database_url=database_url, seed=seed, jobs=jobs)
    try:
        chaos.prepare()
        chaos.begin()
        chaos.run(minutes=minutes)
        calm_seconds = chaos.settle()
        return chaos, chaos.check(), calm_seconds
    finally:
        chaos.stop_all()
        for process in processes_of(home):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def table(chaos: Chaos, found: Findings, *, seed: int, calm_seconds: float) -> str:
    kills = ", ".join(f"{kind} {chaos.kills[kind]}" for kind in WEIGHTS)
    wrong = ", ".join(f"{kind} {count}" for kind, count in found.counts().items())
    return (
        f"seed {seed}: {len(chaos.accepted)} jobs, {chaos.kills.total()} kills ({kills}), "
        f"{chaos.displaced} displaced; {wrong}; calm after {calm_seconds:.0f} s"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=30)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--keep", type=Path, help="Folder to leave everything in.")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    postgres = PostgresService() if options.database == "postgresql" else None
    with tempfile.TemporaryDirectory(prefix="modelyard-chaos-") as folder:
        home = options.keep or Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{home / 'modelyard.db'}"
        if postgres is not None:
            postgres.start()
            url = postgres.create_database()
        try:
            chaos, found, calm_seconds = run(
                home=home, database_url=url, seed=options.seed, minutes=options.minutes,
                jobs=options.jobs,
            )  # fmt: skip
        finally:
            if postgres is not None:
                postgres.stop()
    print(table(chaos, found, seed=options.seed, calm_seconds=calm_seconds))
    for line in found.all():
        print(f"  {line}")
    return 1 if found.all() else 0


if __name__ == "__main__":
    sys.exit(main())
