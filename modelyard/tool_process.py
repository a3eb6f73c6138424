"""A process that answers requests about trained models, as seen by the one that started it.

`python -m workers.tools` reads a request a line and writes an answer a line, both JSON. It is
started at the first request, ends after some idle time, and ends with whoever started it, for
then its standard input ends.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.errors import ModelyardError
from modelyard.settings import Settings

logger = logging.getLogger(__name__)

_KEPT = ("PATH", "LD_LIBRARY_PATH", "HOME", "LANG", "TMPDIR", "CUDA_VISIBLE_DEVICES")


class ToolError(ModelyardError):
    """The tool process ended, or did not answer in time."""


@dataclass(frozen=True)
class Purpose:
    """What a tool process is for."""

    idle_seconds: float  # after which it ends
    niceness: int  # 0..19: how far it gives way to training
    timeout_seconds: float  # of an answer; the first waits for the framework's import, too


# A person waits for a prediction, and it is short: given way, it would take ten times as long
# beside a training that holds every core. An export can wait.
PREDICTIONS = Purpose(idle_seconds=600, niceness=1, timeout_seconds=120)
EXPORTS = Purpose(idle_seconds=60, niceness=10, timeout_seconds=900)


class ToolProcess:
    """Asks one tool process, one request after the other; of several callers the rest wait."""

    def __init__(self, settings: Settings, *, purpose: Purpose) -> None:
        self._environ = _environment(settings)
        self._purpose = purpose
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a request; the first one waits for the process to start.

        Raises ToolError where there is none; the process is then killed, and the next request
        starts another.
        """
        if not self._lock.acquire(timeout=self._purpose.timeout_seconds):
            raise ToolError("others' requests took too long; try again soon")
        try:
            line = json.dumps(request, separators=(",", ":")).encode() + b"\n"
            answer = self._exchange(line)
            if answer is None:  # it had just ended, being idle
                answer = self._exchange(line)
            if answer is None:
                raise ToolError("the process that holds the models ended without an answer")
            told: dict[str, Any] = json.loads(answer)
            return told
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for end in (process.stdin, process.stdout):
                if end is not None:
                    try:
                        end.close()
                    except OSError:  # what it was still to be told
                        logger.debug("a request to an ended tool process is dropped")

    def _exchange(self, line: bytes) -> bytes | None:
        """Send a line and return the next one; None where the process ends instead."""
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = self._start()
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        timeout_seconds = self._purpose.timeout_seconds
        overdue = threading.Event()

        def give_up() -> None:
            overdue.set()
            process.kill()

        timer = threading.Timer(timeout_seconds, give_up)
        timer.start()
        try:
            process.stdin.write(line)
            process.stdin.flush()
            answer = process.stdout.readline()
        except OSError:
            answer = b""
        finally:
            timer.cancel()
        if answer.endswith(b"\n"):
            return answer
        self.close()
        if overdue.is_set():
            raise ToolError(f"no answer within {timeout_seconds:g} s")
        return None

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", "workers.tools"]
        return subprocess.Popen(
            [
                *command,
                f"--idle-seconds={self._purpose.idle_seconds}",
                f"--niceness={self._purpose.niceness}",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environ,
        )


def _environment(settings: Settings) -> dict[str, str]:
    """Return what the process needs: no password reaches what decodes strangers' images."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {
        **kept,
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        "PYTHONUTF8": "1",
        "MODELYARD_HOME": str(settings.home),
        "MODELYARD_OUTPUTS": str(settings.outputs),
        "MODELYARD_WEIGHTS": str(settings.weights),
        "MODELYARD_THREADS": str(settings.threads),
        "MODELYARD_LOG_LEVEL": settings.log_level,
    }
