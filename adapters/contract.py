"""What passes between a queue and an adapter: the job, the reporter, the result, the errors.

Light on purpose: the web application imports this module, so nothing here may import a
training library. An adapter is handed a :class:`TrainingJob` and a :class:`Reporter` and
returns a :class:`Result`; it never sees Celery, Redis or a database, and runs the same in a
notebook.

    AdapterError
    ├── ContractError            a job or an event that does not have the agreed form
    ├── UnknownFramework         no adapter of that name is installed
    └── TrainingError            an attempt that cannot go on; has a kind, a message and a hint
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from adapters.prediction import Predictor


class AdapterError(Exception):
    """Root of everything this package raises on purpose."""


class ContractError(AdapterError):
    """A job or an event does not have the agreed form."""


class UnknownFramework(AdapterError):
    """No adapter of that name is installed; the message lists those that are."""


class TaskType(StrEnum):
    IMAGE_CLASSIFICATION = "image_classification"
    OBJECT_DETECTION = "object_detection"
    INSTANCE_SEGMENTATION = "instance_segmentation"
    SEMANTIC_SEGMENTATION = "semantic_segmentation"
    POSE_ESTIMATION = "pose_estimation"
    ORIENTED_DETECTION = "oriented_detection"


# What a job's ``accuracy`` and ``best`` are taken from; all lie in 0..1, higher is better.
# Multi-label classification has no top-1: see accuracy_metric().
ACCURACY_METRIC: dict[TaskType, str] = {
    TaskType.IMAGE_CLASSIFICATION: "top1",
    TaskType.OBJECT_DETECTION: "map50",
    TaskType.INSTANCE_SEGMENTATION: "mask_map50",
    TaskType.SEMANTIC_SEGMENTATION: "mean_iou",
    TaskType.POSE_ESTIMATION: "pose_map50",
    TaskType.ORIENTED_DETECTION: "map50",
}


MULTI_LABEL_METRIC = "map"  # mean average precision over the classes


def accuracy_metric(task_type: TaskType, reported: Collection[str]) -> str | None:
    """Return which of an epoch's metrics is its accuracy, None where none is."""
    for name in (ACCURACY_METRIC[task_type], MULTI_LABEL_METRIC):
        if name in reported:
            return name
        if task_type != TaskType.IMAGE_CLASSIFICATION:
            break
    return None


class DatasetFormat(StrEnum):
    IMAGEFOLDER = "imagefolder"
    YOLO = "yolo"
    COCO = "coco"
    MASKS = "masks"  # folders of images and, beside them, of masks whose pixels are class ids


class DeviceChoice(StrEnum):
    """What a person may ask for; the worker turns it into a torch device."""

    AUTO = "auto"
    CPU = "cpu"
    GPU = "gpu"


class StopReason(StrEnum):
    """Why the child is asked to end before its last epoch."""

    AFTER_EPOCH = "after_epoch"  # a person's cancel, to be obeyed at the epoch's end
    NOW = "now"  # a person's cancel, to be obeyed at the next batch
    SHUTDOWN = "shutdown"  # the worker goes away; the job is handed back to its queue


class ErrorKind(StrEnum):
    """Classes of failure; a person reads the hint, the reaper reads the kind."""

    DATASET_INVALID = "dataset_invalid"
    WEIGHTS_MISSING = "weights_missing"
    CHECKPOINT_INVALID = "checkpoint_invalid"
    UNSUPPORTED = "unsupported"
    OUT_OF_MEMORY = "out_of_memory"
    NAN_LOSS = "nan_loss"
    DISK_FULL = "disk_full"
    DEVICE = "device"
    CHILD_DIED = "child_died"
    STALLED = "stalled"  # no step for too long
    TIME_LIMIT = "time_limit"
    WORKER_LOST = "worker_lost"
    STORAGE = "storage"  # the store did not answer for too long
    DATASET_COPY = "dataset_copy"  # the data set's copy in the store is missing or damaged
    FRAMEWORK = "framework"


class TrainingError(AdapterError):
    """An attempt cannot go on.

    ``message`` says what is wrong and of which thing, ``hint`` what a person can do about it.
    """

    def __init__(self, kind: ErrorKind, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.hint = hint

    def to_json(self) -> dict[str, str]:
        return {"kind": str(self.kind), "message": self.message, "hint": self.hint}


@dataclass(frozen=True)
class TrainingJob:
    """One attempt of a job, as it travels in the task message."""

    id: int
    attempt: int  # grows by one at each start of the job; old numbers are refused everywhere
    framework: str
    model_name: str
    task_type: TaskType
    dataset_path: Path  # absolute; the worker checks it against its own data roots
    dataset_format: DatasetFormat
    epochs: int
    batch_size: int  # 0: the largest that fits, found by trial before the first epoch
    learning_rate: float
    optimizer: str | None = None  # None: the adapter's default
    image_size: int | None = None  # side in pixels; None: the model's own
    pretrained: bool = False
    seed: int = 0
    device: DeviceChoice = DeviceChoice.AUTO
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False  # go on from checkpoints/last where there is one
    project_id: int | None = None
    initial_job_id: int | None = None  # begin with that job's best weights
    dataset_fingerprint: str | None = None  # of the content as it was checked; for the model card
    split_seed: int = 0  # of the rule that splits a data set that comes without a val split
    val_share: float = 0.2  # what that rule holds out of each class

    # Filled in by the worker just before training; never part of the message.
    output_dir: Path | None = None  # everything the attempt writes lies below it
    weights_dir: Path | None = None  # pretrained weights, see adapters.weights
    initial_dir: Path | None = None  # the output folder of the job 'initial_job_id'
    data_path: Path | None = None  # where the data set lies here, if not at 'dataset_path'
    compute_device: str = "cpu"  # a torch device: 'cpu', 'cuda:0'; several GPUs: 'cuda:0,1'

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Self:
        """Build a job from a task message.

        Raises ContractError naming the first field that is missing, unknown or of the wrong form.
        """
        known = {f.name: f for f in dataclasses.fields(cls) if f.name not in _PLACEMENT_FIELDS}
        for name in message:
            if name not in known:
                raise ContractError(f"job message has an unknown field '{name}'")
        for name, f in known.items():
            required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
            if required and name not in message:
                raise ContractError(f"job message lacks the field '{name}'")
        values = dict(message)
        for name, convert in _CONVERTERS.items():
            if name in values:
                try:
                    values[name] = convert(values[name])
                except (TypeError, ValueError) as error:
                    raise ContractError(f"job message field '{name}': {error}") from error
        return cls(**values)

    def to_message(self) -> dict[str, Any]:
        """Return the JSON form that :meth:`from_message` reads."""
        message = {}
        for f in dataclasses.fields(self):
            if f.name in _PLACEMENT_FIELDS:
                continue
            value = getattr(self, f.name)
            if isinstance(value, Path | StrEnum):
                value = str(value)
            elif isinstance(value, Mapping):
                value = dict(value)
            message[f.name] = value
        return message

    def placed(
        self,
        *,
        output_dir: Path,
        weights_dir: Path,
        compute_device: str,
        initial_dir: Path | None = None,
    ) -> Self:
        """Return the job with the paths and the device of the worker that took it."""
        return dataclasses.replace(
            self,
            output_dir=output_dir,
            weights_dir=weights_dir,
            initial_dir=initial_dir,
            compute_device=compute_device,
        )

    @property
    def checkpoints_dir(self) -> Path:
        if self.output_dir is None:
            raise ContractError(f"job {self.id} has no output_dir: call placed() first")
        return self.output_dir / "checkpoints"


_PLACEMENT_FIELDS = frozenset(
    {"output_dir", "weights_dir", "initial_dir", "data_path", "compute_device"}
)


def _optional_int(value: Any) -> int | None:
    return None if value is None else int(value)


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not a finite number")
    return number


_CONVERTERS: dict[str, Any] = {
    "id": int,
    "attempt": int,
    "task_type": TaskType,
    "dataset_path": Path,
    "dataset_format": DatasetFormat,
    "epochs": int,
    "batch_size": int,
    "learning_rate": _finite,
    "seed": int,
    "initial_job_id": _optional_int,
    "split_seed": int,
    "val_share": _finite,
    "device": DeviceChoice,
    "hyperparameters": dict,
}


@dataclass(frozen=True)
class Best:
    """The best epoch so far and the metric that says so."""

    epoch: int
    metric: str
    value: float

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Result:
    """How an attempt ended, when it ended by itself or on request."""

    epochs_completed: int
    stopped: StopReason | None = None  # None: all epochs were trained
    accuracy: float | None = None  # the metric of ``best``, 0..1; zero is a value
    loss: float | None = None  # validation loss of the last epoch
    best: Best | None = None
    best_model_path: str | None = None
    last_checkpoint_path: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON takes it: a number that is none, as a loss may be, is left out."""
        fields = dataclasses.asdict(self)
        if self.best is not None and not math.isfinite(self.best.value):
            fields["best"] = None
        for name in ("accuracy", "loss"):
            if fields[name] is not None and not math.isfinite(fields[name]):
                fields[name] = None
        return fields


class Reporter(Protocol):
    """The adapter's only way to the outside. Cheap: no call blocks on a network."""

    def progress(
        self,
        *,
        epoch: int,
        step: int,
        steps: int,
        images_per_second: float | None = None,
        phase: str = "train",
    ) -> None:
        """Tell where training is: 1-based epoch, steps done of the epoch's steps.

        May be called at every batch; the reporter thins it to a few events a second and adds
        percent and time left.
        ``phase`` is 'train', 'val', or 'draw' around pictures (step 0 of 1, then 1 of 1).
        """

    def metrics(self, *, epoch: int, values: Mapping[str, float], step: int | None = None) -> None:
        """Tell an epoch's metrics, once an epoch and before its checkpoint is written.

        An attempt that goes on from that checkpoint does not tell them again. Returns when they
        are on disk. Non-finite values are dropped with a log line.
        """

    def decided(self, name: str, value: float | str, *, why: str) -> None:
        """Tell what the adapter chose that the job left open, or had to change: 'batch_size'."""

    def artifact(self, path: Path, *, kind: str) -> None:
        """Tell that a file below the output folder is complete: a checkpoint, a plot, an export."""

    def log(self, line: str) -> None:
        """Add a line to the job's log."""

    def should_stop(self) -> StopReason | None:
        """Return why to stop, or None. Read it at every batch; AFTER_EPOCH waits for the epoch."""


class Adapter(Protocol):
    """A bridge to one framework."""

    framework: str

    def train(self, job: TrainingJob, reporter: Reporter) -> Result:
        """Train one attempt.

        Raises TrainingError where the attempt cannot go on. When asked to stop, writes a
        checkpoint first and returns a result with ``stopped`` set.
        """

    def load(self, job: TrainingJob) -> Predictor:
        """Load the best model that a job has left in its output folder, for use.

        What follows training rests on it: evaluation, prediction, export. Raises
        TrainingError(CHECKPOINT_INVALID) where the job has left none that can be read.
        """
