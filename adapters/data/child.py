"""Asking a child process that reads what strangers made: JSON in, JSON lines out.

The child has a limit of memory and none of the server's secrets; one that crashes, hangs or takes
all memory is a ChildBroke. While it works, the caller only waits on a pipe.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters.data.description import DatasetError

Progress = Callable[[int, int], None]  # done, total

_TOLD_EVERY_SECONDS = 0.2


class ChildBroke(DatasetError):
    """A child that ended without an answer, or took too long."""


def ask(
    module: str,
    question: Mapping[str, Any],
    *,
    doing: str,
    timeout_seconds: float,
    progress: Progress | None = None,
    held: Sequence[int] = (),
) -> dict[str, Any]:
    """Return what a module's child answers; ``doing`` begins the sentence where it breaks off.

    The child keeps the descriptors ``held`` open as long as it lives: a lock on them is free only
    when nothing of it is left. An exception of ``progress`` ends the child and is raised.
    """
    late = threading.Event()

    def give_up() -> None:
        late.set()
        child.kill()

    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(),
            pass_fds=held,
        )
        limit = threading.Timer(timeout_seconds, give_up)
        limit.start()
        answer: dict[str, Any] | None = None
        try:
            answer = _converse(child, question, progress)
        except BaseException:
            child.kill()
            raise
        finally:
            if answer is not None:
                child.kill()  # it has said all; how it ends does not matter
            child.wait()
            limit.cancel()
        if answer is not None:
            return answer
        if late.is_set():
            raise ChildBroke(f"{doing} took more than {timeout_seconds:g} s and was given up")
        last = _last_line(errors)
        raise ChildBroke(f"{doing} broke off with exit status {child.returncode}: {last}")


def question(*, memory_bytes: int) -> dict[str, Any]:
    """Return what this process, a child, was asked, with its memory limited from now on."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    asked: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    return asked


def say(answer: Mapping[str, Any]) -> None:
    """Send the caller a line: the answer, after which nothing more is read."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


class Teller:
    """Tells the caller how far a child is, a few times a second; ends it where nobody listens."""

    def __init__(self) -> None:
        self._told = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told >= _TOLD_EVERY_SECONDS:
            self._told = now
            try:
                say({"done": done, "total": total})
            except BrokenPipeError:
                raise SystemExit("the process that asked has ended") from None


def _converse(
    child: subprocess.Popen[bytes], question: Mapping[str, Any], progress: Progress | None
) -> dict[str, Any] | None:
    """Ask a child and return its answer, None where it ended without one."""
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdout as lines:
        try:
            with child.stdin as pipe:
                pipe.write(json.dumps(question).encode() + b"\n")
        except BrokenPipeError:
            return None
        for line in lines:
            answer = _parsed(line)
            if answer is None or "done" not in answer:
                return answer
            if progress is not None:
                progress(answer["done"], answer["total"])
    return None


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        answer: dict[str, Any] = json.loads(line)
    except ValueError:  # it was killed in the middle of a line
        return None
    return answer


def _last_line(errors: Any) -> str:
    errors.seek(0, os.SEEK_END)
    errors.seek(max(0, errors.tell() - 2000))
    lines: list[str] = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _environment() -> dict[str, str]:
    """Return the least that Python needs: no password of the server reaches the child."""
    project = Path(__file__).resolve().parents[2]
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "PYTHONPATH": os.fspath(project), "PYTHONUTF8": "1"}
