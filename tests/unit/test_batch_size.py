"""Batch size 0: which sizes are tried, which one is taken, and what follows out-of-memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adapters import batch_size
from adapters.batch_size import (
    Chosen,
    Limits,
    Trial,
    _free_in_container,
    decide,
    find_batch_size,
    shrinking,
    size_limit,
)

CPU = torch.device("cpu")
GB = 10**9
TOO_MANY = "a larger one would leave too few updates"


def limits(**changes: Any) -> Limits:
    values: dict[str, Any] = {
        "size": 64,
        "size_why": TOO_MANY,
        "memory": 10 * GB,
        "place": "this machine",
        "predict": True,
    }
    return Limits(**{**values, **changes})


@pytest.mark.parametrize(
    ("trials", "changes", "answer"),
    [
        ([], {}, 2),
        ([], {"size": 1}, 1),
        ([Trial(2, 1 * GB)], {}, 4),
        ([Trial(2, 9 * GB)], {}, 4),  # of one trial nothing is foretold: most of it may be fixed
        ([Trial(2, 1 * GB), Trial(4, 2 * GB)], {}, 8),
        ([Trial(4, 4 * GB), Trial(8, 8 * GB)], {}, "8: would take about 16.0 GB of the 10.0 GB"),
        ([Trial(4, 4 * GB), Trial(8, 8 * GB)], {"predict": False}, 16),
        ([Trial(8, 8 * GB), Trial(16, 11 * GB)], {}, "8: takes 11.0 GB of the 10.0 GB"),
        ([Trial(8, 8 * GB), Trial(16, None)], {}, "8: a batch of 16 did not fit"),
        ([Trial(2, 11 * GB)], {}, "2: takes 11.0 GB"),  # it fitted all the same
        ([Trial(32, 1 * GB), Trial(64, 2 * GB)], {}, f"64: {TOO_MANY}"),
        ([Trial(4, 1 * GB), Trial(8, 2 * GB, seconds=11)], {}, "8: takes 11 s already"),
        ([Trial(4, 3 * GB), Trial(8, 2 * GB)], {}, 16),  # the allocator gave some back
    ],
)
def test_what_is_tried_next_or_taken(
    trials: list[Trial], changes: dict[str, Any], answer: int | str
) -> None:
    decided = decide(trials, limits=limits(**changes))
    if isinstance(answer, int):
        assert decided == answer
    else:
        assert isinstance(decided, Chosen)
        size, _, why = answer.partition(": ")
        assert decided.size == int(size)
        assert why in decided.why


@pytest.mark.parametrize(
    ("images", "options", "size"),
    [
        (1, {}, 2),
        (5, {}, 4),
        (24, {}, 8),
        (200, {}, 8),
        (1_400, {}, 64),
        (1_400, {"accumulation_steps": 4}, 16),
        (1_400, {"ranks": 2}, 32),
        (50_000, {}, 1024),
        (1_000_000, {}, 1024),
    ],
)
def test_an_epoch_keeps_enough_updates(images: int, options: dict[str, int], size: int) -> None:
    assert size_limit(images, **options)[0] == size


def test_on_a_cpu_the_memory_of_a_step_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(size: int) -> None:
        torch.ones(size, 2_000_000).sum()  # 8 MB an image, gone again after it: only the peak tells

    monkeypatch.setattr(batch_size, "LONGEST_TRIAL_SECONDS", 300.0)
    monkeypatch.setattr(batch_size, "_free_memory", lambda device: 10**9)
    chosen = find_batch_size(step, device=CPU, train_images=300)
    assert chosen.size == 16
    assert "fewer than 16 updates" in chosen.why
    monkeypatch.setattr(batch_size, "_free_memory", lambda device: 100_000_000)
    hungry = find_batch_size(step, device=CPU, train_images=10**6)
    assert hungry.size in (4, 8)  # what else the process took and gave back moves the peak
    assert "of the 0.1 GB of this machine that may be used" in hungry.why


def test_out_of_memory_in_a_trial_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size, "LONGEST_TRIAL_SECONDS", 300.0)
    tried = []

    def step(size: int) -> None:
        tried.append(size)
        if size > 8:
            raise torch.OutOfMemoryError("out of memory")

    chosen = find_batch_size(step, device=CPU, train_images=10_000)
    assert tried == [2, 4, 8, 16]
    assert chosen.size == 8


def test_what_is_no_lack_of_memory_is_raised() -> None:
    def step(size: int) -> None:
        raise ValueError("another fault")

    with pytest.raises(ValueError, match="another fault"):
        find_batch_size(step, device=CPU, train_images=100)


class Told:
    def __init__(self) -> None:
        self.decisions: list[tuple[str, object, str]] = []

    def decided(self, name: str, value: object, *, why: str) -> None:
        self.decisions.append((name, value, why))


def test_training_goes_on_with_half_the_batch_where_memory_runs_out() -> None:
    told, sizes = Told(), []

    def train(size: int) -> str:
        sizes.append(size)
        if size > 4:
            raise torch.OutOfMemoryError("out of memory")
        return "trained"

    assert shrinking(train, 16, reporter=told, device="cuda:0") == "trained"  # type: ignore[arg-type]
    assert sizes == [16, 8, 4]
    assert [(name, value) for name, value, _ in told.decisions] == [
        ("batch_size", 8),
        ("batch_size", 4),
    ]
    assert "ran out in training with a batch of 16" in told.decisions[0][2]


def test_where_one_image_does_not_fit_the_error_is_raised() -> None:
    def train(size: int) -> None:
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        shrinking(train, 2, reporter=Told(), device="cuda:0")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 1 << 62),
        ({"memory.max": "max", "memory.current": "5"}, 1 << 62),
        ({"memory.max": "100", "memory.current": "30"}, 70),
        (
            {
                "memory.max": "100",
                "memory.current": "90",
                "memory.stat": "inactive_file 25\nanon 1",
            },
            35,
        ),
        ({"memory/memory.limit_in_bytes": "100", "memory/memory.usage_in_bytes": "40"}, 60),
    ],
)
def test_a_containers_limit_counts(tmp_path: Path, files: dict[str, str], free: int) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert _free_in_container(tmp_path) == free
