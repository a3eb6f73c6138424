"""Keep services running: start them in order, restart what ends, stop everything in order.

All of it happens in the main thread, because the signal that ends a service with its
supervisor follows the thread that started it.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from modelyard import orphans
from modelyard.process import die_with_parent

LOG_BYTES = 5_000_000  # a longer log is put aside when its service starts
POLL_SECONDS = 0.2
REAP_SECONDS = 5.0  # at most, for the kernel to remove killed processes: a moment, or a busy host


@dataclass(frozen=True)
class Service:
    """What to run and how long it may take to end."""

    name: str
    command: Sequence[str]
    log: Path
    about: str  # what the line that announces it says
    environ: Mapping[str, str] = field(default_factory=dict)  # beside this process's own
    stop_stage: int = 1  # services of one stage stop together, lower stages first
    stop_seconds: float = 2.5  # from SIGTERM to SIGKILL


@dataclass
class Backoff:
    """Seconds to wait before a restart: doubling up to a cap, forgotten after a healthy minute."""

    first: float = 0.5
    cap: float = 30.0
    healthy_seconds: float = 60.0
    failures: int = 0

    def next_delay(self, *, ran_seconds: float) -> float:
        if ran_seconds >= self.healthy_seconds:
            self.failures = 0
        delay = min(self.cap, self.first * 2 ** min(self.failures, 16))
        self.failures += 1
        return delay


class _Running:
    """One service and what became of its process."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.backoff = Backoff()
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.restart_at = 0.0

    def start(self, now: float) -> None:
        service = self.service
        _put_aside(service.log)
        with service.log.open("ab") as log:
            self.process = subprocess.Popen(
                list(service.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **service.environ},
                start_new_session=True,  # Ctrl-C in the terminal reaches only the supervisor
                preexec_fn=partial(die_with_parent, os.getpid()),
            )
        self.started_at = now

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)


class Supervisor:
    """Runs services until it is asked to stop."""

    def __init__(
        self, *, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say = say
        self._clock = clock
        self._running: list[_Running] = []
        self._stopping = False
        self._hurry = False
        # Not an Event: a signal handler that sets one deadlocks where it interrupts its wait().
        # SimpleQueue.put() is reentrant for that very use.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()

    def handle_signals(self) -> None:
        """Stop on SIGINT, SIGTERM and SIGHUP; a second one stops without the grace times."""
        orphans.adopt_orphans()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    @property
    def stopping(self) -> bool:
        return self._stopping

    def request_stop(self) -> None:
        """End the watch; may be called from any thread and from a signal handler."""
        self._stopping = True
        self._wake.put(None)

    def start(self, service: Service) -> None:
        """Start a service and keep it running; nothing is started any more after a signal."""
        if self._stopping:
            return
        running = _Running(service)
        running.start(self._clock())
        self._running.append(running)
        self._say(f"{service.name:<10} {service.about}")

    def alive(self, name: str) -> bool:
        """Tell whether the process of a service runs now."""
        return any(r.process is not None and r.process.poll() is None for r in self._named(name))

    def failures(self, name: str) -> int:
        """Return how often a service ended since its last healthy minute."""
        return sum(r.backoff.failures for r in self._named(name))

    def watch(self, *, until: Callable[[], bool] = lambda: False) -> None:
        """Restart what ends, until `until` is true or a stop is requested."""
        while not self._stopping and not until():
            for running in self._running:
                self._look_after(running)
            self._reap()
            self._wait()

    def stop(self) -> None:
        """End every service stage by stage, then whatever is left below this process."""
        self._stopping = True
        self._say("stopping   (a second Ctrl-C waits for nothing)")
        for stage in sorted({r.service.stop_stage for r in self._running}):
            self._stop_stage([r for r in self._running if r.service.stop_stage == stage])
        # What a service left behind was adopted by this process and is found here.
        deadline = self._clock() + REAP_SECONDS
        while left := orphans.descendants():
            orphans.kill_all(left)
            self._reap()
            if self._clock() > deadline:
                break
            time.sleep(0.02)

    def _stop_stage(self, stage: list[_Running]) -> None:
        now = self._clock()
        for running in stage:
            running.signal(signal.SIGTERM)
        for running in stage:
            process = running.process
            while process is not None and process.poll() is None:
                self._reap()
                if self._hurry or self._clock() - now > running.service.stop_seconds:
                    process.kill()
                    process.wait()
                else:
                    time.sleep(0.02)

    def _look_after(self, running: _Running) -> None:
        now = self._clock()
        if running.process is None:
            if now >= running.restart_at:
                running.start(now)
            return
        status = running.process.poll()
        if status is None:
            return
        # Its children have lost their supervisor; one may still hold the port.
        orphans.kill_all(orphans.orphans_of(running.process.pid))
        delay = running.backoff.next_delay(ran_seconds=now - running.started_at)
        running.process, running.restart_at = None, now + delay
        name, log = running.service.name, running.service.log
        self._say(f"{name:<10} {_ending(status)}; starting it again in {delay:g} s (see {log})")

    def _reap(self) -> None:
        orphans.reap(besides={r.process.pid for r in self._running if r.process is not None})

    def _named(self, name: str) -> list[_Running]:
        return [r for r in self._running if r.service.name == name]

    def _wait(self) -> None:
        try:
            self._wake.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return

    def _on_signal(self, number: int, frame: object) -> None:
        self._hurry = self._stopping
        self.request_stop()


def tail(log: Path, *, lines: int = 15) -> str:
    """Return the last lines of a log, for a message about what went wrong."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _put_aside(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_name(log.name + ".1"))


def _ending(status: int) -> str:
    if status < 0:
        return f"was ended by a signal ({signal.strsignal(-status)})"
    return f"ended with status {status}"
