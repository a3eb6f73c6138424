"""The shape of ``evaluation.json``; docs/after-training.md says what each field means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

VERSION = 1
FILE = "evaluation/evaluation.json"
WRONG_FOLDER = "evaluation/wrong"

MOST_CLASSES_IN_MATRIX = 100
MOST_CURVES = 30
CURVE_POINTS = 101
_MOST_CONFUSED = 20


@dataclass(frozen=True)
class Summary:
    """What one split's evaluation comes to."""

    metrics: Mapping[str, float]  # by the names that all frameworks share
    columns: tuple[str, ...]  # of the table of classes, after name and support
    classes: Sequence[Mapping[str, Any]]  # name, support and a value or None for each column
    confusion: Mapping[str, Any] | None = None
    most_confused: Sequence[Mapping[str, Any]] = ()
    curves: Sequence[Mapping[str, Any]] = ()
    calibration: Mapping[str, Any] | None = None
    operating_point: float | None = None  # the score from which on a thing counts as found
    notes: Sequence[str] = field(default_factory=tuple)

    def to_json(self) -> dict[str, Any]:
        return {
            "metrics": {name: rounded(value) for name, value in self.metrics.items()},
            "operating_point": rounded(self.operating_point),
            "columns": list(self.columns),
            "classes": [dict(row) for row in self.classes],
            "confusion": self.confusion,
            "most_confused": list(self.most_confused),
            "curves": list(self.curves),
            "calibration": self.calibration,
            "notes": list(self.notes),
        }


def rounded(value: float | None) -> float | None:
    """Return a number short enough to be read; None where it is none."""
    if value is None or not np.isfinite(value):
        return None
    return round(float(value), 6)


def mean(values: Sequence[float | None]) -> float:
    """Return the mean of the values that are there; 0 where none is."""
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else 0.0


def confusion(matrix: Any, *, rows: Sequence[str], columns: Sequence[str]) -> dict[str, Any] | None:
    """Return a confusion matrix (truth, prediction), None where it has too many classes to show."""
    if len(rows) > MOST_CLASSES_IN_MATRIX + 1:
        return None
    counts = [[int(count) for count in row] for row in matrix]
    return {"truth": list(rows), "predicted": list(columns), "matrix": counts}


def most_confused(
    matrix: Any, *, rows: Sequence[str], columns: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the pairs that are taken for each other most often."""
    wrong = np.array(matrix)
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CONFUSED]
    return [
        {"truth": rows[r], "predicted": columns[c], "count": int(wrong[r, c])}
        for r, c in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[r, c] > 0
    ]


def curve(name: str, *, recall: Any, precision: Any, ap: float | None) -> dict[str, Any]:
    """Return a curve of precision by recall, thinned."""
    keep = np.unique(np.linspace(0, len(recall) - 1, CURVE_POINTS).round().astype(int))
    points = [[round(float(recall[i]), 4), round(float(precision[i]), 4)] for i in keep]
    if points and points[0][0] > 0:
        points.insert(0, [0.0, points[0][1]])  # of fewer there is none surer
    return {"name": name, "ap": rounded(ap), "points": points}


def shown_curves(supports: Sequence[int]) -> list[int]:
    """Return the classes whose curves are kept: those there is most of, in their own order."""
    there = [i for i in range(len(supports)) if supports[i]]
    return sorted(sorted(there, key=lambda i: -supports[i])[:MOST_CURVES])
