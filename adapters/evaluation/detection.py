"""Evaluation of what finds objects: boxes, masks, oriented boxes, poses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adapters.contract import TaskType
from adapters.data.content import Content, Object, Sample
from adapters.evaluation import similarity
from adapters.evaluation.matching import RECALLS, ClassTally, match
from adapters.evaluation.pictures import side_by_side
from adapters.evaluation.report import (
    Summary,
    confusion,
    curve,
    mean,
    most_confused,
    rounded,
    shown_curves,
)
from adapters.evaluation.similarity import Similarity
from adapters.evaluation.verdict import Verdict
from adapters.prediction import FoundObject, Prediction

BACKGROUND = "background"
SHOWN_SCORE = 0.25  # from which on a found object is in the confusion matrix and in pictures
SHOWN_SIMILARITY = 0.5
_SCORES = np.linspace(0, 1, 101)

# The measures of a task by the prefix of their metrics; the first is the one that tables show.
MEASURES: dict[TaskType, dict[str, Similarity]] = {
    TaskType.OBJECT_DETECTION: {"": similarity.boxes},
    TaskType.INSTANCE_SEGMENTATION: {"mask_": similarity.masks, "": similarity.boxes},
    TaskType.POSE_ESTIMATION: {"pose_": similarity.poses, "": similarity.boxes},
    TaskType.ORIENTED_DETECTION: {"": similarity.oriented},
}


class DetectionEvaluation:
    """Keeps scores and matches of every found object, never its mask."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._measures = MEASURES[content.task_type]
        self._tallies = {
            prefix: [ClassTally() for _ in content.classes] for prefix in self._measures
        }
        classes = len(content.classes) + 1
        self._matrix = np.zeros((classes, classes), int)

    def add(self, sample: Sample, image: Image.Image, prediction: Prediction) -> Verdict:
        """Match an image's objects; those missed and falsely found say how wrong the model is."""
        truths = self._content.objects(sample)
        found = prediction.objects
        for number, (prefix, measure) in enumerate(self._measures.items()):
            alike = measure(found, truths, image.size)
            self._tally(self._tallies[prefix], found, truths, alike, poses=prefix == "pose_")
            if number == 0:
                missed, false, taken_for = self._confuse(found, truths, alike)
        details = {"missed": missed, "false": false, "mistaken": taken_for}
        shown = [one for one in found if one.score >= SHOWN_SCORE]
        return Verdict(
            badness=missed + false + 2 * taken_for,
            details=details,
            draw=lambda: side_by_side(
                image, truths=truths, found=shown, names=self._content.classes
            ),
        )

    def summary(self) -> Summary:
        names = self._content.classes
        metrics: dict[str, float] = {}
        for prefix, tallies in self._tallies.items():
            there = [tally.curve().average_precision for tally in tallies if tally.truths]
            metrics[f"{prefix}map50"] = mean([float(ap[0]) for ap in there])
            metrics[f"{prefix}map50_95"] = mean([float(ap.mean()) for ap in there])
        tallies = next(iter(self._tallies.values()))
        place, precision, recall, f1 = operating_point(tallies)
        curves = [tally.curve() for tally in tallies]
        rows: list[dict[str, Any]] = []
        for i, name in enumerate(names):
            ap = curves[i].average_precision if curves[i].truths else np.full(10, np.nan)
            rows.append(
                {
                    "name": name,
                    "support": tallies[i].truths,
                    "precision": rounded(precision[i]),
                    "recall": rounded(recall[i]),
                    "f1": rounded(f1[i]),
                    "ap50": rounded(ap[0]),
                    "ap50_95": rounded(ap.mean()),
                }
            )
        met = [row for row in rows if row["support"]]
        metrics |= {
            name: mean([row[name] for row in met]) for name in ("precision", "recall", "f1")
        }
        with_background = (*names, BACKGROUND)
        both = {"rows": with_background, "columns": with_background}
        return Summary(
            metrics=metrics,
            columns=("precision", "recall", "f1", "ap50", "ap50_95"),
            classes=rows,
            confusion=confusion(self._matrix, **both),
            most_confused=most_confused(self._matrix, **both),
            curves=[
                curve(
                    names[i], recall=RECALLS, precision=curves[i].precision[0], ap=rows[i]["ap50"]
                )
                for i in shown_curves([tally.truths for tally in tallies])
            ],
            operating_point=place,
            notes=[f"The confusion matrix counts what was found with a score of {SHOWN_SCORE}."],
        )

    def _tally(
        self,
        tallies: list[ClassTally],
        found: Sequence[FoundObject],
        truths: Sequence[Object],
        alike: NDArray[np.float64],
        *,
        poses: bool,
    ) -> None:
        found_ids = np.array([one.class_id for one in found], int)
        true_ids = np.array([true.class_id for true in truths], int)
        for class_id in {*found_ids.tolist(), *true_ids.tolist()}:
            rows, columns = found_ids == class_id, true_ids == class_id
            chosen = [true for true in truths if true.class_id == class_id]
            matches = match(
                [one.score for one in found if one.class_id == class_id],
                alike[np.ix_(rows, columns)],
                ignore=[true.crowd or (poses and not _has_points(true)) for true in chosen],
            )
            tallies[class_id].add(matches)

    def _confuse(
        self, found: Sequence[FoundObject], truths: Sequence[Object], alike: NDArray[np.float64]
    ) -> tuple[int, int, int]:
        """Enter an image into the matrix; return how many were missed, false and mistaken."""
        sure = [i for i, one in enumerate(found) if one.score >= SHOWN_SCORE]
        left_found = {i: found[i] for i in sure}
        left_true = {i: true for i, true in enumerate(truths) if not true.crowd}
        mistaken = 0
        pairs = [(i, j) for i in sure for j in left_true if alike[i, j] >= SHOWN_SIMILARITY]
        # Of what lies on a true object the one of its class has it, then the most similar.
        pairs.sort(key=lambda p: (found[p[0]].class_id != truths[p[1]].class_id, -alike[p]))
        for i, j in pairs:
            if i in left_found and j in left_true:
                truth, said = left_true.pop(j).class_id, left_found.pop(i).class_id
                self._matrix[truth, said] += 1
                mistaken += truth != said
        crowds = [j for j, true in enumerate(truths) if true.crowd]
        for i in list(left_found):
            if crowds and alike[i, crowds].max() >= SHOWN_SIMILARITY:
                del left_found[i]
        for true in left_true.values():
            self._matrix[true.class_id, -1] += 1
        for one in left_found.values():
            self._matrix[-1, one.class_id] += 1
        return len(left_true), len(left_found), mistaken


def operating_point(
    tallies: Sequence[ClassTally],
) -> tuple[float, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the score with the highest mean F1, and precision, recall and F1 a class there."""
    counts = [tally.counts(_SCORES) for tally in tallies]
    right, wrong = (np.array(part).reshape(len(tallies), -1) for part in zip(*counts, strict=True))
    truths = np.array([tally.truths for tally in tallies], float)[:, None]
    precision = right / np.maximum(right + wrong, 1)
    recall = right / np.maximum(truths, 1)
    f1 = 2 * right / np.maximum(right + wrong + truths, 1)
    there = truths[:, 0] > 0
    place = 0
    if there.any():
        overall = f1[there].mean(0)
        best = np.flatnonzero(overall == overall.max())
        place = int(best[len(best) // 2])  # the middle of a plateau: the farthest from a change
    return float(_SCORES[place]), precision[:, place], recall[:, place], f1[:, place]


def _has_points(true: Object) -> bool:
    return any(visible for *_, visible in true.keypoints)
