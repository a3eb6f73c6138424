"""The job message and the events, as they travel."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters import get_adapter, wire
from adapters.contract import (
    Best,
    ContractError,
    DatasetFormat,
    DeviceChoice,
    Result,
    TaskType,
    TrainingJob,
    UnknownFramework,
)
from adapters.wire import Event, EventType

JOB = TrainingJob(
    id=7, attempt=2, framework="timm", model_name="resnet18",
    task_type=TaskType.IMAGE_CLASSIFICATION, dataset_path=Path("/data/손글씨"),
    dataset_format=DatasetFormat.IMAGEFOLDER, epochs=4, batch_size=8, learning_rate=0.1,
    hyperparameters={"mixup": 0.2}, device=DeviceChoice.GPU, resume=True,
)  # fmt: skip


def test_a_job_comes_out_of_its_message_as_it_went_in() -> None:
    assert TrainingJob.from_message(JOB.to_message()) == JOB


def test_a_message_never_carries_the_workers_own_paths() -> None:
    placed = JOB.placed(output_dir=Path("/o"), weights_dir=Path("/w"), compute_device="cuda:0")
    assert placed.to_message() == JOB.to_message()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"output_dir": "/etc"}, "unknown field 'output_dir'"),
        ({"task_type": "mind_reading"}, "'task_type'"),
        ({"learning_rate": "nan"}, "'learning_rate'"),
        ({"epochs": "many"}, "'epochs'"),
    ],
)
def test_a_message_that_is_wrong_is_refused_by_the_fields_name(
    change: dict[str, object], words: str
) -> None:
    with pytest.raises(ContractError, match=words):
        TrainingJob.from_message({**JOB.to_message(), **change})


def test_a_message_that_lacks_a_field_is_refused_by_the_fields_name() -> None:
    message = JOB.to_message()
    del message["model_name"]
    with pytest.raises(ContractError, match="lacks the field 'model_name'"):
        TrainingJob.from_message(message)


def test_a_result_whose_loss_is_no_number_can_be_told() -> None:
    best = Best(epoch=1, metric="map50", value=math.nan)
    result = Result(epochs_completed=2, accuracy=0.5, loss=math.nan, best=best)
    told = result.to_json()
    assert (told["accuracy"], told["loss"], told["best"]) == (0.5, None, None)
    json.dumps(told, allow_nan=False)


def test_an_event_comes_out_as_it_went_in() -> None:
    event = Event(1, 2, 3, EventType.LOG, datetime(2026, 1, 2, 3, 4, 5, 678000, UTC), {"a": "é"})
    assert Event.from_json(event.to_json()) == event


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"job_id": 1}', '{"job_id": "x"}', "\x00"])
def test_what_is_no_event_is_refused(text: str) -> None:
    with pytest.raises(ContractError):
        Event.from_json(text)


def test_an_unknown_framework_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownFramework, match="known are: huggingface, timm, ultralytics"):
        get_adapter("tensorflow")


def test_the_most_urgent_priority_goes_first_in_redis() -> None:
    assert [wire.broker_priority(p) for p in (9, 4, 0)] == [0, 5, 9]
