"""The process that trains: forked from the warm template, leader of its own process group."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from adapters import get_adapter
from adapters.contract import StopReason, TrainingError, TrainingJob
from adapters.finishing import RememberingReporter, finish
from modelyard.process import die_with_parent
from workers import leash, temporary
from workers.reporter import PipeReporter

_WARNINGS_REMEMBERED = 1000
METRICS_KEPT = b"kept"  # an epoch's metrics are in the journal


@dataclass(frozen=True)
class ChildPipes:
    """The child's ends of the pipes to its supervisor."""

    events: Connection  # to the supervisor: JSON messages
    # From the supervisor: values of StopReason, until when it may train, and METRICS_KEPT.
    requests: Connection
    log: Connection  # takes the place of stdout and stderr


def main(job: TrainingJob, pipes: ChildPipes, threads: int, temporary_dir: Path) -> None:
    """Train one attempt and tell how it ended; the target of the forked process."""
    os.setsid()  # the group is what is killed, loader processes included
    temporary.use(temporary_dir)
    if sys.platform == "linux":
        # The template's own way would be inherited: a data loader's processes would then wait
        # seconds for a template of their own, and not end with this one.
        multiprocessing.set_start_method("fork", force=True)
    _die_with_supervisor()
    _redirect_output(pipes.log)
    kept = threading.Semaphore(0)
    reporter = PipeReporter(job, pipes.events, wait_until_kept=kept.acquire)
    _listen(pipes.requests, reporter, on_kept=kept.release)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.captureWarnings(True)  # in the order of the other lines, not past them
    logging.getLogger("py.warnings").addFilter(_Once())
    _train(job, reporter, threads=threads)
    sys.stdout.flush()
    # Not through the interpreter's exit: a library's stray thread must not keep a slot busy.
    os._exit(0)


def _train(job: TrainingJob, reporter: PipeReporter, *, threads: int) -> None:
    remembering = RememberingReporter(reporter)
    try:
        if threads:
            import torch

            torch.set_num_threads(threads)
        adapter = get_adapter(job.framework)
        result = adapter.train(job, remembering)
    except TrainingError as error:
        reporter.log(f"{error.message} {error.hint}".strip())
        reporter.finish({"error": error.to_json()})
    except Exception as error:
        from adapters.failures import as_training_error  # needs torch, which the template has

        traceback.print_exc()
        reporter.finish({"error": as_training_error(error, job).to_json()})
    else:
        # Told before what follows: whatever becomes of that, the job is completed.
        reporter.finish({"result": result.to_json()})
        if result.stopped is None:
            finish(job, adapter, result, remembering)


class _Once(logging.Filter):
    """Lets each text through once: an image would repeat its warning in every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        new = text not in self._seen
        if len(self._seen) < _WARNINGS_REMEMBERED:
            self._seen.add(text)
        return new


def _die_with_supervisor() -> None:
    """End with the template, and so with the worker; loader processes end with this process."""
    die_with_parent(os.getppid())
    forking: tuple[int, bool] = (0, False)

    def before() -> None:
        nonlocal forking
        # The signal follows the thread that forks, so only the main thread's forks ask for it.
        forking = (os.getpid(), threading.current_thread() is threading.main_thread())

    def after_in_child() -> None:
        # A loader process would otherwise run the handler of SIGTERM instead of ending.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        parent_pid, from_main_thread = forking
        if from_main_thread:
            die_with_parent(parent_pid)

    os.register_at_fork(before=before, after_in_child=after_in_child)


def _redirect_output(log: Connection) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    log.close()
    # New objects, for the template's may be bound to a file and cannot turn to a pipe.
    sys.stdout = os.fdopen(1, "w", buffering=1, errors="replace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="replace", closefd=False)


def _listen(requests: Connection, reporter: PipeReporter, *, on_kept: Callable[[], None]) -> None:
    """Hear requests to stop; the end of the pipe means that the supervisor is gone."""

    timers = leash.StopTimers() if sys.platform == "linux" else None

    def listen() -> None:
        while True:
            try:
                request = requests.recv_bytes()
            except (EOFError, OSError):
                os.killpg(0, signal.SIGKILL)
            if request == METRICS_KEPT:
                on_kept()
            elif request.startswith(leash.MESSAGE):
                if timers is not None:
                    timers.wind(float(request.removeprefix(leash.MESSAGE)))
            else:
                reporter.request_stop(StopReason(request.decode()))

    threading.Thread(target=listen, name="stop-requests", daemon=True).start()
    # Someone's plain `kill` of the child: write a checkpoint and hand the job back.
    signal.signal(signal.SIGTERM, lambda *_: reporter.request_stop(StopReason.SHUTDOWN))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
