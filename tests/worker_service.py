"""A whole instance without its web process: Redis, recorder and worker as real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from modelyard.process import die_with_parent
from modelyard.samples import make_samples
from tests.factories import application, environment
from tests.services import RedisService
from webapp.extensions import db
from webapp.models import Job

ROOT = Path(__file__).parent.parent


class Instance:
    """Starts and breaks the processes of one instance."""

    def __init__(self, home: Path, *, database_url: str, redis: RedisService | None) -> None:
        self.home = home
        self.data = home / "data"
        self.environ = environment(
            home,
            database_url=database_url,
            redis_url=redis.url if redis else None,
            MODELYARD_DATA_ROOTS=str(self.data),
            MODELYARD_GPUS="",
            MODELYARD_THREADS="1",  # the machine is shared: threads that wait for each other crawl
        )
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *module: str, **environ: str) -> subprocess.Popen[bytes]:
        """Start `python -m module`; its output goes to a file of its name in the home folder."""
        log = self.home / f"{module[0]}.{len(self._processes)}.log"
        parent = os.getpid()
        clean = {k: v for k, v in os.environ.items() if not k.startswith("MODELYARD_")}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *module],
                cwd=ROOT,
                env={**clean, **self.environ, **environ},
                stdout=output,
                stderr=output,
                preexec_fn=lambda: die_with_parent(parent),
            )
        self._processes.append(process)
        return process

    def recorder(self) -> subprocess.Popen[bytes]:
        return self.start("webapp.recorder")

    def worker(self, name: str, *, frameworks: str = "timm") -> subprocess.Popen[bytes]:
        return self.start("workers", MODELYARD_WORKER_NAME=name, MODELYARD_FRAMEWORKS=frameworks)

    def stop(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def logs(self) -> str:
        """Return the end of what the processes printed, for the message of a failed test."""
        files = sorted(self.home.glob("*.log"))
        return "\n".join(f"--- {f.name}\n{f.read_text(errors='replace')[-3000:]}" for f in files)


def few_digits(folder: Path) -> Path:
    """Make the digits below a folder and leave every fourth: an epoch is over in half a second."""
    digits = make_samples(folder, names=["digits"])["digits"]
    for number, image in enumerate(sorted(digits.rglob("*.png"))):
        if number % 4:
            image.unlink()
    return digits


@contextmanager
def instance(home: Path, *, database_url: str, redis: RedisService | None) -> Iterator[Instance]:
    """Give an instance with some of the digits, inside its application's context."""
    there = Instance(home, database_url=database_url, redis=redis)
    few_digits(there.data)
    with application(there.environ):
        try:
            yield there
        finally:
            there.stop()


def job_is(job: Job, condition: Callable[[Job], object]) -> Callable[[], bool]:
    """Return a condition on the job as the database now has it."""

    def check() -> bool:
        db.session.rollback()
        db.session.refresh(job)
        return bool(condition(job))

    return check
