"""The numbers of an evaluation agree with pycocotools and torchmetrics."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchmetrics.classification import (
    MulticlassAveragePrecision,
    MulticlassCalibrationError,
    MulticlassF1Score,
    MultilabelAveragePrecision,
    MultilabelF1Score,
)

from adapters.contract import DatasetFormat, TaskType
from adapters.data.content import Annotation, Content, Object, Sample
from adapters.data.drawing import object_mask
from adapters.evaluation import similarity
from adapters.evaluation.classification import ClassificationEvaluation
from adapters.evaluation.detection import DetectionEvaluation
from adapters.evaluation.semantic import SemanticEvaluation
from adapters.prediction import FoundObject, Prediction

CLASSES = ("square", "disc", "never seen")
SIZE = (96, 64)
POINTS = 5


@dataclass(frozen=True)
class Known(Content):
    """A data set that lies in memory, its samples' keys the places in its lists."""

    things: Sequence[Sequence[Object]] = ()
    pixels: Sequence[Any] = ()

    def objects(self, sample: Sample) -> list[Object]:
        assert isinstance(sample.key, int)
        return list(self.things[sample.key])

    def mask(self, sample: Sample) -> Any:
        assert isinstance(sample.key, int)
        return self.pixels[sample.key]

    def check(self, sample: Sample, *, size: tuple[int, int] | None) -> Annotation:
        raise NotImplementedError


def known(task_type: TaskType, **fields: Any) -> Known:
    return Known(
        path=Path(),
        format=DatasetFormat.YOLO,
        task_type=task_type,
        task_types=(task_type,),
        classes=CLASSES,
        splits={},
        **fields,
    )


def sample(key: int, *classes: int) -> Sample:
    return Sample(Path(f"{key}.png"), classes=classes, key=key)


def random_box(rng: np.random.Generator) -> np.ndarray[Any, Any]:
    left, top = rng.uniform(0, 0.6, 2)
    width, height = rng.uniform(0.1, 0.4, 2)
    return np.array([left, top, left + width, top + height])


def scenes(
    seed: int, *, crowds: bool = False
) -> tuple[list[list[Object]], list[list[FoundObject]]]:
    """Return true objects and a model's guesses: some near, some doubled, some made up."""
    rng = np.random.default_rng(seed)
    truths, guesses = [], []
    for _ in range(25):
        true, found = [], []
        for _ in range(rng.integers(0, 6)):
            class_id, box = int(rng.integers(2)), random_box(rng)
            crowd = crowds and rng.random() < 0.2
            points = [(*point, int(rng.integers(0, 3))) for point in between(rng, box)]
            true.append(
                Object(
                    class_id,
                    tuple(box),
                    polygons=(ellipse(box),),
                    keypoints=tuple(points),
                    crowd=crowd,
                )
            )
            for _ in range(rng.integers(0, 3)):
                moved = box + rng.normal(0, 0.03, 4)
                guessed = class_id if rng.random() < 0.9 else 1 - class_id
                near = [
                    (x + rng.normal(0, 0.02), y + rng.normal(0, 0.02), 0.9) for x, y, _ in points
                ]
                found.append(guess(rng, guessed, moved, near))
        for _ in range(rng.integers(0, 3)):
            box = random_box(rng)
            near = [(x, y, 0.5) for x, y in between(rng, box)]
            found.append(guess(rng, int(rng.integers(2)), box, near))
        truths.append(true)
        guesses.append(sorted(found, key=lambda one: -one.score))
    return truths, guesses


def between(rng: np.random.Generator, box: Any) -> list[tuple[float, float]]:
    xs, ys = rng.uniform(box[0], box[2], POINTS), rng.uniform(box[1], box[3], POINTS)
    return list(zip(xs.tolist(), ys.tolist(), strict=True))


def ellipse(box: Any) -> tuple[float, ...]:
    centre, radius = (box[:2] + box[2:]) / 2, abs(box[2:] - box[:2]) / 2
    angles = np.linspace(0, 2 * math.pi, 20, endpoint=False)
    points = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return tuple(points.ravel())


def guess(rng: np.random.Generator, class_id: int, box: Any, points: Any) -> FoundObject:
    outline = Object(class_id, tuple(box), polygons=(ellipse(box),))
    # Scores in steps, so that some are equal.
    score = round(float(rng.uniform(0.05, 1)), 1)
    mask = object_mask(outline, size=SIZE)
    return FoundObject(class_id, score, tuple(box), mask=mask, keypoints=tuple(points))


def evaluated(task_type: TaskType, truths: Any, guesses: Any) -> dict[str, Any]:
    evaluation = DetectionEvaluation(known(task_type, things=truths))
    image = Image.new("RGB", SIZE)
    for number, found in enumerate(guesses):
        evaluation.add(sample(number), image, Prediction(objects=tuple(found)))
    return evaluation.summary().to_json()


def by_pycocotools(kind: str, truths: Any, guesses: Any) -> tuple[float, float]:
    """Return mAP50-95 and mAP50."""
    scale = np.array([*SIZE, *SIZE])
    annotations, results = [], []

    def xywh(box: Any) -> list[float]:
        left, top, right, bottom = np.array(box) * scale
        return [left, top, right - left, bottom - top]

    for image_id, (true, found) in enumerate(zip(truths, guesses, strict=True), start=1):
        for one in true:
            box = xywh(one.box)
            flat = [v for x, y, seen in one.keypoints for v in (x * SIZE[0], y * SIZE[1], seen)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": one.class_id,
                    "bbox": box,
                    "area": box[2] * box[3] * (0.53 if kind == "keypoints" else 1),
                    "iscrowd": int(one.crowd),
                    "segmentation": coco_mask.encode(
                        np.asfortranarray(object_mask(one, size=SIZE).astype(np.uint8))
                    ),
                    "keypoints": flat,
                    "num_keypoints": sum(seen > 0 for *_, seen in one.keypoints),
                }
            )
        for one in found:
            result = {"image_id": image_id, "category_id": one.class_id, "score": one.score}
            if kind == "bbox":
                result["bbox"] = xywh(one.box)
            elif kind == "segm":
                result["segmentation"] = coco_mask.encode(
                    np.asfortranarray(one.mask.astype(np.uint8))
                )
            else:
                result["keypoints"] = [
                    v for x, y, seen in one.keypoints for v in (x * SIZE[0], y * SIZE[1], seen)
                ]
            results.append(result)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [
                {"id": i + 1, "width": SIZE[0], "height": SIZE[1]} for i in range(len(truths))
            ],
            "annotations": annotations,
            "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES)],
        }
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(results), kind)
        if kind == "keypoints":
            run.params.kpt_oks_sigmas = np.full(POINTS, 1 / POINTS)
            run.params.maxDets = [100]
            run.params.areaRng = [[0, 1e10]]
            run.params.areaRngLbl = ["all"]
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"][..., 0, -1]  # all areas, most detections
    at_50 = precision[0]
    return float(precision[precision > -1].mean()), float(at_50[at_50 > -1].mean())


@pytest.mark.parametrize(
    ("task_type", "prefix", "kind", "crowds"),
    [
        (TaskType.OBJECT_DETECTION, "", "bbox", False),
        (TaskType.OBJECT_DETECTION, "", "bbox", True),
        (TaskType.INSTANCE_SEGMENTATION, "mask_", "segm", False),
        (TaskType.INSTANCE_SEGMENTATION, "mask_", "segm", True),
        (TaskType.POSE_ESTIMATION, "pose_", "keypoints", False),  # COCO's poses have no crowds
    ],
)
def test_map_agrees_with_pycocotools(
    task_type: TaskType, prefix: str, kind: str, crowds: bool
) -> None:
    truths, guesses = scenes(3, crowds=crowds)
    metrics = evaluated(task_type, truths, guesses)["metrics"]
    expected = by_pycocotools(kind, truths, guesses)
    assert 0.1 < expected[1] < 0.95
    assert metrics[f"{prefix}map50_95"] == pytest.approx(expected[0], abs=1e-3)
    assert metrics[f"{prefix}map50"] == pytest.approx(expected[1], abs=1e-3)


def test_a_model_that_finds_all_has_all_and_one_that_finds_nothing_has_nothing() -> None:
    truths, _ = scenes(1)
    perfect = [[FoundObject(t.class_id, 0.9, t.box) for t in true] for true in truths]
    told = evaluated(TaskType.OBJECT_DETECTION, truths, perfect)
    assert {told["metrics"][name] for name in ("map50", "map50_95", "precision", "recall")} == {1.0}
    nothing = evaluated(TaskType.OBJECT_DETECTION, truths, [[] for _ in truths])
    assert set(nothing["metrics"].values()) == {0.0}
    matrix = np.array(nothing["confusion"]["matrix"])
    assert matrix[:, -1].sum() == matrix.sum() == sum(map(len, truths))


def test_the_confusion_matrix_of_detection_has_a_background() -> None:
    box = (0.1, 0.1, 0.4, 0.4)
    truths = [[Object(0, box), Object(1, (0.6, 0.6, 0.9, 0.9))]]
    found = [FoundObject(1, 0.9, box), FoundObject(0, 0.8, (0.5, 0.0, 0.6, 0.1))]
    told = evaluated(TaskType.OBJECT_DETECTION, truths, [found])
    matrix = told["confusion"]["matrix"]
    assert told["confusion"]["truth"][-1] == "background"
    assert matrix[0][1] == 1, "the square is taken for a disc"
    assert matrix[1][3] == 1, "the disc is missed"
    assert matrix[3][0] == 1, "a square is found where there is none"
    assert np.sum(matrix) == 3


def single(
    truth: Any, scores: Any, *, multi_label: bool = False, classes: Any = None
) -> dict[str, Any]:
    content = known(TaskType.IMAGE_CLASSIFICATION)
    evaluation = ClassificationEvaluation(content, multi_label=multi_label)
    image = Image.new("RGB", SIZE)
    for number, row in enumerate(scores):
        label = classes[number] if classes is not None else (int(truth[number]),)
        evaluation.add(sample(number, *label), image, Prediction(scores=row))
    return evaluation.summary().to_json()


def test_classification_agrees_with_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 3, (200,), generator=generator)
    scores = (torch.randn(200, 3, generator=generator) + 1.5 * torch.eye(3)[truth]).softmax(1)
    told = single(truth, scores.numpy())
    f1 = MulticlassF1Score(3, average="macro")(scores, truth)
    ap = MulticlassAveragePrecision(3, average=None)(scores, truth)
    error = MulticlassCalibrationError(3, n_bins=10)(scores, truth)
    assert told["metrics"]["f1"] == pytest.approx(float(f1), abs=1e-5)
    assert told["metrics"]["top1"] == float((scores.argmax(1) == truth).double().mean())
    assert [row["ap"] for row in told["classes"]] == pytest.approx(ap.tolist(), abs=1e-5)
    assert told["calibration"]["error"] == pytest.approx(float(error), abs=1e-4)
    assert np.array(told["confusion"]["matrix"]).sum(1).tolist() == truth.bincount().tolist()


def test_multi_label_classification_agrees_with_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(1)
    truth = torch.randint(0, 2, (150, 3), generator=generator)
    scores = (torch.randn(150, 3, generator=generator) + 2 * truth - 1).sigmoid()
    classes = [tuple(row.nonzero().ravel().tolist()) for row in truth]
    told = single(None, scores.numpy(), multi_label=True, classes=classes)
    expected = MultilabelAveragePrecision(3, average="macro")(scores, truth)
    f1 = MultilabelF1Score(3, average="macro")(scores, truth)
    assert told["metrics"]["map"] == pytest.approx(float(expected), abs=1e-5)
    assert told["metrics"]["f1"] == pytest.approx(float(f1), abs=1e-5)
    assert "top1" not in told["metrics"]


def test_mean_iou_counts_pixels_and_leaves_out_the_ignored() -> None:
    truth = np.array([[0, 0, 1, 1], [0, 255, 1, 255]], np.uint8)
    said = np.array([[0, 1, 1, 1], [0, 1, 0, 0]], np.uint8)
    evaluation = SemanticEvaluation(known(TaskType.SEMANTIC_SEGMENTATION, pixels=[truth]))
    evaluation.add(sample(0), Image.new("RGB", (4, 2)), Prediction(mask=said))
    told = evaluation.summary().to_json()
    # Class 0: 2 right of 3 true and 1 false; class 1: the same; class 2 is nowhere.
    assert [row["iou"] for row in told["classes"]] == [0.5, 0.5, None]
    assert told["metrics"]["mean_iou"] == 0.5
    assert told["metrics"]["pixel_accuracy"] == pytest.approx(4 / 6, abs=1e-6)


places = st.floats(0.05, 0.95)
rectangles = st.tuples(
    places, places, st.floats(0.05, 0.4), st.floats(0.05, 0.4), st.floats(0, math.pi)
)


def turned(rectangle: tuple[float, float, float, float, float]) -> tuple[float, ...]:
    x, y, width, height, angle = rectangle
    ends = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [width / 2, height / 2]
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return tuple((ends @ turn + [x, y]).ravel())


def oriented_iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    found = FoundObject(0, 1.0, (0, 0, 1, 1), corners=a)
    true = Object(0, (0, 0, 1, 1), corners=b)
    return float(similarity.oriented([found], [true], (100, 100))[0, 0])


@given(a=rectangles, b=rectangles)
@settings(max_examples=60, deadline=None)
def test_the_overlap_of_oriented_boxes_is_a_fraction_the_same_both_ways(a: Any, b: Any) -> None:
    one, other = turned(a), turned(b)
    iou = oriented_iou(one, other)
    assert 0 <= iou <= 1 + 1e-9
    assert iou == pytest.approx(oriented_iou(other, one), abs=1e-6)
    assert oriented_iou(one, one) == pytest.approx(1)
    # Beginning at another corner, or going round the other way, it is the same box.
    assert iou == pytest.approx(oriented_iou(one[2:] + one[:2], other), abs=1e-6)
    backwards = tuple(np.array(other).reshape(4, 2)[::-1].ravel())
    assert iou == pytest.approx(oriented_iou(one, backwards), abs=1e-6)


@given(a=rectangles, b=rectangles)
@settings(max_examples=60, deadline=None)
def test_unturned_oriented_boxes_overlap_as_upright_ones(a: Any, b: Any) -> None:
    one, other = turned((*a[:4], 0.0)), turned((*b[:4], 0.0))
    upright = similarity.boxes(
        [FoundObject(0, 1.0, (*one[:2], *one[4:6]))],
        [Object(0, (*other[:2], *other[4:6]))],
        (100, 100),
    )
    assert oriented_iou(one, other) == pytest.approx(float(upright[0, 0]), abs=1e-6)


def test_two_squares_of_which_one_is_turned_overlap_in_an_octagon() -> None:
    one = turned((0.5, 0.5, 0.2, 0.2, 0.0))
    other = turned((0.5, 0.5, 0.2, 0.2, math.pi / 4))
    octagon = 2 * (math.sqrt(2) - 1)  # of the square's area
    assert oriented_iou(one, other) == pytest.approx(octagon / (2 - octagon))
