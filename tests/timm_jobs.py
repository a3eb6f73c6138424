"""Small jobs for the timm adapter, what they reported, and where two of them differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from adapters import get_adapter
from adapters.contract import DatasetFormat, Result, StopReason, TaskType, TrainingJob
from modelyard.sample_images import draw_digit, encode_png, read_digits

SIDE = 32  # pixels
TRAIN_IMAGES, VAL_IMAGES = 96, 32
BATCH_SIZE = 16

# All that draws random numbers, keeps a state of its own or spans several batches.
EVERYTHING: dict[str, Any] = {
    "mixup": 0.4,
    "cutmix": 1.0,
    "ema": True,
    "ema_decay": 0.9,
    "accumulation_steps": 4,  # of six: an interruption falls between the batches of an update
    "random_erasing": 0.3,
    "auto_augment": "rand-m5-mstd0.5-inc1",
    "hflip": 0.5,
    "drop_rate": 0.2,
    "drop_path": 0.1,
    "gradient_clip": 1.0,
    "layer_decay": 0.9,
}


class Recorder:
    """Keeps what an adapter reports; ``stop`` answers the n-th question, from 1 on."""

    def __init__(self, stop: Callable[[int], StopReason | None] = lambda n: None) -> None:
        self.progressed: list[dict[str, Any]] = []
        self.measured: dict[int, dict[str, float]] = {}
        self.artifacts: list[Path] = []
        self.lines: list[str] = []
        self.decisions: dict[str, tuple[float | str, str]] = {}
        self.questions = 0
        self._stop = stop

    def progress(self, **values: Any) -> None:
        self.progressed.append(values)

    def metrics(self, *, epoch: int, values: Mapping[str, float], step: int | None = None) -> None:
        self.measured[epoch] = dict(values)

    def decided(self, name: str, value: float | str, *, why: str) -> None:
        self.decisions[name] = (value, why)

    def artifact(self, path: Path, *, kind: str) -> None:
        assert path.is_file()
        self.artifacts.append(path)

    def log(self, line: str) -> None:
        self.lines.append(line)

    def should_stop(self) -> StopReason | None:
        self.questions += 1
        return self._stop(self.questions)


def write_digits(folder: Path) -> Path:
    """Write a few digits as an image folder."""
    for digit in read_digits()[: TRAIN_IMAGES + VAL_IMAGES]:
        split = "train" if digit.index < TRAIN_IMAGES else "val"
        path = folder / split / str(digit.label) / f"{digit.index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(draw_digit(digit, width=SIDE, height=SIDE)))
    return folder


def make_job(data: Path, output: Path, **changes: Any) -> TrainingJob:
    """Return a placed job that trains in a second or two."""
    job = TrainingJob(
        id=1,
        attempt=1,
        framework="timm",
        model_name="test_resnet",
        task_type=TaskType.IMAGE_CLASSIFICATION,
        dataset_path=data,
        dataset_format=DatasetFormat.IMAGEFOLDER,
        epochs=2,
        batch_size=BATCH_SIZE,
        learning_rate=0.003,
        image_size=SIDE,
        seed=1,
        hyperparameters={"workers": 0, "color_jitter": 0.0},
    ).placed(output_dir=output, weights_dir=output.with_name("weights"), compute_device="cpu")
    return changed(job, **changes)


def train(job: TrainingJob, reporter: Recorder | None = None) -> Result:
    return get_adapter("timm").train(job, reporter or Recorder())


def changed(job: TrainingJob, **changes: Any) -> TrainingJob:
    """Return the job with other fields, hyperparameters added to those it has."""
    more = changes.pop("hyperparameters", {})
    return dataclasses.replace(job, **changes, hyperparameters={**job.hyperparameters, **more})


def elsewhere(job: TrainingJob, name: str, **changes: Any) -> TrainingJob:
    assert job.output_dir is not None
    return changed(job, output_dir=job.output_dir.with_name(name), **changes)


def last_state(job: TrainingJob) -> dict[str, Any]:
    """Return a job's last checkpoint without what tells the time."""
    state: dict[str, Any] = torch.load(job.checkpoints_dir / "last.pth", weights_only=True)
    state["place"].pop("seconds")
    state["place"]["metrics"].pop("images_per_second", None)
    return state


def best_weights(job: TrainingJob) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(job.checkpoints_dir / "best.safetensors")


def differences(one: Any, other: Any, at: str = "") -> list[str]:
    """Return where two nested states differ in any bit."""
    if isinstance(one, torch.Tensor):
        same = one.dtype == other.dtype and torch.equal(one, other)
        return [] if same else [at]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [f"{at}: {one.keys() ^ other.keys()}"]
        return [d for k in one for d in differences(one[k], other[k], f"{at}/{k}")]
    if isinstance(one, list | tuple):
        return [
            d
            for i, (a, b) in enumerate(zip(one, other, strict=True))
            for d in differences(a, b, f"{at}/{i}")
        ]
    return [] if one == other else [f"{at}: {one} {other}"]


def comparable(measured: dict[int, dict[str, float]]) -> dict[int, dict[str, float]]:
    return {
        epoch: {name: v for name, v in values.items() if name != "images_per_second"}
        for epoch, values in measured.items()
    }
