"""What a child reports, and how often."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adapters.contract import DatasetFormat, StopReason, TaskType, TrainingJob
from workers.reporter import PROGRESS_INTERVAL_SECONDS, PipeReporter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pipe() -> Iterator[tuple[Connection, Connection]]:
    reader, writer = Pipe(duplex=False)
    yield reader, writer
    reader.close()
    writer.close()


@pytest.fixture
def reporter(pipe: tuple[Connection, Connection], clock: Clock) -> PipeReporter:
    job = TrainingJob(
        id=1, attempt=1, framework="timm", model_name="resnet18",
        task_type=TaskType.IMAGE_CLASSIFICATION, dataset_path=Path("/data"),
        dataset_format=DatasetFormat.IMAGEFOLDER, epochs=4, batch_size=8, learning_rate=0.1,
    )  # fmt: skip
    return PipeReporter(job, pipe[1], clock=clock)


def said(reader: Connection) -> list[dict[str, Any]]:
    messages = []
    while reader.poll(0):
        messages.append(json.loads(reader.recv_bytes()))
    return messages


def test_progress_is_thinned_but_the_end_of_an_epoch_is_always_told(
    reporter: PipeReporter, pipe: tuple[Connection, Connection], clock: Clock
) -> None:
    for step in range(1, 101):
        clock.now += PROGRESS_INTERVAL_SECONDS / 20
        reporter.progress(epoch=1, step=step, steps=100)
    steps = [message["data"]["step"] for message in said(pipe[0])]
    assert len(steps) <= 7
    assert steps[-1] == 100


def test_percent_counts_the_epochs_before(
    reporter: PipeReporter, pipe: tuple[Connection, Connection]
) -> None:
    reporter.progress(epoch=3, step=5, steps=10)
    [message] = said(pipe[0])
    assert message["data"]["percent"] == 62.5


def test_metrics_that_are_not_finite_are_left_out(
    reporter: PipeReporter,
    pipe: tuple[Connection, Connection],
    capsys: pytest.CaptureFixture[str],
) -> None:
    reporter.metrics(epoch=2, values={"val_loss": math.nan, "top1": 0.0})
    [message] = said(pipe[0])
    assert message["data"]["values"] == {"top1": 0.0}
    assert "val_loss is nan" in capsys.readouterr().out


def test_a_request_to_stop_is_seen(reporter: PipeReporter) -> None:
    assert reporter.should_stop() is None
    reporter.request_stop(StopReason.NOW)
    assert reporter.should_stop() == StopReason.NOW


def test_time_left_is_of_the_attempt_and_no_gpu_is_asked_on_a_cpu(
    reporter: PipeReporter, pipe: tuple[Connection, Connection], clock: Clock
) -> None:
    for step in range(1, 11):
        clock.now += 1
        reporter.progress(epoch=3, step=step, steps=10)
    last = said(pipe[0])[-1]["data"]
    assert last["eta_seconds"] == 10.0
    assert last["device_memory_bytes"] is None


def test_gpu_memory_is_the_most_that_the_slots_cards_held(
    pipe: tuple[Connection, Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = {0: 3 * 2**30, 1: 2**30, 2: 9 * 2**30}
    cuda = SimpleNamespace(is_initialized=lambda: True, max_memory_reserved=held.__getitem__)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    job = TrainingJob(
        id=1, attempt=1, framework="timm", model_name="resnet18",
        task_type=TaskType.IMAGE_CLASSIFICATION, dataset_path=Path("/data"),
        dataset_format=DatasetFormat.IMAGEFOLDER, epochs=4, batch_size=8, learning_rate=0.1,
        compute_device="cuda:0,1",
    )  # fmt: skip
    PipeReporter(job, pipe[1]).progress(epoch=1, step=1, steps=2)
    [message] = said(pipe[0])
    assert message["data"]["device_memory_bytes"] == 4 * 2**30
