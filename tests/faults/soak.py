"""`make soak MINUTES=30`: short jobs, one after the other, and what each process then holds.

Web, recorder and workers run as processes. Every three seconds a job is described and started over
the API; one client follows the project's events all the time, others follow single jobs, and a
browser goes through the pages. Every ten seconds each process's memory, open files, threads and
children are looked at. The table at the end says of each whether it grew; the exit status is 1
where one did, or a job was lost. The first minutes, in which caches fill, do not count.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

from adapters import wire
from modelyard import launch
from modelyard.client import Client, ClientError
from modelyard.ports import free_port
from modelyard.samples import make_samples
from tests.factories import environment
from tests.faults.chaos import PASSWORD, Part
from tests.faults.invariants import Invariants
from tests.faults.site import PLUGIN, make_images, processes_of, trains
from tests.faults.trend import Trend, trend_of
from tests.services import RedisService, wait_for
from tests.worker_service import ROOT

EMAIL = "admin@example.org"
SAMPLE_SECONDS = 10.0
PAGE_SECONDS = 1.0
WARM_UP_SHARE = 0.2
LEAST_WARM_UP_SECONDS = 90.0
END_SECONDS = 180.0
FOLLOW_EVERY = 5  # of so many jobs one is followed by itself, to its end
DIGITS_EVERY = 30  # of the sample's images

# What is measured of a process: its unit, and by how much the last quarter's median may lie above
# the first's before it counts as growth. `anonymous` is all that the process has written, and not
# what it shares with nobody: where another process ends that uses the same library or was forked
# from it, as the one that rewrites Redis's log is, more belongs to it alone and nothing has grown.
MEASURES = {
    "rss": (1e6, 2.0),
    "anonymous": (1e6, 2.0),
    "files": (1.0, 3.5),  # a peak may open one more connection to the database, and to Redis
    "threads": (1.0, 0.9),
    "children": (1.0, 0.9),
    "used": (1e6, 2.0),  # what Redis has in use
    "stream": (1.0, 5.0),
}
NOT_JUDGED = {"keys"}  # they expire, see the line about them

JOBS: dict[str, dict[str, Any]] = {
    "quick": {
        "model_name": "lcg",
        "batch_size": 8,
        "hyperparameters": {"steps": 20, "step_seconds": 0.01},
        "epochs": 3,
    },
    "timm": {"model_name": "test_resnet", "batch_size": 16, "image_size": 32, "epochs": 1},
}


class Samples:
    """What was measured, by process and measure, with the time of each sample."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._of: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)

    def add(self, who: str, measure: str, value: float) -> None:
        self._of[who, measure].append((time.monotonic() - self._begun, value))

    def trends(self, *, after_seconds: float) -> dict[tuple[str, str], Trend]:
        found = {}
        for key, pairs in self._of.items():
            counted = [pair for pair in pairs if pair[0] >= after_seconds]
            if len(counted) >= 8:
                found[key] = trend_of([t for t, _ in counted], [v for _, v in counted])
        return found


class Soak:
    """One run."""

    def __init__(self, home: Path, *, framework: str, per_minute: float, database_url: str) -> None:
        self.home = home
        self.per_minute = per_minute
        self.framework = framework
        self.database_url = database_url
        self.redis = RedisService(home / "redis")
        self.port = free_port()
        self.samples = Samples()
        self.accepted: dict[int, str] = {}
        self.requests: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.zombies: Counter[int] = Counter()  # how often each was seen
        self._stopping = threading.Event()
        self._data = self._make_data()
        self._environ = self._environment()
        self.parts = self._make_parts()

    def _make_data(self) -> Path:
        """Write a data set on which an epoch takes a second."""
        data = self.home / "data" / "short"
        if self.framework == "quick":
            make_images(data)
            return data
        digits = make_samples(self.home / "digits", names=["digits"])["digits"]
        for path in sorted(digits.rglob("*.png"))[::DIGITS_EVERY]:
            copy = data / path.relative_to(digits)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
        return data

    def _environment(self) -> dict[str, str]:
        told = environment(
            self.home, database_url=self.database_url, redis_url=self.redis.url,
            MODELYARD_DATA_ROOTS=str(self.home / "data"), MODELYARD_GPUS="",
            MODELYARD_FRAMEWORKS=self.framework, MODELYARD_THREADS="1",
            MODELYARD_ADMIN_EMAIL=EMAIL, MODELYARD_ADMIN_PASSWORD=PASSWORD,
        )  # fmt: skip
        clean = {k: v for k, v in os.environ.items() if not k.startswith("MODELYARD_")}
        return {**clean, **told, "PYTHONPATH": str(PLUGIN)}

    def _make_parts(self) -> list[Part]:
        web = launch.web_command(host="127.0.0.1", port=self.port, processes=2)
        commands = {"web": web, "recorder": launch.recorder_command()}
        commands |= {name: launch.worker_command() for name in ("worker1", "worker2")}
        return [
            Part(name, command, {**self._environ, "MODELYARD_WORKER_NAME": name}, self.home)
            for name, command in commands.items()
        ]

    def begin(self) -> None:
        self.redis.start()
        for name in ("migrate", "ensure-admin"):
            command = launch.manage_command(name)
            subprocess.run(command, cwd=ROOT, env=self._environ, check=True, capture_output=True)
        for part in self.parts:
            part.tend()
        self.client = Client(f"http://127.0.0.1:{self.port}")
        wait_for(lambda: _answers(self._log_in), timeout_seconds=240, what="the web process")
        wait_for(
            lambda: len(self.client.get("/workers")["items"]) == 2,
            timeout_seconds=240, what="both workers",
        )  # fmt: skip
        self.project = self.client.post("/projects", {"name": "soak"})["id"]

    def _log_in(self) -> None:
        self.client.login(EMAIL, PASSWORD)

    def run(self, *, minutes: float) -> None:
        """Submit, follow, look at pages and measure for so long."""
        followers = [self._follow_project, self._look_at_pages]
        threads = [threading.Thread(target=self._retrying(f), daemon=True) for f in followers]
        for thread in threads:
            thread.start()
        begun = time.monotonic()
        next_submit, next_sample = begun, begun
        while time.monotonic() < begun + 60 * minutes:
            if time.monotonic() >= next_submit:
                next_submit += 60 / self.per_minute
                self.submit()
            if time.monotonic() >= next_sample:
                next_sample += SAMPLE_SECONDS
                self.sample()
            time.sleep(0.05)
        with contextlib.suppress(TimeoutError):
            looks = Invariants(self.home, database_url=self.database_url, redis=self.redis)
            wait_for(looks.all_ended, timeout_seconds=END_SECONDS, what="the end of every job")
        self._stopping.set()

    def submit(self) -> None:
        body = {
            "project_id": self.project, "framework": self.framework, "seed": len(self.accepted),
            "task_type": "image_classification", "dataset_path": str(self._data),
            "learning_rate": 0.1, **JOBS[self.framework],
        }  # fmt: skip
        job_id = self.client.post("/training/jobs", body)["id"]
        self.client.post(f"/training/jobs/{job_id}/start")
        self.accepted[job_id] = "completed"
        if len(self.accepted) % FOLLOW_EVERY == 0:
            threading.Thread(target=self._follow_job, args=(job_id,), daemon=True).start()

    # Those who look on.

    def _retrying(self, look_on: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            while not self._stopping.is_set():
                try:
                    look_on()
                except (ClientError, httpx.HTTPError) as error:
                    self.requests[f"failed: {type(error).__name__}"] += 1
                    self._stopping.wait(1.0)

        return run

    def _follow_project(self) -> None:
        address = f"http://127.0.0.1:{self.port}/api/v1/projects/{self.project}/events"
        with Client(f"http://127.0.0.1:{self.port}") as client:
            client.login(EMAIL, PASSWORD)
            headers = {"Authorization": client._http.headers["Authorization"]}
            with httpx.stream("GET", address, headers=headers, timeout=60) as response:
                response.raise_for_status()
                for line in response.iter_lines():
                    if line.startswith("event: "):
                        self.events[line.removeprefix("event: ")] += 1
                    if self._stopping.is_set():
                        return

    def _follow_job(self, job_id: int) -> None:
        try:
            with Client(f"http://127.0.0.1:{self.port}") as client:
                client.login(EMAIL, PASSWORD)
                for _ in client.events(job_id):
                    pass
        except (ClientError, httpx.HTTPError) as error:
            self.requests[f"failed: {type(error).__name__}"] += 1
        else:
            self.requests["jobs followed to their end"] += 1

    def _look_at_pages(self) -> None:
        """Go through the pages as a browser with a login does."""
        base_url = f"http://127.0.0.1:{self.port}"
        with httpx.Client(base_url=base_url, timeout=30, follow_redirects=True) as browser:
            form = {"email": EMAIL, "password": PASSWORD}
            browser.post("/login", data=form).raise_for_status()
            while not self._stopping.is_set():
                newest = max(self.accepted, default=0)
                pages = ["/", "/workers", f"/projects/{self.project}", "/metrics", "/readyz"]
                if newest:
                    pages += [f"/jobs/{newest}", f"/api/v1/training/jobs/{newest}/metrics"]
                    pages += [f"/api/v1/training/jobs/{newest}/logs", "/api/v1/training/jobs"]
                for page in pages:
                    browser.get(page).raise_for_status()
                    self.requests["pages"] += 1
                    self._stopping.wait(PAGE_SECONDS)

    # What is measured.

    def sample(self) -> None:
        for who, process in self._processes().items():
            with contextlib.suppress(psutil.Error):
                memory, children = process.memory_info(), process.children()
                self.samples.add(who, "rss", memory.rss)
                self.samples.add(who, "anonymous", memory.rss - memory.shared)
                self.samples.add(who, "files", process.num_fds())
                self.samples.add(who, "threads", process.num_threads())
                staying = [c for c in children if not trains(c)]
                self.samples.add(who, "children", len(staying))
        with self.redis.client() as client:
            memory: Any = client.info("memory")
            self.samples.add("redis", "used", memory["used_memory"])
            self.samples.add("redis", "keys", client.dbsize())
            self.samples.add("redis", "stream", client.xlen(wire.EVENT_STREAM))

    def _processes(self) -> dict[str, psutil.Process]:
        """Return the processes that stay, by a name that stays."""
        assert self.redis.process is not None
        found = {"redis": psutil.Process(self.redis.process.pid)}
        for part in self.parts:
            assert part.process is not None
            if part.process.poll() is not None:
                raise RuntimeError(f"{part.name} has ended; see {part.log}")
            process = psutil.Process(part.process.pid)
            found[part.name] = process
            below = sorted(process.children(recursive=True), key=lambda p: p.create_time())
            for other in below:
                if name := self._name(other):
                    found[self._free_name(found, f"{part.name} {name}")] = other
        return found

    def _name(self, process: psutil.Process) -> str | None:
        """Name a process below a part; None of what comes and goes with a job."""
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                self.zombies[process.pid] += 1
                return None
            command = " ".join(process.cmdline())
            if trains(process):
                return None
        except psutil.Error:
            return None
        for mark in ("gunicorn", "resource_tracker", "tool", "forkserver"):
            if mark in command:
                return {"gunicorn": "process", "forkserver": "template"}.get(mark, mark)
        return None

    @staticmethod
    def _free_name(taken: dict[str, psutil.Process], name: str) -> str:
        number = 1
        while (free := f"{name} {number}") in taken:
            number += 1
        return free

    def stop(self) -> None:
        self._stopping.set()
        for part in reversed(self.parts):
            part.stop()
        self.redis.stop()
        for process in processes_of(self.home):
            process.kill()


def _answers(ask: Callable[[], None]) -> bool:
    try:
        ask()
    except ClientError:
        return False
    return True


def report(soak: Soak, *, minutes: float) -> tuple[list[str], bool]:
    """Return the lines to print, and whether everything stayed flat and nothing was lost."""
    warm_up = max(LEAST_WARM_UP_SECONDS, WARM_UP_SHARE * 60 * minutes)
    heads = ("process", "measure", "first quarter", "last quarter", "slope per hour", "verdict")
    jobs = f"{len(soak.accepted)} jobs of {soak.framework}"
    lines = [f"{minutes:g} minutes, {jobs}; the first {warm_up:.0f} s do not count", _row(*heads)]
    flat = True
    for (who, measure), trend in soak.samples.trends(after_seconds=warm_up).items():
        unit, allowed = MEASURES.get(measure, (1.0, 0.0))
        grows = measure not in NOT_JUDGED and trend.grows(allowed=allowed * unit)
        flat &= not grows
        slope = f"{trend.per_hour / unit:.1f} ± {trend.error_per_hour / unit:.1f}"
        verdict = "" if measure in NOT_JUDGED else "GROWS" if grows else "flat"
        first, last = f"{trend.first / unit:.1f}", f"{trend.last / unit:.1f}"
        lines.append(_row(who, measure, first, last, slope, verdict))
    looks = Invariants(soak.home, database_url=soak.database_url, redis=soak.redis)
    found = looks.check(accepted=soak.accepted)
    lines += _counts(soak, looks)
    lines += [f"  {line}" for line in found.all()]
    staying = sum(seen > 1 for seen in soak.zombies.values())
    lines.append(f"zombies that stayed longer than {SAMPLE_SECONDS:g} s: {staying}")
    return lines, flat and staying == 0 and not found.all()


def _row(who: str, measure: str, first: str, last: str, slope: str, verdict: str) -> str:
    return f"{who:28}{measure:10}{first:>14}{last:>14}{slope:>18}  {verdict}"


def _counts(soak: Soak, looks: Invariants) -> list[str]:
    statuses = looks.statuses()
    size = sum(path.stat().st_size for path in soak.home.glob("modelyard.db*"))
    jobs = max(len(soak.accepted), 1)
    with soak.redis.client() as client:
        kinds = Counter(_kind(key) for key in client.scan_iter("*"))
    return [
        "jobs: " + ", ".join(f"{count} {status}" for status, count in statuses.items()),
        "asked: " + ", ".join(f"{what} {count}" for what, count in soak.requests.items()),
        "heard: " + ", ".join(f"{what} {count}" for what, count in soak.events.items()),
        f"database: {size / 1e6:.2f} MB, {size / jobs / 1e3:.1f} kB a job",
        "keys in Redis: " + ", ".join(f"{kind} {count}" for kind, count in kinds.most_common()),
    ]


def _kind(key: str) -> str:
    """Return a key's name without the job's or the process's own part."""
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+|worker\d@.*", "…", key)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--framework", choices=[*JOBS], default="timm")
    parser.add_argument("--per-minute", type=float, default=20.0)
    parser.add_argument("--keep", type=Path, help="Folder to leave everything in.")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="modelyard-soak-") as folder:
        home = options.keep or Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        soak = Soak(
            home, framework=options.framework, per_minute=options.per_minute,
            database_url=f"sqlite:///{home / 'modelyard.db'}",
        )  # fmt: skip
        try:
            soak.begin()
            soak.run(minutes=options.minutes)
            lines, fine = report(soak, minutes=options.minutes)
        finally:
            soak.stop()
    print("\n".join(lines))
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
