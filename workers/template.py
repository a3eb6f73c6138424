"""The warm template: a process with the frameworks imported, from which children are forked.

A fork takes hundredths of a second where a fresh interpreter spends seconds on imports. The
template runs no torch operation and never touches CUDA, so what is forked from it is clean.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from adapters import adapter_module
from adapters.contract import TrainingJob
from workers import child
from workers.child import ChildPipes

logger = logging.getLogger(__name__)


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

    def fork(self, job: TrainingJob) -> tuple[BaseProcess, SupervisorPipes]:
        """Start a child for a placed job. Waits while the template is still importing."""
        events_in, events_out = self._context.Pipe(duplex=False)
        requests_in, requests_out = self._context.Pipe(duplex=False)
        log_in, log_out = self._context.Pipe(duplex=False)
        theirs = ChildPipes(events=events_out, requests=requests_in, log=log_out)
        ours = SupervisorPipes(events=events_in, requests=requests_out, log=log_in)
        process = self._context.Process(
            target=child.main,
            args=(job, theirs, self._threads),
            name=f"job-{job.id}-attempt-{job.attempt}",
        )
        try:
            process.start()
        except BaseException:
            ours.close()
            raise
        finally:
            # Ours to close: an end left open here would hide the end of the child.
            for end in (events_out, requests_in, log_out):
                end.close()
        os.set_blocking(log_in.fileno(), False)
        return process, ours


def _answer(writer: Connection, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    writer.send(function(*args))
