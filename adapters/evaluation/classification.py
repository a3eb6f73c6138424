"""Evaluation of classifiers, of one class an image or of any number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adapters.data.content import Content, Sample
from adapters.evaluation.pictures import thumbnail
from adapters.evaluation.report import (
    Summary,
    confusion,
    curve,
    mean,
    most_confused,
    rounded,
    shown_curves,
)
from adapters.evaluation.verdict import Verdict, missing
from adapters.prediction import Prediction

Floats = NDArray[np.float64]

MULTI_LABEL_SCORE = 0.5  # from which on an image is said to have a class
_BINS = 10
_TINY = 1e-12


class ClassificationEvaluation:
    """Keeps the scores of every image: a few kilobytes each."""

    def __init__(self, content: Content, *, multi_label: bool) -> None:
        self._content = content
        self._multi_label = multi_label
        self._scores: list[NDArray[np.float32]] = []
        self._truths: list[tuple[int, ...]] = []

    def add(self, sample: Sample, image: Image.Image, prediction: Prediction) -> Verdict:
        """Take note of an image; its loss says how wrong the model is."""
        if prediction.scores is None:
            raise missing("scores")
        scores = np.asarray(prediction.scores, np.float32)
        self._scores.append(scores)
        self._truths.append(sample.classes)
        names = self._content.classes
        if self._multi_label:
            said = np.flatnonzero(scores >= MULTI_LABEL_SCORE)
            wrong = set(said.tolist()) != set(sample.classes)
            loss, score = _binary_loss(scores, sample.classes), None
        else:
            said = np.array([scores.argmax()])
            wrong = int(said[0]) not in sample.classes
            loss = -float(np.log(max(scores[list(sample.classes)].max(initial=0), _TINY)))
            score = float(scores.max())
        details = {
            "truth": [names[i] for i in sample.classes],
            "predicted": [names[i] for i in said],
            "score": rounded(score),
            "loss": rounded(loss),
        }
        return Verdict(
            badness=loss if wrong else 0.0, details=details, draw=lambda: thumbnail(image)
        )

    def summary(self) -> Summary:
        scores = np.array(self._scores, float).reshape(len(self._scores), -1)
        return self._multi(scores) if self._multi_label else self._single(scores)

    def _single(self, scores: Floats) -> Summary:
        names = self._content.classes
        truth = np.array([classes[0] for classes in self._truths], int)
        said = scores.argmax(1)
        matrix = np.zeros((len(names), len(names)), int)
        np.add.at(matrix, (truth, said), 1)
        is_class = truth[:, None] == np.arange(len(names))
        rows = _table(names, is_class, said[:, None] == np.arange(len(names)), scores)
        top5 = np.argsort(-scores, axis=1, kind="stable")[:, :5]
        likely = scores[np.arange(len(truth)), truth]
        # Over the classes that are in the split or that the model has named.
        met = [row for i, row in enumerate(rows) if matrix[i].any() or matrix[:, i].any()]
        return Summary(
            metrics={
                "top1": float((said == truth).mean()),
                "top5": float((top5 == truth[:, None]).any(1).mean()),
                "f1": mean([row["f1"] for row in met]),
                "precision": mean([row["precision"] for row in met]),
                "recall": mean([row["recall"] for row in met]),
                "loss": float(-np.log(likely.clip(_TINY)).mean()),
            },
            columns=("precision", "recall", "f1", "ap"),
            classes=rows,
            confusion=confusion(matrix, rows=names, columns=names),
            most_confused=most_confused(matrix, rows=names, columns=names),
            curves=_curves(names, is_class, scores),
            calibration=_calibration(scores.max(1), said == truth),
        )

    def _multi(self, scores: Floats) -> Summary:
        names = self._content.classes
        is_class = np.zeros(scores.shape, bool)
        for row, classes in enumerate(self._truths):
            is_class[row, list(classes)] = True
        rows = _table(names, is_class, scores >= MULTI_LABEL_SCORE, scores)
        there = [row for row in rows if row["support"]]
        said = scores >= MULTI_LABEL_SCORE
        return Summary(
            metrics={
                "map": mean([row["ap"] for row in there]),
                "f1": mean([row["f1"] for row in rows]),
                "precision": mean([row["precision"] for row in rows]),
                "recall": mean([row["recall"] for row in there]),
                "all_right": float((said == is_class).all(1).mean()),
            },
            columns=("precision", "recall", "f1", "ap"),
            classes=rows,
            curves=_curves(names, is_class, scores),
            calibration=_calibration(scores.ravel(), is_class.ravel()),
            operating_point=MULTI_LABEL_SCORE,
        )


def average_precision(scores: Floats, is_class: NDArray[np.bool_]) -> float | None:
    """Return the area below the steps of the curve; None for a class that no image has."""
    if not is_class.any():
        return None
    recall, precision = _steps(scores, is_class)
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def _steps(scores: Floats, is_class: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return recall and precision at each score that occurs, the highest first."""
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(is_class[order])
    last_of_score = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    right = right[last_of_score]
    return right / is_class.sum(), right / (last_of_score + 1)


def _table(
    names: Sequence[str], is_class: NDArray[np.bool_], said: NDArray[np.bool_], scores: Floats
) -> list[dict[str, Any]]:
    hits, support, named = (is_class & said).sum(0), is_class.sum(0), said.sum(0)
    rows = []
    for i, name in enumerate(names):
        precision = hits[i] / named[i] if named[i] else 0.0
        recall = hits[i] / support[i] if support[i] else 0.0
        row = {
            "name": name,
            "support": int(support[i]),
            "precision": rounded(precision),
            "recall": rounded(recall),
            "f1": rounded(2 * hits[i] / max(named[i] + support[i], 1)),
            "ap": rounded(average_precision(scores[:, i], is_class[:, i])),
        }
        rows.append(row)
    return rows


def _curves(
    names: Sequence[str], is_class: NDArray[np.bool_], scores: Floats
) -> list[dict[str, Any]]:
    curves = []
    for i in shown_curves(is_class.sum(0).tolist()):
        recall, precision = _steps(scores[:, i], is_class[:, i])
        ap = average_precision(scores[:, i], is_class[:, i])
        curves.append(curve(names[i], recall=recall, precision=precision, ap=ap))
    return curves


def _calibration(confidence: Floats, right: NDArray[np.bool_]) -> dict[str, Any]:
    """Return how often what is said with a confidence is right (expected calibration error)."""
    place = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    bins, error = [], 0.0
    for number in range(_BINS):
        chosen = place == number
        count = int(chosen.sum())
        if count:
            said, seen = float(confidence[chosen].mean()), float(right[chosen].mean())
            error += count / len(right) * abs(said - seen)
            bins.append({"confidence": rounded(said), "accuracy": rounded(seen), "count": count})
    return {"error": rounded(error), "bins": bins}


def _binary_loss(scores: NDArray[np.float32], classes: Sequence[int]) -> float:
    wanted = np.zeros(len(scores), bool)
    wanted[list(classes)] = True
    return float(-np.log(np.where(wanted, scores, 1 - scores).clip(_TINY)).mean())
