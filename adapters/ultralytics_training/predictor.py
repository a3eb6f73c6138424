"""A trained model for use: the library's own steps before and after it, without its sources.

Ultralytics' predictors take files, folders, URLs and cameras; here only images in memory reach
them. The architecture is built from the packaged description, the checkpoint gives weights, names
and the number of keypoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

import adapters.ultralytics_training.offline as offline
from adapters.contract import ErrorKind, TaskType, TrainingError, TrainingJob
from adapters.images import middle
from adapters.prediction import FoundObject, Network, Prediction
from adapters.ranks import devices_of
from adapters.ultralytics_training.exported import exported_network
from adapters.ultralytics_training.models import LIBRARY_TASKS, RTDETR, PackagedModel
from adapters.ultralytics_training.plan import check_job, image_size
from adapters.ultralytics_training.weights import load_checkpoint_file

# isort: split
from ultralytics.models.rtdetr.predict import RTDETRPredictor
from ultralytics.models.yolo.classify import ClassificationPredictor
from ultralytics.models.yolo.detect import DetectionPredictor
from ultralytics.models.yolo.obb import OBBPredictor
from ultralytics.models.yolo.pose import PosePredictor
from ultralytics.models.yolo.segment import SegmentationPredictor
from ultralytics.models.yolo.semantic import SemanticSegmentationPredictor
from ultralytics.nn.tasks import (
    ClassificationModel,
    DetectionModel,
    OBBModel,
    PoseModel,
    RTDETRDetectionModel,
    SegmentationModel,
    SemanticSegmentationModel,
)

_BATCH = 16  # images at once
# What counts as found: as in the library's validation, so that a precision-recall curve has its
# tail. Where each finding takes a mask of the image's size, or is slow to compare, a little more.
_LEAST_SCORE = 0.001
_LEAST_SCORE_OF_OUTLINES = 0.01
_MOST_MASKS = 100

_MODELS: dict[TaskType, Any] = {
    TaskType.OBJECT_DETECTION: DetectionModel,
    TaskType.INSTANCE_SEGMENTATION: SegmentationModel,
    TaskType.POSE_ESTIMATION: PoseModel,
    TaskType.ORIENTED_DETECTION: OBBModel,
    TaskType.SEMANTIC_SEGMENTATION: SemanticSegmentationModel,
    TaskType.IMAGE_CLASSIFICATION: ClassificationModel,
}
_PREDICTORS: dict[TaskType, Any] = {
    TaskType.OBJECT_DETECTION: DetectionPredictor,
    TaskType.INSTANCE_SEGMENTATION: SegmentationPredictor,
    TaskType.POSE_ESTIMATION: PosePredictor,
    TaskType.ORIENTED_DETECTION: OBBPredictor,
    TaskType.SEMANTIC_SEGMENTATION: SemanticSegmentationPredictor,
    TaskType.IMAGE_CLASSIFICATION: ClassificationPredictor,
}


def load_predictor(job: TrainingJob) -> UltralyticsPredictor:
    """Load the best model that a job has left.

    Raises TrainingError(CHECKPOINT_INVALID) where there is none that can be read.
    """
    path = job.checkpoints_dir / "best.pt"
    if not path.is_file():
        message = f"job {job.id} has left no best.pt"
        hint = "Train it for an epoch first."
        raise TrainingError(ErrorKind.CHECKPOINT_INVALID, message, hint=hint)
    packaged, options = check_job(job)
    model = _load_model(path, packaged)
    outlines = job.task_type in (TaskType.INSTANCE_SEGMENTATION, TaskType.ORIENTED_DETECTION)
    masks = job.task_type == TaskType.INSTANCE_SEGMENTATION
    return UltralyticsPredictor(
        model,
        packaged=packaged,
        arguments={
            "task": LIBRARY_TASKS[job.task_type],
            "mode": "predict",
            "imgsz": image_size(job),
            "device": devices_of(job.compute_device)[0],
            "conf": _LEAST_SCORE_OF_OUTLINES if outlines else _LEAST_SCORE,
            "iou": options.iou,
            "max_det": min(options.max_det, _MOST_MASKS) if masks else options.max_det,
            "retina_masks": True,  # masks of the image's own size
            "rect": False,
            "save": False,
            "verbose": False,
            "project": str(path.parent),  # nothing is written; a path that exists, not './runs'
            "exist_ok": True,
        },
    )


def _load_model(path: Path, packaged: PackagedModel) -> Any:
    """Build a packaged architecture with a checkpoint's weights and names, in float32."""
    stored = load_checkpoint_file(path).get("model")
    names = getattr(stored, "names", None)
    if not isinstance(stored, torch.nn.Module) or not isinstance(names, dict) or not names:
        raise _unfit(path, "holds no model with names")
    kind = RTDETRDetectionModel if packaged.head == RTDETR else _MODELS[packaged.task_type]
    pose = packaged.task_type == TaskType.POSE_ESTIMATION
    extra = {"data_kpt_shape": _shape(stored, path)} if pose else {}
    with offline.library_log(lambda line: None):
        model = kind(packaged.config(), nc=len(names), ch=3, verbose=False, **extra)
        model.names = {i: str(names[i]) for i in range(len(names))}
        model.load(stored.float(), verbose=False)
    own, given = model.state_dict(), stored.state_dict()
    if own.keys() != given.keys() or any(own[key].shape != given[key].shape for key in own):
        raise _unfit(path, f"is not of the model '{packaged.name}'")
    model.load_state_dict(given)
    model.task = LIBRARY_TASKS[packaged.task_type]
    return model.eval()


def _shape(stored: Any, path: Path) -> tuple[int, int]:
    """Return the number of keypoints and what each has, as checked numbers."""
    try:
        number, dimensions = (int(value) for value in stored.kpt_shape)
    except (AttributeError, TypeError, ValueError) as error:
        raise _unfit(path, "does not tell its keypoints") from error
    if not (0 < number < 1000 and dimensions in (2, 3)):
        raise _unfit(path, f"tells of {number} keypoints with {dimensions} numbers each")
    return number, dimensions


def _unfit(path: Path, reason: str) -> TrainingError:
    hint = "Train the job again, or put back the best.pt that Modelyard wrote."
    return TrainingError(ErrorKind.CHECKPOINT_INVALID, f"'{path.name}' {reason}", hint=hint)


class UltralyticsPredictor:
    """A trained YOLO or RT-DETR model; see :class:`adapters.prediction.Predictor`."""

    multi_label = False

    def __init__(self, model: Any, *, packaged: PackagedModel, arguments: dict[str, Any]) -> None:
        self._model = model
        self._packaged = packaged
        self.classes = tuple(model.names[i] for i in range(len(model.names)))
        kind = _PREDICTORS[packaged.task_type]
        if packaged.head == RTDETR:
            kind = RTDETRPredictor
        with offline.library_log(lambda line: None):
            offline.keep_threads()
            self._steps = kind(overrides=arguments)
            self._steps.setup_model(model, verbose=False)
            side = int(self._steps.args.imgsz)
            self._steps.imgsz = [side, side]
            self._steps.source_type = SimpleNamespace(tensor=False)
            if packaged.task_type == TaskType.IMAGE_CLASSIFICATION:
                _set_transforms(self._steps)
        self._side = side

    def predict(self, images: Sequence[Image.Image]) -> list[Prediction]:
        """Return what the model says of each RGB image; any number, of any sizes."""
        found: list[Prediction] = []
        for start in range(0, len(images), _BATCH):
            found.extend(self._predict(images[start : start + _BATCH]))
        return found

    @torch.inference_mode()
    def _predict(self, images: Sequence[Image.Image]) -> Iterator[Prediction]:
        # The library's images are blue first, as OpenCV has them.
        arrays = [np.asarray(image.convert("RGB"))[..., ::-1].copy() for image in images]
        steps = self._steps
        steps.batch = [""] * len(arrays), arrays, [""] * len(arrays)
        tensor = steps.preprocess(arrays)
        results = steps.postprocess(steps.inference(tensor), tensor, arrays)
        read = _READERS[self._packaged.task_type]
        return iter([read(result) for result in results])

    def network(self) -> Network:
        """Return the module for export; see :mod:`adapters.ultralytics_training.exported`."""
        return exported_network(deepcopy(self._model), packaged=self._packaged, side=self._side)


def _set_transforms(steps: Any) -> None:
    """Resize and crop as in validation, whatever the checkpoint says of it."""
    from ultralytics.data.augment import classify_transforms

    steps.transforms = classify_transforms(steps.imgsz)
    steps.transforms.transforms.insert(0, middle)
    steps.device_transform = steps.host_transforms = None


def _read_scores(result: Any) -> Prediction:
    return Prediction(scores=result.probs.data.float().cpu().numpy().astype(np.float32))


def _read_semantic(result: Any) -> Prediction:
    mask = result.semantic_mask
    mask = getattr(mask, "data", mask)
    mask = torch.as_tensor(mask).reshape(result.orig_shape)
    return Prediction(mask=mask.cpu().numpy().astype(np.uint8))


def _read_objects(result: Any) -> Prediction:
    height, width = result.orig_shape
    boxes = result.boxes.xyxyn.cpu().numpy()
    masks = _masks(result, count=len(boxes))
    points = _keypoints(result, count=len(boxes), size=(width, height))
    objects = [
        FoundObject(
            class_id=int(class_id),
            score=float(score),
            box=_inside(box),
            mask=mask,
            keypoints=keypoints,
        )
        for box, score, class_id, mask, keypoints in zip(
            boxes, result.boxes.conf.tolist(), result.boxes.cls.tolist(), masks, points, strict=True
        )
    ]
    return Prediction(objects=_by_score(objects))


def _masks(result: Any, *, count: int) -> list[Any]:
    if result.masks is None:
        return [None] * count
    return list(result.masks.data.cpu().numpy().astype(bool))


def _keypoints(result: Any, *, count: int, size: tuple[int, int]) -> list[Any]:
    if result.keypoints is None or not count:
        return [()] * count
    width, height = size
    return [
        tuple(
            # Without visibility every point counts as seen.
            (float(p[0]) / width, float(p[1]) / height, float(p[2]) if len(p) > 2 else 1.0)
            for p in thing
        )
        for thing in result.keypoints.data.cpu().numpy()
    ]


def _read_oriented(result: Any) -> Prediction:
    height, width = result.orig_shape
    obb = result.obb
    objects = []
    for corners, score, class_id in zip(
        obb.xyxyxyxy.cpu().numpy(), obb.conf.tolist(), obb.cls.tolist(), strict=True
    ):
        places = corners / (width, height)
        (left, top), (right, bottom) = places.min(0), places.max(0)
        objects.append(
            FoundObject(
                class_id=int(class_id),
                score=float(score),
                box=_inside((left, top, right, bottom)),
                corners=tuple(float(value) for value in places.ravel()),
            )
        )
    return Prediction(objects=_by_score(objects))


def _inside(box: Any) -> tuple[float, float, float, float]:
    left, top, right, bottom = (min(max(float(value), 0.0), 1.0) for value in box)
    return left, top, right, bottom


def _by_score(objects: list[FoundObject]) -> tuple[FoundObject, ...]:
    return tuple(sorted(objects, key=lambda thing: -thing.score))


_READERS: dict[TaskType, Callable[[Any], Prediction]] = {
    TaskType.OBJECT_DETECTION: _read_objects,
    TaskType.INSTANCE_SEGMENTATION: _read_objects,
    TaskType.POSE_ESTIMATION: _read_objects,
    TaskType.ORIENTED_DETECTION: _read_oriented,
    TaskType.SEMANTIC_SEGMENTATION: _read_semantic,
    TaskType.IMAGE_CLASSIFICATION: _read_scores,
}
