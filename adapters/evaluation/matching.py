"""Which found object is which true one, and what that makes of a class: COCO's rules.

One matching serves boxes, masks, oriented boxes and poses: each only brings its similarity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of similarity, for mAP50-95; the first is that of mAP50
MOST_FOUND = 100  # of a class in an image; what is less sure does not count
RECALLS = np.linspace(0.0, 1.0, 101)  # at which precision is read off for average precision

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Matches:
    """What became of the found objects of one class in one image, by falling score."""

    scores: Floats  # (found,)
    hits: Bools  # (thresholds, found): it is a true object that no surer one has taken
    ignored: Bools  # (thresholds, found): it lies on a crowd, and counts for nothing
    truths: int  # true objects, those to ignore left out


def match(scores: Sequence[float], similarity: Floats, *, ignore: Sequence[bool]) -> Matches:
    """Give each found object, the surest first, the most similar true one that is left.

    ``similarity`` is (found, true). True objects with ``ignore`` (crowds) are taken only where no
    other fits, by any number.
    """
    order = np.argsort(-np.asarray(scores, float), kind="stable")[:MOST_FOUND]
    similarity, crowd = similarity[order], np.asarray(ignore, bool)
    shape = (len(THRESHOLDS), len(order))
    hits, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    taken = np.zeros((len(THRESHOLDS), int((~crowd).sum())), bool)
    on_true, on_crowd = similarity[:, ~crowd], similarity[:, crowd]
    # As COCO has it, a similarity of exactly 1 reaches any threshold.
    lowest = np.minimum(THRESHOLDS, 1 - 1e-10)
    for i in range(len(order)):
        if on_true.shape[1] and on_true[i].max() >= lowest[0]:
            free = np.where(taken, -1.0, on_true[i])
            # The last of equal ones, as COCO has it.
            best = free.shape[1] - 1 - np.argmax(free[:, ::-1], axis=1)
            hits[:, i] = free[np.arange(len(free)), best] >= lowest
            taken[np.flatnonzero(hits[:, i]), best[hits[:, i]]] = True
        if on_crowd.shape[1]:
            ignored[:, i] = (on_crowd[i].max() >= lowest) & ~hits[:, i]
    return Matches(np.asarray(scores, float)[order], hits, ignored, truths=taken.shape[1])


@dataclass(frozen=True)
class Curve:
    """Precision of one class at the recalls of :data:`RECALLS`, for each threshold."""

    precision: Floats  # (thresholds, recalls)
    truths: int

    @property
    def average_precision(self) -> Floats:
        """Return it for each threshold."""
        return self.precision.mean(axis=1)


class ClassTally:
    """The matches of one class over all images."""

    def __init__(self) -> None:
        self._matches: list[Matches] = []
        self.truths = 0

    def add(self, matches: Matches) -> None:
        self.truths += matches.truths
        if len(matches.scores):
            self._matches.append(matches)

    def curve(self) -> Curve:
        """Return precision by recall; of a class that is in no image, zeros."""
        _, hits, ignored = self._sorted()
        precision = np.zeros((len(THRESHOLDS), len(RECALLS)))
        for row in range(len(THRESHOLDS)) if self.truths else ():
            counted = ~ignored[row]
            right = np.cumsum(hits[row] & counted)
            wrong = np.cumsum(~hits[row] & counted)
            recall = right / self.truths
            exact = right / np.maximum(right + wrong, 1e-12)
            falling = np.maximum.accumulate(exact[::-1])[::-1]
            place = np.searchsorted(recall, RECALLS, side="left")
            reached = place < len(falling)
            precision[row, reached] = falling[place[reached]]
        return Curve(precision, self.truths)

    def counts(self, scores: Floats) -> tuple[Floats, Floats]:
        """Return how many of those at least so sure are right, and wrong, at THRESHOLDS[0]."""
        falling, hits, ignored = self._sorted()
        right = np.concatenate([[0], np.cumsum(hits[0] & ~ignored[0])])
        wrong = np.concatenate([[0], np.cumsum(~hits[0] & ~ignored[0])])
        number = np.searchsorted(-falling, -np.asarray(scores), side="right")
        return right[number].astype(float), wrong[number].astype(float)

    def _sorted(self) -> tuple[Floats, Bools, Bools]:
        none = np.zeros((len(THRESHOLDS), 0), bool)
        scores = np.concatenate([np.zeros(0), *(m.scores for m in self._matches)])
        order = np.argsort(-scores, kind="stable")
        hits = np.concatenate([none, *(m.hits for m in self._matches)], axis=1)
        ignored = np.concatenate([none, *(m.ignored for m in self._matches)], axis=1)
        return scores[order], hits[:, order], ignored[:, order]
