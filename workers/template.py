"""The warm template: a process with the frameworks imported, from which children are forked.

A fork takes hundredths of a second where a fresh interpreter spends seconds on imports. The
template runs no torch operation and never touches CUDA, so what is forked from it is clean.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from adapters import adapter_module
from adapters.contract import TrainingJob
from workers import child
from workers.child import ChildPipes

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.1


class SupervisorPipes:
    """The supervisor's ends of the pipes to a child."""

    def __init__(self, *, events: Connection, requests: Connection, log: Connection) -> None:
        self.events = events
        self.requests = requests
        self.log = log

    def close(self) -> None:
        for end in (self.events, self.requests, self.log):
            end.close()


class Template:
    """Forks children that have the given frameworks imported already."""

    def __init__(self, frameworks: Sequence[str], *, threads: int = 0) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._threads = threads
        modules = [
            "workers.preload",
            "workers.child",
            *(adapter_module(name) for name in frameworks),
        ]
        self._context.set_forkserver_preload(modules)

    def warm_up(self) -> None:
        """Start the template; returns at once, while it imports."""
        forkserver.ensure_running()

    def ask(self, function: Callable[..., Any], *args: Any, seconds: float) -> Any:
        """Return what a function says in a process of its own, forked from the template.

        Raises TimeoutError, and EOFError where the process ends without an answer.
        """
        reader, writer = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_answer, args=(writer, function, args), daemon=True)
        process.start()
        writer.close()
        try:
            if not reader.poll(seconds):
                raise TimeoutError(f"no answer within {seconds:g} s")
            return reader.recv()
        finally:
            reader.close()
            process.kill()
            process.join()

    def fork(
        self,
        job: TrainingJob,
        *,
        temporary_dir: Path,
        still_wanted: Callable[[], bool] = lambda: True,
    ) -> tuple[BaseProcess, SupervisorPipes] | None:
        """Start a child for a placed job, its temporary files in a folder of its own.

        Waits while the template is still importing, for as long as the child is wanted; None where
        it is no more. Raises what kept the child from being started.
        """
        events_in, events_out = self._context.Pipe(duplex=False)
        requests_in, requests_out = self._context.Pipe(duplex=False)
        log_in, log_out = self._context.Pipe(duplex=False)
        theirs = ChildPipes(events=events_out, requests=requests_in, log=log_out)
        ours = SupervisorPipes(events=events_in, requests=requests_out, log=log_in)
        process = self._context.Process(
            target=child.main,
            args=(job, theirs, self._threads, temporary_dir),
            name=f"job-{job.id}-attempt-{job.attempt}",
        )
        # Here, not in the thread below: the template ends with the thread that has started it.
        forkserver.ensure_running()
        forking = _Forking(process, ours=ours, theirs=theirs)
        forking.start()
        while forking.is_alive():
            forking.join(LOOK_SECONDS)
            if forking.is_alive() and not still_wanted() and forking.abandon():
                logger.warning("job %s: its child was not started in time", job.id)
                return None
        if forking.error is not None:
            raise forking.error
        os.set_blocking(log_in.fileno(), False)
        return process, ours


class _Forking(threading.Thread):
    """Has the template fork a child, aside: one that hangs must not hang a supervisor, too."""

    def __init__(self, process: BaseProcess, *, ours: SupervisorPipes, theirs: ChildPipes) -> None:
        super().__init__(name=f"fork-{process.name}", daemon=True)
        self.error: BaseException | None = None
        self._process = process
        self._ours = ours
        self._theirs = theirs
        self._lock = threading.Lock()
        self._done = False
        self._abandoned = False

    def run(self) -> None:
        try:
            self._process.start()
        except BaseException as error:
            self.error = error
        finally:
            # Ours to close: an end left open here would hide the end of the child.
            for end in (self._theirs.events, self._theirs.requests, self._theirs.log):
                end.close()
        with self._lock:
            self._done = True
            if self.error is not None or self._abandoned:
                self._ours.close()  # of which a child that has just begun dies
            if self.error is None and self._abandoned:
                self._process.kill()
                self._process.join()

    def abandon(self) -> bool:
        """Let the child end at once, should it still come; False where it is there already."""
        with self._lock:
            self._abandoned = not self._done
            return self._abandoned


def _answer(writer: Connection, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    writer.send(function(*args))
