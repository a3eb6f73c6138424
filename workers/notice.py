"""Ends a worker in order when its machine is about to be taken away.

A spot instance is told some seconds or minutes ahead, each cloud in its own way, so the way is a
command of the operator: see docs/operations.md. When it succeeds, the worker does what it does at
SIGTERM: checkpoints, and jobs handed back for another worker.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import threading

logger = logging.getLogger(__name__)

ASK_SECONDS = 5.0


class SpotNotice:
    """A side thread that runs the operator's command until it ends with status 0."""

    def __init__(self, command: str, *, every_seconds: float = ASK_SECONDS) -> None:
        self._command = shlex.split(command)
        self._every_seconds = every_seconds
        self._thread = threading.Thread(target=self._watch, name="spot-notice", daemon=True)
        self._stopped = threading.Event()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(self._every_seconds):
            if self._given():
                logger.warning("this machine is about to be taken away: jobs are handed back")
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def _given(self) -> bool:
        try:
            done = subprocess.run(
                self._command, stdin=subprocess.DEVNULL, capture_output=True, check=False,
                timeout=self._every_seconds,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            logger.warning("MODELYARD_SPOT_NOTICE cannot be asked: %s", error)
            return False
        return done.returncode == 0
