"""From a job to what Ultralytics' trainer takes: checked options, arguments, data, checkpoint."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from adapters.checkpoints import write_atomically
from adapters.contract import DatasetFormat, ErrorKind, TaskType, TrainingError, TrainingJob
from adapters.data import yolo
from adapters.data.description import DatasetError
from adapters.schemas.ultralytics import (
    DEFAULT_OPTIMIZER,
    IMAGE_SIZE_STEP,
    OPTIMIZERS,
    UltralyticsHyperparameters,
)
from adapters.ultralytics_training.checkpoint import read_state
from adapters.ultralytics_training.models import PackagedModel, packaged_models
from adapters.ultralytics_training.speed import cpu_computes_in_bf16

DEFAULT_IMAGE_SIZE = 640
DATA_YAML = "data.yaml"
_LIBRARY_DEFAULT_BIAS_RATE = 0.1
_MOMENTUM_OPTIMIZERS = ("sgd", "musgd", "rmsprop")

# Options that are not arguments of the library, or are not passed on as they are.
_OURS = {"nbs", "warmup_bias_lr", "freeze", "plots", "precision", "cache_images"}


def check_job(job: TrainingJob) -> tuple[PackagedModel, UltralyticsHyperparameters]:
    """Return a job's model and options, or say what Ultralytics cannot do of it."""
    if job.task_type is not TaskType.OBJECT_DETECTION:
        raise _unsupported(f"Ultralytics jobs of the task '{job.task_type}' cannot be trained yet.")
    if job.dataset_format is not DatasetFormat.YOLO:
        raise _unsupported(f"Ultralytics trains on 'yolo' data sets, not on '{job.dataset_format}'")
    model = packaged_models().get(job.model_name)
    if model is None or model.task_type is not job.task_type:
        raise _unsupported(f"'{job.model_name}' is no detection model of the installed Ultralytics")
    if _optimizer(job) not in OPTIMIZERS:
        raise _unsupported(
            f"'{job.optimizer}' is no optimizer of Ultralytics; it has {', '.join(OPTIMIZERS)}"
        )
    if not 0 < job.learning_rate <= 1:
        raise _unsupported(f"learning_rate is {job.learning_rate}; it must be above 0, at most 1")
    if image_size(job) % IMAGE_SIZE_STEP or image_size(job) < IMAGE_SIZE_STEP:
        raise _unsupported(
            f"image_size is {image_size(job)}; it must be a multiple of {IMAGE_SIZE_STEP}"
        )
    try:
        options = UltralyticsHyperparameters.model_validate(dict(job.hyperparameters))
    except ValidationError as error:
        raise _unsupported(f"The job's hyperparameters are not right: {error}") from error
    return model, options


def image_size(job: TrainingJob) -> int:
    return DEFAULT_IMAGE_SIZE if job.image_size is None else job.image_size


def read_data(job: TrainingJob) -> yolo.YoloData:
    """Read a job's data set, or say what is wrong with it."""
    try:
        return yolo.read(job.dataset_path)
    except DatasetError as error:
        hint = "Look at the problems on the data set's page, mend them and check it again."
        raise TrainingError(ErrorKind.DATASET_INVALID, str(error), hint=hint) from error


def read_resume(job: TrainingJob) -> dict[str, Any] | None:
    """Return the checkpoint that a job goes on from, or None where it starts anew."""
    path = job.checkpoints_dir / "last.pt"
    return read_state(path) if job.resume and path.is_file() else None


def library_arguments(
    job: TrainingJob, options: UltralyticsHyperparameters, *, folder: Path, resuming: bool
) -> dict[str, Any]:
    """Return Ultralytics' arguments for a job."""
    optimizer = _optimizer(job)
    bias_rate = options.warmup_bias_lr
    if bias_rate is None:
        # Made for SGD: with the Adam family it throws biases off in the first steps.
        bias_rate = _LIBRARY_DEFAULT_BIAS_RATE if optimizer in _MOMENTUM_OPTIMIZERS else 0.0
    return {
        **options.model_dump(exclude=_OURS),
        "task": "detect",
        "mode": "train",
        "model": f"{job.model_name}.yaml",
        "data": str(folder / DATA_YAML),
        "save_dir": str(folder),
        "exist_ok": True,
        "epochs": job.epochs,
        "batch": job.batch_size,
        "imgsz": image_size(job),
        "optimizer": optimizer,
        "lr0": job.learning_rate,
        "warmup_bias_lr": bias_rate,
        "nbs": options.nbs or job.batch_size,
        "seed": job.seed,
        "device": job.compute_device,
        "amp": _precision(options.precision, job.compute_device),
        "freeze": options.freeze or None,
        "cache": "ram" if options.cache_images else False,
        "pretrained": False,  # weights are read by us
        "resume": resuming,
        "plots": False,  # only at the end, see ultralytics_report
        "verbose": False,
    }


def trim_results(path: Path, *, epochs: int) -> None:
    """Drop from a results.csv the epochs that will be trained again."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", newline="") as file:
        head, *rows = list(csv.reader(file)) or [[]]
    kept = [row for row in rows if row and row[0].strip().isdigit() and int(row[0]) <= epochs]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *kept])
    write_atomically(path, lambda stream: stream.write(text.getvalue().encode()))


def validation_loss(metrics: Mapping[str, float]) -> float | None:
    """Return the sum of the validation losses among Ultralytics' metrics."""
    losses = [float(value) for name, value in metrics.items() if name.startswith("val/")]
    return sum(losses) if losses else None


def _precision(wanted: str, device: str) -> bool | str:
    """Return the library's argument 'amp': 'bf16', True for float16, False for float32."""
    if wanted == "auto":
        if device.startswith("cuda"):
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else True
        return "bf16" if cpu_computes_in_bf16() else False
    if wanted == "fp16" and not device.startswith("cuda"):
        raise _unsupported("precision fp16 needs a GPU; 'auto' picks what the device is fast in")
    arguments: dict[str, bool | str] = {"bf16": "bf16", "fp16": True, "fp32": False}
    return arguments[wanted]


def _optimizer(job: TrainingJob) -> str:
    return (job.optimizer or DEFAULT_OPTIMIZER).lower()


def _unsupported(message: str) -> TrainingError:
    hint = "Clone the job and change it."
    return TrainingError(ErrorKind.UNSUPPORTED, message, hint=hint)
