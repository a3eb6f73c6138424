"""What fits its own range and yet not the rest of a job, or its data.

A framework declares it once, as a function of its schema that yields :class:`Misfit`. The web
application asks it when a job is described, with what is known then (:class:`JobFacts`); the
worker asks it again, with the data as it was read. So both say the same words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from adapters.contract import ErrorKind, TaskType, TrainingError


@dataclass(frozen=True)
class JobFacts:
    """A job beside its hyperparameters, and its data; None is what is not known yet."""

    task_type: TaskType
    model_name: str
    epochs: int
    batch_size: int | None  # of all devices together; None: to be found by trial
    image_size: int | None  # side in pixels; None: the model's own
    on_cpu: bool  # no GPU will be had; False: there may be one
    multi_label: bool  # classification: an image may have any number of classes
    classes: tuple[str, ...] | None  # in the order of their ids, as the task has them
    train_images: int | None
    devices: int = 1  # that share a batch


@dataclass(frozen=True)
class Misfit:
    """One thing that cannot be trained as it was asked for."""

    field: str  # of the job: 'batch_size', or 'hyperparameters.mixup'
    message: str  # what is wrong
    hint: str  # what would be right

    def error(self) -> TrainingError:
        return TrainingError(ErrorKind.UNSUPPORTED, self.message, hint=self.hint)


def refuse(misfits: Iterable[Misfit]) -> None:
    """Raise TrainingError(UNSUPPORTED) with the first, if there is one."""
    for misfit in misfits:
        raise misfit.error()


def wrong_class_weights(
    weights: str | Sequence[float], classes: Sequence[str] | None
) -> Iterator[Misfit]:
    """Yield what is wrong with a list of weights that is not as long as that of the classes."""
    if isinstance(weights, str) or classes is None or len(weights) == len(classes):
        return
    listed = ", ".join(classes[:20]) + (", …" if len(classes) > 20 else "")
    numbers = "1 number" if len(weights) == 1 else f"{len(weights)} numbers"
    yield Misfit(
        "hyperparameters.class_weights",
        f"class_weights has {numbers}, and the data set {len(classes)} classes",
        f"Give a number for each of {listed}.",
    )


def fp16_without_gpu(precision: str, *, on_cpu: bool) -> Iterator[Misfit]:
    """Yield that float16 was asked of a processor."""
    if precision == "fp16" and on_cpu:
        yield Misfit(
            "hyperparameters.precision",
            "precision fp16 needs a GPU",
            "Take 'auto': it picks what the device is fast in.",
        )
