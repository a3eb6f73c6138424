"""An instance of real processes that fault tests break, and jobs that train on it in seconds."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from adapters import wire
from tests.factories import application, make_job
from tests.services import PATIENCE_SECONDS, RedisService, wait_for
from tests.worker_service import Instance, job_is
from webapp.models import Job
from webapp.services import job_actions

PLUGIN = Path(__file__).parent / "plugin"
HOLD, HOLD_SAVE = "hold", "hold-save"  # files of the quick framework


class Site(Instance):
    """Recorder and workers as processes; the caller acts for the web process.

    Without Redis it is in `subprocess` mode: the recorder trains.
    """

    def __init__(
        self, home: Path, *, database_url: str, redis: RedisService | None, lease_seconds: float
    ) -> None:
        super().__init__(home, database_url=database_url, redis=redis)
        self.redis_or_none = redis
        self.database_url = database_url
        self.lease_seconds = lease_seconds
        self.first_recorder: subprocess.Popen[bytes]
        self.expected: dict[int, str] = {}  # what becomes of each job
        self.environ |= {
            "PYTHONPATH": str(PLUGIN),
            "MODELYARD_THREADS": "0",  # no torch is imported to set them
            "FAULTS_LEASE_SECONDS": str(lease_seconds),
        }
        make_images(self.data / "tiny")

    @property
    def redis(self) -> RedisService:
        assert self.redis_or_none is not None, "in subprocess mode there is none"
        return self.redis_or_none

    def quick_worker(self, name: str, **environ: str) -> subprocess.Popen[bytes]:
        """Start a worker and wait until it takes jobs."""
        process = self.start(
            "workers", MODELYARD_WORKER_NAME=name, MODELYARD_FRAMEWORKS="quick", **environ
        )
        log = next(self.home.glob(f"workers.{len(self._processes) - 1}.log"))
        wait_for(lambda: " ready." in log.read_text(), what=f"worker {name}")
        return process

    def job(
        self,
        *,
        epochs: int,
        start: bool = True,
        becomes: str = "completed",
        device: str = "auto",
        priority: int = 4,
        preempt: bool = False,
        hold_in: int | None = None,
        **hyperparameters: Any,
    ) -> Job:
        """Make a job of the quick framework, and start it; ``hold_in`` is as for :meth:`hold`."""
        job = make_job(
            framework="quick", queue="quick", model_name="lcg", epochs=epochs,
            dataset_path=str(self.data / "tiny"), device_choice=device,
            priority=priority, preempt=preempt, hyperparameters=hyperparameters,
        )  # fmt: skip
        self.expected[job.id] = becomes
        if hold_in is not None:
            self.hold(job.id, epoch=hold_in)
        if start:
            job_actions.start(job, actor="test")
        return job

    def hold(self, job_id: int, *, epoch: int) -> None:
        """Let a job train to the middle of an epoch and stay there, hearing requests to stop."""
        folder = self.outputs_of(job_id)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".hold").write_text(str(epoch))
        (folder / ".hold").replace(folder / HOLD)  # whole or not at all: it is read at any moment

    def hold_save(self, job_id: int) -> None:
        """Let a job stay half through the next checkpoint that it writes."""
        (self.outputs_of(job_id) / HOLD_SAVE).touch()

    def let_go(self, job_id: int) -> None:
        """Let a job go on from wherever it is held, to its end."""
        for name in (HOLD, HOLD_SAVE):
            (self.outputs_of(job_id) / name).unlink(missing_ok=True)

    def let_save(self, job_id: int) -> None:
        """Let a job finish the checkpoint in which it is held."""
        (self.outputs_of(job_id) / HOLD_SAVE).unlink()

    def outputs_of(self, job_id: int) -> Path:
        return self.home / "outputs" / wire.job_folder(job_id)

    def wait(self, job: Job, condition: Any, *, seconds: float = PATIENCE_SECONDS) -> None:
        try:
            wait_for(job_is(job, condition), timeout_seconds=seconds, what=f"job {job.id}")
        except TimeoutError as error:
            state = (job.status, job.attempt, job.progress, job.error)
            raise AssertionError(f"{error}; it is {state}\n{self.logs()}") from None

    def children(self) -> list[psutil.Process]:
        """Return the processes that train or load data, whichever worker they belong to."""
        return [p for p in processes_of(self.home) if trains(p)]

    def log_of(self, module: str) -> str:
        """Return all that the processes of a module printed."""
        return "".join(path.read_text() for path in sorted(self.home.glob(f"{module}.*.log")))

    def journal(self, job_id: int) -> str:
        """Return what the job's attempts said, as the file beside its outputs has it."""
        path = self.outputs_of(job_id) / wire.JOURNAL_NAME
        return path.read_text() if path.exists() else ""


@contextmanager
def site(
    home: Path, *, database_url: str, redis: RedisService | None, lease_seconds: float = 8.0
) -> Iterator[Site]:
    there = Site(home, database_url=database_url, redis=redis, lease_seconds=lease_seconds)
    with application(there.environ):
        try:
            yield there
        finally:
            there.stop()


def make_images(folder: Path) -> None:
    """Write the smallest valid image folder: two classes, an image each, for both splits."""
    for split in ("train", "val"):
        for shade, name in enumerate(("dark", "light")):
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for number in range(2):
                image = Image.new("RGB", (8, 8), (200 * shade + number, 0, 0))
                image.save(folder / split / name / f"{number}.png")


def processes_of(home: Path) -> list[psutil.Process]:
    """Return every process that was started for an instance, by its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("MODELYARD_HOME") == str(home):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def trains(process: psutil.Process) -> bool:
    """Tell whether a process is a child or its loader: its group is led by a template's fork."""
    try:
        leader = psutil.Process(os.getpgid(process.pid))
        template = leader.parent()
        return template is not None and "forkserver" in " ".join(template.cmdline())
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


def training(job: Job) -> object:
    return job.status == "running" and job.progress


def ended(job: Job) -> bool:
    return job.status in ("completed", "failed", "cancelled")


def in_epoch(number: int) -> Callable[[Job], object]:
    return lambda job: job.progress and job.progress["epoch"] >= number


def gone(processes: list[psutil.Process]) -> bool:
    return not any(map(lives, processes))


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # just now
        return False


def leader(processes: list[psutil.Process]) -> psutil.Process:
    """Return the child among the processes of one attempt; the others load its data."""
    return next(process for process in processes if process.pid == os.getpgid(process.pid))


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
