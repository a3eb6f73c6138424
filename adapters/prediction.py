"""What a trained model says of images, in one form for every framework.

Evaluation, the page's *Try it*, and export rest on this form, so a framework that loads its
model as a :class:`Predictor` has all three. Only numpy and Pillow are needed to import it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Box = tuple[float, float, float, float]  # left, top, right, bottom; fractions of the image


@dataclass(frozen=True)
class FoundObject:
    """A thing that a model found in an image; places are fractions of the image, 0..1."""

    class_id: int
    score: float  # 0..1
    box: Box
    mask: NDArray[np.bool_] | None = None  # (height, width) of the image: instance segmentation
    keypoints: tuple[tuple[float, float, float], ...] = ()  # x, y, confidence
    corners: tuple[float, ...] = ()  # x1 y1 … x4 y4: oriented detection


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image; the task decides which field is filled."""

    scores: NDArray[np.float32] | None = None  # (classes,) 0..1: classification
    objects: tuple[FoundObject, ...] = ()  # by falling score
    mask: NDArray[np.uint8] | None = None  # (height, width) class ids: semantic segmentation


@dataclass(frozen=True)
class Network:
    """A model as a plain module, to be exported: one batch of images in, tensors out."""

    module: Any  # torch.nn.Module in evaluation mode, float32, on the CPU
    example: Any  # torch.Tensor (2, 3, height, width), float32: a batch it takes
    outputs: tuple[str, ...]  # names of what it returns, in order
    preprocessing: Mapping[str, Any] = field(default_factory=dict)  # size, mean, std, resizing
    dynamic_batch: bool = True  # whether a batch may have another size than the example's


class Predictor(Protocol):
    """A trained model, loaded."""

    classes: tuple[str, ...]
    multi_label: bool  # classification: each class for itself, not one of all

    def predict(self, images: Sequence[Image.Image]) -> list[Prediction]:
        """Return what the model says of each RGB image; any number, of any sizes."""

    def network(self) -> Network:
        """Return the module for export. Raises TrainingError(UNSUPPORTED) where there is none."""
