"""One attempt from fork to the last of its processes: relays what the child says, and ends it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Protocol

from adapters.contract import ErrorKind, TrainingError, TrainingJob
from adapters.files import is_disk_full
from adapters.wire import EventType, Outcome
from modelyard.disk import tree_bytes
from modelyard.process import kill_group
from workers import gpu_release
from workers.child import METRICS_KEPT
from workers.gpu_release import GpuRelease, Held
from workers.leash import Leash
from workers.limits import Limits
from workers.load import LoadMeter, LoadSampler
from workers.log_lines import LogLines
from workers.stopping import Stop, StopRequest
from workers.template import SupervisorPipes, Template
from workers.temporary import attempt_folder

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
LOG_INTERVAL_SECONDS = 0.3
KILL_WAIT_SECONDS = 30.0

_PAUSED = (
    "training is paused: Redis has not answered for a lease time, and another worker may have "
    "been given this job"
)


class EventSink(Protocol):
    def __call__(self, type: EventType, data: Mapping[str, Any]) -> None:
        """Take an event of the attempt."""


@dataclass(frozen=True)
class Ending:
    """How an attempt ended; ``outcome`` is None where nothing may be said (the lease was lost)."""

    outcome: Outcome | None
    result: Mapping[str, Any] | None = None
    error: Mapping[str, str] | None = None
    exit_code: int | None = None
    held: Held | None = None  # what it has left on its GPUs

    def to_json(self) -> dict[str, Any]:
        return {
            "outcome": None if self.outcome is None else str(self.outcome),
            "result": self.result,
            "error": self.error,
            "exit_code": self.exit_code,
            "device_held": None if self.held is None else self.held.text,
        }


class Supervisor:
    """Runs one attempt in a child and reports it to a sink."""

    def __init__(
        self,
        job: TrainingJob,
        *,
        template: Template,
        sink: EventSink,
        stop: StopRequest,
        cancel_grace_seconds: float,
        shutdown_grace_seconds: float,
        lease_until: Callable[[], float] = lambda: math.inf,
        limits: Limits | None = None,
        gpus: GpuRelease | None = None,
        conclude: Callable[[Ending], Ending] = lambda ending: ending,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._job = job
        self._template = template
        self._sink = sink
        self._stop = stop
        self._grace = {
            Stop.PREEMPTED: cancel_grace_seconds,
            Stop.NOW: cancel_grace_seconds,
            Stop.SHUTDOWN: shutdown_grace_seconds,
        }
        self._leash = Leash(lease_until)
        self._limits = limits or Limits(stall_seconds=0, attempt_seconds=0)
        self._gpus = gpus
        self._conclude = conclude  # what is to be done before the end is told
        self._exceeded: TrainingError | None = None
        self._clock = clock
        self._log = LogLines()
        self._log_due = clock()
        self._asked: Stop | None = None
        self._kill_at: float | None = None
        self._final: dict[str, Any] | None = None

    def run(self) -> Ending:
        """Train and return how it ended, once nothing of the attempt is left: process or memory."""
        with attempt_folder(self._job) as temporary_dir:
            ending = self._train(temporary_dir)
        return self._end(ending)

    def _train(self, temporary_dir: Path) -> Ending:
        forked = self._template.fork(
            self._job, temporary_dir=temporary_dir, still_wanted=self._wants_a_child
        )
        if forked is None:
            self._asked = self._stop.current
            return self._judge(None)
        process, pipes = forked
        assert process.pid is not None
        meter = LoadMeter(process.pid, device=self._job.compute_device)
        self._load = LoadSampler(meter, name=f"load-{self._job.id}")
        self._load.start()
        try:
            self._relay_until_told(process.sentinel, process.pid, pipes)
            # The child is gone; its loader processes may not be.
            left = kill_group(process.pid, wait_seconds=KILL_WAIT_SECONDS)
            if left:
                logger.error("job %s: processes %s cannot be killed", self._job.id, left)
            self._drain(pipes)
            process.join()
        except BaseException:
            kill_group(process.pid, wait_seconds=KILL_WAIT_SECONDS)
            raise
        finally:
            self._load.stop()
            pipes.close()
        held = self._see_gpus_free({process.pid, *left, *meter.pids})
        return dataclasses.replace(self._judge(process.exitcode), held=held)

    def _wants_a_child(self) -> bool:
        """Tell whether a child is still to be started: the template may take long, or hang."""
        self._exceeded = self._limits.exceeded(paused=False)
        return self._stop.current is None and self._exceeded is None

    def _end(self, ending: Ending) -> Ending:
        ending = self._conclude(ending)
        if ending.outcome is not None:
            self._sink(EventType.FINISHED, {**ending.to_json(), "output_bytes": self._left_bytes()})
        return ending

    def _left_bytes(self) -> int:
        assert self._job.output_dir is not None
        return tree_bytes(self._job.output_dir)

    def _relay_until_told(self, sentinel: int, pid: int, pipes: SupervisorPipes) -> None:
        """Relay until the child has ended, of which the attempt dies where nothing can be kept."""
        while True:
            try:
                self._relay_until_exit(sentinel, pid, pipes)
                return
            except OSError as error:
                if not is_disk_full(error):
                    raise
                self._exceeded = disk_full(self._job, error)
                _kill(pid)

    def _relay_until_exit(self, sentinel: int, pid: int, pipes: SupervisorPipes) -> None:
        while True:
            ready = wait([sentinel, pipes.events, pipes.log], timeout=POLL_SECONDS)
            self._read(pipes, ready)
            self._tend_leash(pid, pipes)
            self._pass_on_stop(pid, pipes)
            self._look_at_limits(pid)
            self._flush_log()
            self._tell_load()
            if sentinel in ready:
                return

    def _read(self, pipes: SupervisorPipes, ready: list[Any]) -> None:
        if pipes.log in ready:
            self._read_log(pipes)
        if pipes.events in ready:
            message = _receive(pipes)
            if message is not None:
                self._take(message, pipes)
            else:
                time.sleep(POLL_SECONDS)  # the child is ending; its sentinel follows

    def _read_log(self, pipes: SupervisorPipes) -> bool:
        try:
            data = os.read(pipes.log.fileno(), 65536)
        except BlockingIOError:
            return False
        self._log.feed(data)
        return bool(data)

    def _take(self, message: dict[str, Any], pipes: SupervisorPipes) -> None:
        type, data = EventType(message["type"]), message["data"]
        if type == EventType.FINISHED:
            self._final = data
            return
        if self._asked == Stop.LOST:
            return
        self._limits.stepped()
        if type == EventType.ARTIFACT:
            described = describe_artifact(Path(data["path"]), root=self._job.output_dir)
            if described is None:
                return
            data = {**described, "kind": data["kind"]}
        self._sink(type, data)
        if type == EventType.METRICS:
            self._ask(pipes, METRICS_KEPT)

    def _flush_log(self, *, force: bool = False) -> None:
        if self._clock() < self._log_due and not force:
            return
        self._log_due = self._clock() + LOG_INTERVAL_SECONDS
        lines = self._log.take()
        if lines and self._asked != Stop.LOST:
            self._sink(EventType.LOG, {"lines": lines})

    def _tell_load(self) -> None:
        for sample in self._load.take():
            if self._asked != Stop.LOST:
                self._sink(EventType.LOAD, sample)

    def _tend_leash(self, pid: int, pipes: SupervisorPipes) -> None:
        """Pause the child where its lease has ended, let it go on when it is had again."""
        if not self._leash.tend(pid, pipes.requests) or self._asked == Stop.LOST:
            return
        line = _PAUSED if self._leash.paused else "Redis answers again: training goes on"
        logger.warning("job %s: %s", self._job.id, line)
        self._sink(EventType.LOG, {"lines": [line]})

    def _pass_on_stop(self, pid: int, pipes: SupervisorPipes) -> None:
        """Tell the child to stop, and kill its group when it was given its time."""
        wanted = self._stop.current
        if wanted == Stop.PREEMPTED and self._final is not None:
            # It is trained: its evaluation, which cannot go on elsewhere, is let be.
            wanted = None
            if is_trained(self._final):
                self._kill_at = None
        if wanted is not None and wanted != self._asked:
            self._asked = wanted
            if wanted.ends_at_once:
                self._kill_at = self._clock()
            else:
                if wanted in self._grace:
                    self._kill_at = self._clock() + self._grace[wanted]
                self._ask(pipes, wanted.reason.encode())
        if self._stop.without_grace or (wanted == Stop.SHUTDOWN and self._leash.paused):
            self._kill_at = self._clock()  # no time, or no one who could write a checkpoint
        if self._kill_at is not None and self._clock() >= self._kill_at:
            _kill(pid)

    def _look_at_limits(self, pid: int) -> None:
        """Kill a child that takes too long, or that hangs when it has said how it ended."""
        if self._exceeded is None:
            over = self._limits.exceeded(paused=self._leash.paused)
            if over is not None and self._final is None:
                self._exceeded = over
            elif over is not None and over.kind == ErrorKind.STALLED:  # it stays as it ended
                self._exceeded = over
                self._sink(EventType.LOG, {"lines": [f"{over.message}; its result is kept."]})
        if self._exceeded is not None:
            _kill(pid)

    @staticmethod
    def _ask(pipes: SupervisorPipes, request: bytes) -> None:
        try:
            pipes.requests.send_bytes(request)
        except OSError:
            logger.debug("the child has just ended")

    def _drain(self, pipes: SupervisorPipes) -> None:
        """Read what the child said last."""
        while pipes.events.poll(0) and (message := _receive(pipes)) is not None:
            self._take(message, pipes)
        while self._read_log(pipes):
            pass
        self._log.finish()
        self._flush_log(force=True)

    def _see_gpus_free(self, pids: set[int]) -> Held | None:
        """Wait until the GPUs have let go of the attempt; return what they have not, in time."""
        if self._gpus is None:
            return None
        held = self._gpus.wait(pids, at_most=self._release_seconds)
        if held is not None:
            logger.error("job %s: %s", self._job.id, held.text)
            if self._asked != Stop.LOST:
                self._sink(EventType.LOG, {"lines": [held.text]})
        return held

    def _release_seconds(self) -> float:
        if self._stop.without_grace:
            return 0.0
        if self._stop.current == Stop.SHUTDOWN:
            return gpu_release.LEAVING_SECONDS
        return gpu_release.RELEASE_SECONDS

    def _judge(self, exit_code: int | None) -> Ending:
        final = self._final
        if final is None and self._exceeded is not None:
            final = {"error": self._exceeded.to_json()}
        return judge(final, stop=self._asked, exit_code=exit_code)


def _receive(pipes: SupervisorPipes) -> dict[str, Any] | None:
    """Return the child's next message; None where it has ended, be it half through one."""
    try:
        message: dict[str, Any] = json.loads(pipes.events.recv_bytes())
    except (EOFError, OSError) as error:
        logger.debug("the child says nothing more: %r", error)
        return None
    return message


def _kill(pid: int) -> None:
    """Kill a child and its group, also before it leads one; it may be gone already."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
            return
        except ProcessLookupError:
            continue


def disk_full(job: TrainingJob, error: OSError) -> TrainingError:
    """Return the error of an attempt whose folder takes no more."""
    return TrainingError(
        ErrorKind.DISK_FULL,
        f"Nothing more can be written to {job.output_dir}: {error.strerror}",
        hint="Make space there, then resume the job: it goes on from its last checkpoint.",
    )


def is_trained(final: Mapping[str, Any] | None) -> bool:
    """Tell from the child's last words whether it trained to its end."""
    result = final.get("result") if final else None
    return result is not None and result["stopped"] is None


def judge(final: Mapping[str, Any] | None, *, stop: Stop | None, exit_code: int | None) -> Ending:
    """Return how an attempt ended, from the child's last words, what was asked, and its exit."""
    result = final.get("result") if final else None
    error = final.get("error") if final else None
    if stop == Stop.LOST:
        return Ending(None, exit_code=exit_code)
    if result is not None and is_trained(final):
        return Ending(Outcome.COMPLETED, result=result, exit_code=exit_code)
    if stop is not None and stop.by_person:
        return Ending(Outcome.CANCELLED, result=result, exit_code=exit_code)
    if stop == Stop.PREEMPTED:
        return Ending(Outcome.PREEMPTED, result=result, exit_code=exit_code)
    if stop == Stop.SHUTDOWN or (result is not None and result["stopped"] == "shutdown"):
        return Ending(Outcome.HANDED_BACK, result=result, exit_code=exit_code)
    return Ending(Outcome.FAILED, error=error or _death(exit_code), exit_code=exit_code)


def describe_artifact(path: Path, *, root: Path | None) -> dict[str, Any] | None:
    """Return name, size and sha256 of a file below the output folder, None where it is gone."""
    assert root is not None
    name = path.resolve().relative_to(root.resolve()).as_posix()
    try:
        with path.open("rb") as file:  # one open file: a replacement meanwhile does no harm
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return None
    return {"name": name, "size": size, "sha256": digest}


def _death(exit_code: int | None) -> dict[str, str]:
    """Return the error of a child that ended without a word."""
    message = f"The training process ended with exit code {exit_code} and said nothing"
    hint = "The log's last lines may tell more."
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        message = f"The training process was killed by {name}"
        if name == "SIGKILL":
            hint = (
                "Often the host ran out of memory: try half the batch size, a smaller image "
                "size or fewer loader processes."
            )
    return {"kind": str(ErrorKind.CHILD_DIED), "message": message, "hint": hint}
