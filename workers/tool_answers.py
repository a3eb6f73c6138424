"""A prediction as the API tells it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from adapters.contract import TaskType, TrainingJob
from adapters.evaluation.pictures import background_id, colour_of, palette
from adapters.prediction import FoundObject, Prediction, Predictor

MOST_OBJECTS = 300
_MOST_CLASSES = 1000


def prediction_to_json(
    prediction: Prediction,
    *,
    job: TrainingJob,
    predictor: Predictor,
    image: Image.Image,
    threshold: float,
) -> dict[str, Any]:
    """Return what a model says of an image; of objects those with a score from the threshold on."""
    names = predictor.classes
    answer: dict[str, Any] = {
        "task_type": str(job.task_type),
        "multi_label": predictor.multi_label,
        "width": image.width,
        "height": image.height,
        "classes": None,
        "objects": None,
        "mask": None,
        "legend": None,
    }
    if job.task_type == TaskType.IMAGE_CLASSIFICATION and prediction.scores is not None:
        order = np.argsort(-prediction.scores, kind="stable")[:_MOST_CLASSES]
        answer["classes"] = [
            {"name": names[i], "score": _short(prediction.scores[i])} for i in order
        ]
    elif job.task_type == TaskType.SEMANTIC_SEGMENTATION and prediction.mask is not None:
        present = np.unique(prediction.mask).tolist()
        answer["mask"] = _mask_url(prediction.mask, clear=background_id(names))
        answer["legend"] = [
            {"name": names[i], "colour": _hex(i), "share": _short((prediction.mask == i).mean())}
            for i in present
            if i < len(names)
        ]
    else:
        sure = [one for one in prediction.objects if one.score >= threshold][:MOST_OBJECTS]
        answer["objects"] = [_object(one, names) for one in sure]
    return answer


def _object(one: FoundObject, names: Sequence[str]) -> dict[str, Any]:
    return {
        "class": names[one.class_id],
        "colour": _hex(one.class_id),
        "score": _short(one.score),
        "box": [_short(v) for v in one.box],
        "polygon": None if one.mask is None else _outline(one.mask),
        "keypoints": [[_short(v) for v in point] for point in one.keypoints] or None,
        "corners": [_short(v) for v in one.corners] or None,
    }


def _outline(mask: Any) -> list[float] | None:
    """Return the outline of a mask's largest part, x1 y1 x2 y2 … in fractions of the image."""
    try:
        import cv2
    except ImportError:  # it comes with the frameworks that find masks of objects
        return None
    contours, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    if not contours:
        return None
    largest = max(contours, key=cv2.contourArea)
    smooth = cv2.approxPolyDP(largest, 0.002 * cv2.arcLength(largest, True), True)
    points = (smooth.reshape(-1, 2) + 0.5) / (mask.shape[1], mask.shape[0])
    return [_short(v) for v in points.ravel()]


def _mask_url(mask: Any, *, clear: int | None) -> str:
    """Return a mask as a PNG in its classes' colours, in a data URL; ``clear`` has none."""
    image = Image.fromarray(mask)
    image.putpalette(palette().tobytes())
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True, transparency=clear)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _hex(class_id: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour_of(class_id))


def _short(value: Any) -> float:
    return round(float(value), 5)
