"""How an attempt ended: a table of what the child said last, what was asked, and its exit."""

from __future__ import annotations

import dataclasses
import errno
import subprocess
from collections.abc import Mapping
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, cast

import pytest

from adapters.contract import DatasetFormat, TaskType, TrainingJob
from adapters.wire import EventType, Outcome
from modelyard.settings import load_settings
from workers.attempt import run_attempt
from workers.stopping import Stop, StopRequest
from workers.supervisor import Supervisor, judge
from workers.template import SupervisorPipes, Template

JOB = TrainingJob(
    id=7, attempt=1, framework="timm", model_name="m", task_type=TaskType.IMAGE_CLASSIFICATION,
    dataset_path=Path("/d"), dataset_format=DatasetFormat.IMAGEFOLDER, epochs=1, batch_size=1,
    learning_rate=0.1,
)  # fmt: skip
DONE = {"result": {"stopped": None}}
STOPPED_NOW = {"result": {"stopped": "now"}}
STOPPED_BY_SHUTDOWN = {"result": {"stopped": "shutdown"}}
FAILED = {"error": {"kind": "nan_loss", "message": "m", "hint": "h"}}


@pytest.mark.parametrize(
    ("final", "stop", "exit_code", "outcome"),
    [
        (DONE, None, 0, Outcome.COMPLETED),
        (DONE, Stop.NOW, 0, Outcome.COMPLETED),  # it was done before it heard
        (DONE, Stop.SHUTDOWN, 0, Outcome.COMPLETED),
        (STOPPED_NOW, Stop.NOW, 0, Outcome.CANCELLED),
        (STOPPED_NOW, Stop.AFTER_EPOCH, 0, Outcome.CANCELLED),
        (None, Stop.NOW, -9, Outcome.CANCELLED),  # ignored the request and was killed
        (None, Stop.KILL, -9, Outcome.CANCELLED),
        (FAILED, Stop.NOW, 0, Outcome.CANCELLED),
        (STOPPED_BY_SHUTDOWN, Stop.SHUTDOWN, 0, Outcome.HANDED_BACK),
        (STOPPED_BY_SHUTDOWN, None, 0, Outcome.HANDED_BACK),  # someone's plain kill of the child
        (None, Stop.SHUTDOWN, -9, Outcome.HANDED_BACK),
        (STOPPED_BY_SHUTDOWN, Stop.PREEMPTED, 0, Outcome.PREEMPTED),
        (None, Stop.PREEMPTED, -9, Outcome.PREEMPTED),
        (DONE, Stop.PREEMPTED, 0, Outcome.COMPLETED),
        (FAILED, None, 0, Outcome.FAILED),
        (None, None, -11, Outcome.FAILED),
        (None, None, 1, Outcome.FAILED),
        (DONE, Stop.LOST, 0, None),  # another may train it by now
        (None, Stop.LOST, -9, None),
    ],
)
def test_the_outcome_follows_from_last_words_request_and_exit(
    final: dict[str, object] | None, stop: Stop | None, exit_code: int, outcome: Outcome | None
) -> None:
    assert judge(final, stop=stop, exit_code=exit_code).outcome == outcome


def test_a_child_that_was_killed_is_reported_with_the_signal_and_what_to_do() -> None:
    error = judge(None, stop=None, exit_code=-9).error
    assert error is not None
    assert "SIGKILL" in error["message"]
    assert "half the batch size" in error["hint"]


def test_a_failure_keeps_the_adapters_own_words() -> None:
    assert judge(FAILED, stop=None, exit_code=0).error == FAILED["error"]


def test_a_softer_request_does_not_replace_a_harder_one() -> None:
    request = StopRequest()
    request.ask(Stop.KILL)
    request.ask(Stop.AFTER_EPOCH)
    assert request.current == Stop.KILL


def test_a_worker_that_goes_away_or_a_person_outdoes_a_job_that_wants_the_place() -> None:
    for harder in (Stop.SHUTDOWN, Stop.NOW, Stop.KILL, Stop.LOST):
        request = StopRequest()
        request.ask(Stop.PREEMPTED)
        request.ask(harder)
        assert request.current == harder


@pytest.mark.parametrize(("final", "lives"), [(DONE, True), (STOPPED_BY_SHUTDOWN, False)])
def test_what_was_trained_before_it_gave_its_place_has_the_time_for_its_evaluation(
    final: dict[str, Any], lives: bool
) -> None:
    now, stop = 0.0, StopRequest()
    supervisor = Supervisor(
        JOB, template=cast("Template", None), sink=lambda type, data: None, stop=stop,
        cancel_grace_seconds=5, shutdown_grace_seconds=5, clock=lambda: now,
    )  # fmt: skip
    heard, requests = Pipe(duplex=False)
    pipes = SupervisorPipes(events=heard, requests=requests, log=heard)
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        stop.ask(Stop.PREEMPTED)
        supervisor._pass_on_stop(child.pid, pipes)
        assert heard.recv_bytes() == b"shutdown"
        supervisor._final = final
        now = 6
        supervisor._pass_on_stop(child.pid, pipes)
        if not lives:
            child.wait(30)
        assert (child.poll() is None) == lives
    finally:
        child.kill()
        child.wait()
        pipes.close()
        requests.close()


@pytest.mark.parametrize(
    ("asked", "outcome"),
    [(None, Outcome.FAILED), (Stop.SHUTDOWN, Outcome.HANDED_BACK), (Stop.LOST, None)],
)
def test_what_a_host_cannot_carry_out_is_told_and_not_taken_for_a_lost_worker(
    tmp_path: Path, asked: Stop | None, outcome: Outcome | None
) -> None:
    class NoMoreProcesses:
        def fork(self, job: TrainingJob, **options: Any) -> None:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    environ = {"MODELYARD_HOME": str(tmp_path), "MODELYARD_DATA_ROOTS": str(tmp_path)}
    settings = load_settings({**environ, "MODELYARD_WORKER_NAME": "w1"})
    told: list[tuple[EventType, Mapping[str, Any]]] = []
    stop = StopRequest()
    if asked is not None:
        stop.ask(asked)
    ending = run_attempt(
        dataclasses.replace(JOB, dataset_path=tmp_path, output_dir=tmp_path),
        template=cast("Template", NoMoreProcesses()),
        settings=settings,
        sink=lambda type, data: told.append((type, data)),
        stop=stop,
    )
    assert ending.outcome == outcome
    assert [type for type, _ in told[1:]] == ([EventType.FINISHED] if outcome else [])
    if outcome == Outcome.FAILED:
        assert ending.error is not None
        assert ending.error["kind"] == "child_died"
        assert ending.error["message"].startswith("Worker w1 cannot carry it out: BlockingIOError")
