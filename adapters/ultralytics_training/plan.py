"""From a job to what Ultralytics' trainer takes: checked options, arguments, data, checkpoint."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from adapters.checkpoints import write_atomically
from adapters.contract import ErrorKind, TaskType, TrainingError, TrainingJob
from adapters.data.content import Content
from adapters.data.description import DatasetError
from adapters.data.reading import read_for
from adapters.frameworks import framework_info
from adapters.machine import computes_in_bf16
from adapters.ranks import devices_of
from adapters.schemas.misfits import JobFacts, fp16_without_gpu, refuse
from adapters.schemas.ultralytics import (
    DEFAULT_OPTIMIZER,
    IMAGE_SIZE_STEP,
    LARGEST_LEARNING_RATE,
    OPTIMIZERS,
    UltralyticsHyperparameters,
    misfits,
)
from adapters.ultralytics_training.checkpoint import read_state
from adapters.ultralytics_training.models import (
    LIBRARY_TASKS,
    PackagedModel,
    packaged_models,
)
from adapters.ultralytics_training.parallel import library_device

DATA_YAML = "data.yaml"
_LIBRARY_DEFAULT_BIAS_RATE = 0.1
_MOMENTUM_OPTIMIZERS = ("sgd", "musgd", "rmsprop")

# Options that are not arguments of the library, or are not passed on as they are.
_OURS = {
    "nbs",
    "warmup_bias_lr",
    "freeze",
    "plots",
    "precision",
    "cache_images",
    "auto_augment",
}


def check_job(job: TrainingJob) -> tuple[PackagedModel, UltralyticsHyperparameters]:
    """Return a job's model and options, or say what Ultralytics cannot do of it."""
    formats = framework_info(job.framework).formats.get(job.task_type, ())
    if job.dataset_format not in formats:
        wanted = ", ".join(f"'{name}'" for name in formats) or "no"
        raise _unsupported(
            f"Ultralytics trains {job.task_type} on {wanted} data sets, not on "
            f"'{job.dataset_format}'"
        )
    model = packaged_models().get(job.model_name)
    if model is None:
        raise _unsupported(f"'{job.model_name}' is no model of the installed Ultralytics")
    if model.task_type is not job.task_type:
        raise _unsupported(f"'{job.model_name}' is for {model.task_type}, not for {job.task_type}")
    _check_numbers(job)
    try:
        options = UltralyticsHyperparameters.model_validate(dict(job.hyperparameters))
    except ValidationError as error:
        raise _unsupported(f"The job's hyperparameters are not right: {error}") from error
    _check_together(job, options)
    return model, options


def _check_together(
    job: TrainingJob, options: UltralyticsHyperparameters, content: Content | None = None
) -> None:
    """Raise TrainingError where what was asked for does not go together, or with the data."""
    facts = JobFacts(
        task_type=job.task_type,
        model_name=job.model_name,
        epochs=job.epochs,
        batch_size=job.batch_size or None,
        image_size=job.image_size,
        on_cpu=False,  # decide_precision() looks at that: a trained model is used anywhere
        multi_label=False,
        classes=None if content is None else tuple(content.classes),
        train_images=None if content is None else len(content.splits["train"]),
        devices=len(devices_of(job.compute_device)),
    )
    refuse(misfits(options, facts))


def _check_numbers(job: TrainingJob) -> None:
    devices = len(devices_of(job.compute_device))
    if devices > 1 and job.batch_size == 0:
        raise _unsupported(
            "Ultralytics finds the largest batch on one GPU only: give a batch_size for all "
            f"{devices} of them together"
        )
    if devices > 1 and job.batch_size % devices:
        raise _unsupported(
            f"batch_size {job.batch_size} cannot be shared by {devices} devices; it must be a "
            f"multiple of {devices}"
        )
    if _optimizer(job) not in OPTIMIZERS:
        raise _unsupported(
            f"'{job.optimizer}' is no optimizer of Ultralytics; it has {', '.join(OPTIMIZERS)}"
        )
    if not 0 < job.learning_rate <= LARGEST_LEARNING_RATE:
        raise _unsupported(
            f"learning_rate is {job.learning_rate}; it must be above 0, at most "
            f"{LARGEST_LEARNING_RATE:g}"
        )
    if image_size(job) % IMAGE_SIZE_STEP or image_size(job) < IMAGE_SIZE_STEP:
        raise _unsupported(
            f"image_size is {image_size(job)}; it must be a multiple of {IMAGE_SIZE_STEP}"
        )


def read_content(job: TrainingJob, options: UltralyticsHyperparameters) -> Content:
    """Read a job's data set, or say what is wrong with it."""
    try:
        content = read_for(job)
    except DatasetError as error:
        raise invalid_data(error) from error
    if content.multi_label:
        raise _unsupported(
            "Ultralytics trains no multi-label classification, and the data set's images have "
            "several classes each; timm does"
        )
    _check_together(job, options, content)
    return content


def invalid_data(error: DatasetError) -> TrainingError:
    hint = "Look at the problems on the data set's page, mend them and check it again."
    return TrainingError(ErrorKind.DATASET_INVALID, str(error), hint=hint)


def default_image_size(task_type: TaskType) -> int:
    return 224 if task_type == TaskType.IMAGE_CLASSIFICATION else 640


def image_size(job: TrainingJob) -> int:
    return default_image_size(job.task_type) if job.image_size is None else job.image_size


def read_resume(job: TrainingJob) -> dict[str, Any] | None:
    """Return the checkpoint that a job goes on from, or None where it starts anew."""
    path = job.checkpoints_dir / "last.pt"
    return read_state(path) if job.resume and path.is_file() else None


def library_arguments(
    job: TrainingJob,
    options: UltralyticsHyperparameters,
    *,
    batch_size: int,
    precision: bool | str,
    folder: Path,
    resuming: bool,
) -> dict[str, Any]:
    """Return Ultralytics' arguments for a job."""
    optimizer = _optimizer(job)
    bias_rate = options.warmup_bias_lr
    if bias_rate is None:
        # Made for SGD: with the Adam family it throws biases off in the first steps.
        bias_rate = _LIBRARY_DEFAULT_BIAS_RATE if optimizer in _MOMENTUM_OPTIMIZERS else 0.0
    return {
        **options.model_dump(exclude=_OURS),
        "task": LIBRARY_TASKS[job.task_type],
        "mode": "train",
        "model": f"{job.model_name}.yaml",
        "data": str(folder / DATA_YAML),
        "save_dir": str(folder),
        "exist_ok": True,
        "epochs": job.epochs,
        "batch": batch_size,
        "imgsz": image_size(job),
        "optimizer": optimizer,
        "lr0": job.learning_rate,
        "warmup_bias_lr": bias_rate,
        "nbs": options.nbs or batch_size,
        "seed": job.seed,
        "device": library_device(job.compute_device),
        "amp": precision,
        "auto_augment": None if options.auto_augment == "none" else options.auto_augment,
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


def decide_precision(wanted: str, device: str, *, rtdetr: bool) -> tuple[str, str]:
    """Return 'fp32', 'bf16' or 'fp16', and why that one."""
    on_gpu = device.startswith("cuda")
    refuse(fp16_without_gpu(wanted, on_cpu=not on_gpu))
    if wanted != "auto":
        return wanted, "the job asks for it"
    if rtdetr:
        return "fp32", "half precision can break RT-DETR's matching"
    if computes_in_bf16(torch.device("cuda" if on_gpu else "cpu")):
        return "bf16", f"{device} computes in it"
    if on_gpu:
        return "fp16", "the GPU does not compute in bfloat16"
    return "fp32", f"{device} is not faster in bfloat16"


# Values of the library's argument 'amp'.
PRECISIONS: dict[str, bool | str] = {"bf16": "bf16", "fp16": True, "fp32": False}


def _optimizer(job: TrainingJob) -> str:
    return (job.optimizer or DEFAULT_OPTIMIZER).lower()


def _unsupported(message: str) -> TrainingError:
    hint = "Clone the job and change it."
    return TrainingError(ErrorKind.UNSUPPORTED, message, hint=hint)
