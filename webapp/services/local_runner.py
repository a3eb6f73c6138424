"""`subprocess` mode: this host's recorder trains the queued jobs itself, with no broker at all.

Each job runs as `python -m workers.train --stdio`, which is the worker's own supervisor and
child. A lock on a file in the home folder keeps it to one runner: the processes that train hold
it too, so a runner that comes after one that was killed begins when they have ended.
"""

from __future__ import annotations

import fcntl
import json
import logging
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from adapters import known_frameworks, wire
from adapters.contract import ContractError, DeviceChoice
from adapters.wire import Event
from modelyard.gpu_guard import GpuGuard
from modelyard.gpu_locks import GpuLocks
from modelyard.gpus import choose_devices, list_gpus
from modelyard.settings import SettingsError
from webapp.config import settings
from webapp.extensions import db
from webapp.models import Job, JobStatus
from webapp.services import preemption
from webapp.services.executors import training_job
from webapp.services.lifecycle import transition
from webapp.services.local_exports import LocalExports
from webapp.services.reaper import give_up_or_conclude
from webapp.services.recorder import record_or_set_aside
from webapp.services.tidying import Tidying
from webapp.services.waiting import TURN_ORDER

logger = logging.getLogger(__name__)

S = JobStatus
POLL_SECONDS = 0.25


class StopFlag:
    """Set by a signal handler. A threading.Event would deadlock there: the handler runs in the
    thread that may hold the event's lock just then.
    """

    requested = False

    def request(self) -> None:
        self.requested = True


class LocalRunner:
    """Starts a process for each queued job, as many at once as this host has devices."""

    def __init__(self, stop: StopFlag) -> None:
        """Choose devices. Raises SettingsError where this host lacks them."""
        self._stop = stop
        self._settings = settings()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        try:
            self._free = choose_devices(self._settings.gpus, per_slot=self._settings.gpus_per_slot)
        except ValueError as error:
            raise SettingsError(f"MODELYARD_GPUS: {error}") from error
        self._has_gpu = self._free != ["cpu"]
        self._running: dict[int, LocalProcess] = {}
        self._gpus = GpuGuard(
            self._free,
            locks=GpuLocks(
                self._settings.home / "gpus", gpus=list_gpus(), worker=self._settings.worker_name
            ),
            trains_on=lambda: [process.device for process in list(self._running.values())],
        )
        self._unrecorded: list[Event] = []  # read from a pipe, which gives them once
        self._adopted = False
        self._lock: int | None = None
        self._exports = LocalExports(self._settings)
        self._tidying = Tidying()
        self._places_at = 0.0

    def run(self) -> None:
        """Train until asked to stop; then let every job write a checkpoint and hand it back."""
        with _only_runner(self._settings.home, self._stop) as self._lock:
            self._gpus.start()
            while not self._stop.requested:
                self._step()
                time.sleep(POLL_SECONDS)
            self._exports.stop()
            self._tidying.stop()
            for process in self._running.values():
                process.shut_down()
            for process in list(self._running.values()):
                process.wait(self._settings.shutdown_grace_seconds + 5)
            self._record()

    def _step(self) -> None:
        try:
            if not self._adopted:
                self._give_up_orphans()
                self._exports.give_up_orphans()
                self._adopted = True
            self._record()
            self._collect()
            self._pass_on_cancels()
            self._exports.step()
            self._tidying.follow()
            self._make_places()
            while (device := self._usable()) and (job := self._next_queued()) is not None:
                self._start(job, device=device)
        except OperationalError as error:
            logger.warning("the database does not answer: %s", str(error).splitlines()[0])
            db.session.rollback()
        finally:
            db.session.remove()

    def _next_queued(self) -> Job | None:
        """Return the queued job whose turn it is; not one whose last process is still ending."""
        return _next_queued(gpu=self._has_gpu, but=list(self._running))

    def _usable(self) -> str | None:
        """Return a free device that nobody else on this host has."""
        return next((device for device in self._free if self._gpus.usable(device)), None)

    def _start(self, job: Job, *, device: str) -> None:
        assert self._lock is not None
        if not self._gpus.take(device, job_id=job.id):
            return  # another worker was faster
        self._free.remove(device)
        process = LocalProcess(job, device=device, events=self._events, lock=self._lock)
        self._running[job.id] = process
        # Its first event makes the job running; until then nobody else may take it.
        process.started.wait(timeout=60)
        self._record()

    def _record(self) -> None:
        """Record what was said. Raises OperationalError; it is then recorded the next time."""
        while not self._events.empty():
            self._unrecorded.append(self._events.get())
        if not self._unrecorded:
            return
        recorded = record_or_set_aside(self._unrecorded)
        self._unrecorded = []
        for job_id, _ in recorded.refused:
            if job_id in self._running:
                self._running[job_id].send("kill")

    def _collect(self) -> None:
        """Free the devices of processes that have ended."""
        for job_id, process in list(self._running.items()):
            if not process.ended():
                continue
            # First what the database has to say: where it is away, this is done again.
            self._record()
            self._conclude(job_id, process.attempt)
            del self._running[job_id]
            self._gpus.give_back(process.device)
            self._free.append(process.device)

    def _conclude(self, job_id: int, attempt: int) -> None:
        """End an attempt whose process is gone and did not say how it ended."""
        job = db.session.get(Job, job_id, populate_existing=True)
        if job is None or job.attempt != attempt:
            return
        if job.status == S.QUEUED:  # it did not even say that it began, and counts all the same
            reason = f"attempt {attempt} started"
            transition(db.session(), job, to=S.RUNNING, actor="recorder", reason=reason)
            db.session.commit()
        if job.status in (S.RUNNING, S.CANCELLING):
            give_up_or_conclude(job, reason="its process on this host died without a word")

    def _pass_on_cancels(self) -> None:
        ids = list(self._running)
        if not ids:
            return
        jobs = db.session.scalars(
            select(Job).where(Job.id.in_(ids)), execution_options={"populate_existing": True}
        )
        for job in jobs:
            process = self._running[job.id]
            if job.attempt != process.attempt or S(job.status).ended:
                process.send("kill")
            elif job.status == S.CANCELLING and job.cancel_mode:
                process.send(job.cancel_mode)

    def _make_places(self) -> None:
        """Let urgent jobs take the places of less urgent ones; see webapp.services.preemption."""
        if time.monotonic() < self._places_at or self._usable() or not preemption.wanted():
            return
        self._places_at = time.monotonic() + preemption.EVERY_SECONDS
        here = {
            "name": self._settings.worker_name,
            "frameworks": [wire.queue_name(name) for name in known_frameworks()],
            "slots": len(self._running),
            "gpu": self._has_gpu,
            "status": "online",
        }
        for job in preemption.decide([here], is_sent=lambda job: True):
            if job.id in self._running:
                self._running[job.id].send("preempt")

    def _give_up_orphans(self) -> None:
        """Requeue what ran when the last runner of this host died: its processes died with it.

        Also what the database calls queued: its file may tell that it had begun.
        """
        statement = select(Job).where(Job.status.in_([S.QUEUED, S.RUNNING, S.CANCELLING]))
        for job in list(db.session.scalars(statement)):
            give_up_or_conclude(job, reason="the recorder on this host was lost")


class LocalProcess:
    """One `workers.train --stdio` and the thread that reads its events."""

    def __init__(
        self, job: Job, *, device: str, events: queue.SimpleQueue[Event], lock: int
    ) -> None:
        self.attempt = job.attempt
        self.device = device
        self.started = threading.Event()
        self._sent: str | None = None
        self._events = events
        self._process = subprocess.Popen(
            [sys.executable, "-m", "workers.train", "--stdio"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[lock],
        )
        request = {"job": training_job(job).to_message(), "device": device}
        self.send(json.dumps(request))
        assert self._process.stdout is not None
        self._reader = threading.Thread(
            target=self._read, args=(self._process.stdout,), name=f"job-{job.id}", daemon=True
        )
        self._reader.start()

    def send(self, line: str) -> None:
        """Write a line to the process, once."""
        if line == self._sent:
            return
        self._sent = line
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except OSError:
            logger.info("a training process has ended before it could be told '%s'", line[:20])

    def shut_down(self) -> None:
        self._process.terminate()

    def ended(self) -> bool:
        """Tell whether the process is gone and all it said was read."""
        return self._process.poll() is not None and not self._reader.is_alive()

    def wait(self, seconds: float) -> None:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reader.join(5)

    def _read(self, stdout: TextIO) -> None:
        for line in stdout:
            try:
                self._events.put(Event.from_json(line))
            except ContractError as error:
                logger.error("a training process said something strange: %s", error)
            self.started.set()
        self.started.set()


def _next_queued(*, gpu: bool, but: list[int]) -> Job | None:
    """Return the queued job whose turn it is; one that must have a GPU only where there is one."""
    able = [DeviceChoice.AUTO, DeviceChoice.CPU, *([DeviceChoice.GPU] if gpu else [])]
    statement = (
        select(Job)
        .where(Job.status == S.QUEUED, Job.device_choice.in_(able), Job.id.not_in(but))
        .order_by(*TURN_ORDER)
        .limit(1)
    )
    return db.session.scalar(statement, execution_options={"populate_existing": True})


@contextmanager
def _only_runner(home: Path, stop: StopFlag) -> Iterator[int]:
    """Hold the lock and give its file; waits for it until asked to stop."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "runner.lock").open("w") as file:
        told = False
        while not _locked(file) and not stop.requested:
            if not told:
                logger.warning("another recorder of this host, or what it trained, is still there")
            told = True
            time.sleep(POLL_SECONDS)
        yield file.fileno()


def _locked(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
