"""What an evaluation says of one image, and what each task's evaluation can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from adapters.contract import ErrorKind, TrainingError
from adapters.data.content import Sample
from adapters.evaluation.report import Summary
from adapters.prediction import Prediction


@dataclass(frozen=True)
class Verdict:
    """How wrong the model is of an image: 0 where it is right, and the more the worse."""

    badness: float
    details: Mapping[str, Any]
    draw: Callable[[], Image.Image]  # the picture for people, made only where it is kept


class Evaluation(Protocol):
    """Gathers what a model says of images, one after the other."""

    def add(self, sample: Sample, image: Image.Image, prediction: Prediction) -> Verdict:
        """Take note of an image. Raises DatasetError where its truth cannot be read."""

    def summary(self) -> Summary:
        """Return what all images come to; there was at least one."""


def missing(field: str) -> TrainingError:
    """Return the error of a prediction that lacks what its task fills."""
    return TrainingError(
        ErrorKind.FRAMEWORK,
        f"the adapter's prediction has no {field}, which the job's task needs",
        hint="This is a fault of the adapter.",
    )
