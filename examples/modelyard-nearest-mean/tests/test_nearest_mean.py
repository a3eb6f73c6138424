"""The adapter by itself: a job, a reporter that remembers, a folder of small images."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modelyard_nearest_mean.adapter import NearestMeanAdapter
from PIL import Image

from adapters.contract import (
    DatasetFormat,
    ErrorKind,
    StopReason,
    TaskType,
    TrainingError,
    TrainingJob,
)


class Memory:
    """A reporter that remembers, and asks to stop after a number of steps."""

    def __init__(self, *, stop_after: int | None = None) -> None:
        self.values: dict[int, dict[str, float]] = {}
        self.kept: list[str] = []
        self.steps = 0
        self._stop_after = stop_after

    def progress(self, **where: Any) -> None:
        self.steps += 1

    def metrics(self, *, epoch: int, values: dict[str, float], step: int | None = None) -> None:
        self.values[epoch] = dict(values)

    def decided(self, name: str, value: float | str, *, why: str) -> None: ...

    def artifact(self, path: Path, *, kind: str) -> None:
        self.kept.append(path.name)

    def log(self, line: str) -> None: ...

    def should_stop(self) -> StopReason | None:
        reached = self._stop_after is not None and self.steps >= self._stop_after
        return StopReason.NOW if reached else None


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    """Two shades with much noise: near enough to each other that training has something to do."""
    noise = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        for label, shade in (("dark", 100), ("light", 140)):
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(noise.normal(shade, 40, (16, 16, 3)), 0, 255).astype("uint8")
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return TrainingJob(
        id=1, attempt=1, framework="nearest-mean", model_name="mean8",
        task_type=TaskType.IMAGE_CLASSIFICATION, dataset_path=tmp_path / "data",
        dataset_format=DatasetFormat.IMAGEFOLDER, epochs=3, batch_size=1, learning_rate=0.05,
    ).placed(output_dir=tmp_path / "out", weights_dir=tmp_path, compute_device="cpu")  # fmt: skip


def resumed(job: TrainingJob) -> TrainingJob:
    return dataclasses.replace(job, attempt=2, resume=True)


def test_it_learns_and_its_best_model_predicts(job: TrainingJob) -> None:
    reporter = Memory()
    result = NearestMeanAdapter().train(job, reporter)
    assert result.epochs_completed == 3
    assert result.accuracy is not None
    assert result.accuracy >= 0.9
    assert reporter.values[3]["val_loss"] < 1.0
    predictor = NearestMeanAdapter().load(job)
    dark, light = (Image.new("RGB", (40, 30), (shade,) * 3) for shade in (100, 140))
    scores = [p.scores for p in predictor.predict([dark, light])]
    assert [predictor.classes[int(s.argmax())] for s in scores] == ["dark", "light"]


def test_an_interrupted_job_goes_on_to_the_same_bits(job: TrainingJob) -> None:
    whole = Memory()
    NearestMeanAdapter().train(job, whole)
    expected = (job.checkpoints_dir / "last.npz").read_bytes()
    for path in job.checkpoints_dir.iterdir():
        path.unlink()
    stopped = NearestMeanAdapter().train(job, Memory(stop_after=30))
    assert stopped.stopped == StopReason.NOW
    NearestMeanAdapter().train(resumed(job), Memory())
    kept, wanted = (np.load(p) for p in (job.checkpoints_dir / "last.npz", _file(expected)))
    assert all(np.array_equal(kept[name], wanted[name]) for name in wanted)


def test_without_a_best_model_loading_says_so(job: TrainingJob) -> None:
    with pytest.raises(TrainingError) as caught:
        NearestMeanAdapter().load(job)
    assert caught.value.kind == ErrorKind.CHECKPOINT_INVALID


def _file(content: bytes) -> Any:
    return io.BytesIO(content)
