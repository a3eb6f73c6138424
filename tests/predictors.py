"""A model that needs no training: it knows the shapes of :mod:`tests.shapes` by their colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from adapters.prediction import FoundObject, Network, Prediction
from tests.shapes import CLASSES


class ByColour:
    """Knows the shapes by their colours, but takes every disc for a square."""

    multi_label = False

    def __init__(self, classes: tuple[str, ...] = CLASSES, *, semantic: bool = False) -> None:
        self.classes = classes
        self._semantic = semantic

    def predict(self, images: Sequence[Image.Image]) -> list[Prediction]:
        return [self._predict(np.asarray(image, int)) for image in images]

    def network(self) -> Network:
        raise NotImplementedError

    def _predict(self, pixels: Any) -> Prediction:
        scores = np.full(len(self.classes), 0.05, np.float32)
        ground = self.classes.index("background") if self._semantic else 0
        mask = np.full(pixels.shape[:2], ground, np.uint8)
        found = []
        for class_id, channel in enumerate((0, 1, 2)):
            rest = [c for c in range(3) if c != channel]
            area = (pixels[..., channel] > 180) & (pixels[..., rest].max(-1) < 170)
            if area.any():
                said = self.classes.index("square" if class_id == 2 else CLASSES[class_id])
                scores[said] = 0.9
                ys, xs = area.nonzero()
                height, width = area.shape
                sides = (width, height, width, height)
                box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) / sides
                found.append(FoundObject(said, 0.9, tuple(box), mask=area))
                mask[area] = said
        if self._semantic:
            return Prediction(mask=mask)
        return Prediction(scores=scores / scores.sum(), objects=tuple(found))
