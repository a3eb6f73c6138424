"""What the demo prints."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from modelyard.client import StreamEvent
from modelyard.demo_view import JobView, duration, epoch_line


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")]
)
def test_a_duration_is_said_as_a_person_says_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_epoch_is_one_line_with_what_people_ask_for() -> None:
    line = epoch_line(
        {"epoch": 2, "values": {"train_loss": 0.5, "top1": 0.0, "images_per_second": 1234.5}},
        epochs=8,
        progress={"eta_seconds": 61},
    )
    # A zero is a value.
    assert line == "epoch 2/8  loss 0.5000  accuracy 0.0000  1,234 images/s  1 min 1 s left"


def test_without_a_terminal_there_are_plain_lines() -> None:
    out = io.StringIO()
    with JobView(Console(file=out, force_terminal=False), {"id": 1, "epochs": 2}) as view:
        view.show(StreamEvent("1", "snapshot", {"status": "queued"}))
        view.show(StreamEvent("2", "status", {"status": "running"}))
        view.show(StreamEvent("3", "progress", {"epoch": 1, "percent": 10.0}))
        view.show(StreamEvent("4", "log", {"lines": ["x"]}))
        view.show(StreamEvent("5", "metrics", {"epoch": 1, "values": {"map50": 0.25}}))
    assert out.getvalue().splitlines() == [
        "job is queued",
        "job is running",
        "epoch 1/2  accuracy 0.2500",
    ]
