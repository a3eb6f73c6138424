"""Trained models stay loaded as long as they fit, and a job that goes on has another model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from adapters.contract import DatasetFormat, TaskType, TrainingJob
from workers.tool_models import Models


class Loads:
    """Counts what is loaded; each model takes 100 bytes of memory as this process sees it."""

    def __init__(self) -> None:
        self.jobs: list[int] = []
        self.memory = 0

    def __call__(self, job: TrainingJob) -> Any:
        self.jobs.append(job.id)
        self.memory += 100
        return f"model of job {job.id}"


def job(folder: Path, id: int, *, attempt: int = 1) -> TrainingJob:
    described = TrainingJob(
        id=id,
        attempt=attempt,
        framework="timm",
        model_name="resnet18",
        task_type=TaskType.IMAGE_CLASSIFICATION,
        dataset_path=folder,
        dataset_format=DatasetFormat.IMAGEFOLDER,
        epochs=1,
        batch_size=1,
        learning_rate=0.1,
    )
    output_dir = folder / str(id)
    (output_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
    best = output_dir / "checkpoints" / "best.safetensors"
    if not best.exists():
        best.touch()
    return described.placed(output_dir=output_dir, weights_dir=folder, compute_device="cpu")


def models(loads: Loads, *, budget_bytes: int = 250) -> Models:
    return Models(load=loads, memory=lambda: loads.memory, budget_bytes=budget_bytes)


def test_a_model_is_loaded_once(tmp_path: Path) -> None:
    loads = Loads()
    kept = models(loads)
    assert kept.get(job(tmp_path, 1)) == kept.get(job(tmp_path, 1)) == "model of job 1"
    assert loads.jobs == [1]


def test_the_model_that_was_used_the_longest_ago_goes_first(tmp_path: Path) -> None:
    loads = Loads()
    kept = models(loads)
    for id in (1, 2, 1, 3):  # two fit
        kept.get(job(tmp_path, id))
    assert len(kept) == 2
    kept.get(job(tmp_path, 1))
    kept.get(job(tmp_path, 2))
    assert loads.jobs == [1, 2, 3, 2]


def test_a_model_larger_than_the_budget_is_kept_alone(tmp_path: Path) -> None:
    loads = Loads()
    kept = models(loads, budget_bytes=50)
    kept.get(job(tmp_path, 1))
    kept.get(job(tmp_path, 1))
    assert loads.jobs == [1]


def test_a_job_that_was_trained_further_is_loaded_anew(tmp_path: Path) -> None:
    loads = Loads()
    kept = models(loads, budget_bytes=1000)
    first = job(tmp_path, 1)
    kept.get(first)
    kept.get(job(tmp_path, 1, attempt=2))
    best = first.checkpoints_dir / "best.safetensors"
    os.utime(best, (1, 1))
    kept.get(first)
    assert loads.jobs == [1, 1, 1]
