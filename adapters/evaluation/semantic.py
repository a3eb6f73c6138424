"""Evaluation of semantic segmentation: every pixel counts."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from adapters.data.content import IGNORED, Content, Sample
from adapters.evaluation.pictures import background_id, masks_side_by_side
from adapters.evaluation.report import Summary, confusion, mean, most_confused, rounded
from adapters.evaluation.verdict import Verdict, missing
from adapters.prediction import Prediction


class SemanticEvaluation:
    """Keeps one matrix of pixel counts."""

    def __init__(self, content: Content) -> None:
        self._content = content
        classes = len(content.classes)
        # One column more, for pixels of which the model says no class.
        self._matrix = np.zeros((classes, classes + 1), np.int64)

    def add(self, sample: Sample, image: Image.Image, prediction: Prediction) -> Verdict:
        """Count an image's pixels; the mean IoU of its classes says how wrong the model is."""
        if prediction.mask is None:
            raise missing("mask")
        truth = self._content.mask(sample)
        said = prediction.mask
        if said.shape != truth.shape:
            resized = Image.fromarray(said).resize(truth.shape[::-1], Image.Resampling.NEAREST)
            said = np.asarray(resized)
        counts = pixel_counts(truth, said, classes=len(self._content.classes))
        self._matrix += counts
        met = [iou for iou in class_ious(counts) if iou is not None]
        iou = mean(met) if met else 1.0  # nothing but ignored pixels: nothing is wrong
        return Verdict(
            badness=1 - iou,
            details={"mean_iou": rounded(iou)},
            draw=lambda: masks_side_by_side(
                image, truth=truth, said=said, clear=background_id(self._content.classes)
            ),
        )

    def summary(self) -> Summary:
        names = self._content.classes
        matrix = self._matrix[:, :-1]
        ious = class_ious(self._matrix)
        hits, support, named = np.diag(matrix), self._matrix.sum(1), matrix.sum(0)
        rows: list[dict[str, Any]] = [
            {
                "name": name,
                "support": int(support[i]),
                "precision": rounded(hits[i] / named[i]) if named[i] else None,
                "recall": rounded(hits[i] / support[i]) if support[i] else None,
                "f1": rounded(2 * hits[i] / (named[i] + support[i]))
                if named[i] + support[i]
                else None,
                "iou": rounded(ious[i]),
            }
            for i, name in enumerate(names)
        ]
        both = {"rows": names, "columns": names}
        return Summary(
            metrics={
                "mean_iou": mean(ious),
                "pixel_accuracy": float(hits.sum() / max(support.sum(), 1)),
                "f1": mean([row["f1"] for row in rows]),
            },
            columns=("precision", "recall", "f1", "iou"),
            classes=rows,
            confusion=confusion(matrix, **both),
            most_confused=most_confused(matrix, **both),
            notes=["Support and confusion matrix are counted in pixels."],
        )


def pixel_counts(truth: Any, said: Any, *, classes: int) -> Any:
    """Return how many pixels of each class (rows) were said to be of each (columns)."""
    counted = (truth != IGNORED) & (truth < classes)
    rows = truth[counted].astype(np.int64)
    columns = np.minimum(said[counted].astype(np.int64), classes)
    counts = np.bincount(rows * (classes + 1) + columns, minlength=classes * (classes + 1))
    return counts.reshape(classes, classes + 1)


def class_ious(matrix: Any) -> list[float | None]:
    """Return each class's intersection over union; None for one that is in neither."""
    hits = np.diag(matrix[:, :-1])
    union = matrix.sum(1) + matrix[:, :-1].sum(0) - hits
    return [float(h / u) if u else None for h, u in zip(hits, union, strict=True)]
