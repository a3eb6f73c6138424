"""Ultralytics' metrics under the names that all frameworks share."""

from __future__ import annotations

from collections.abc import Mapping

from adapters.contract import ACCURACY_METRIC, TaskType

_NAMES = {
    "metrics/precision(B)": "precision",
    "metrics/recall(B)": "recall",
    "metrics/mAP50(B)": "map50",
    "metrics/mAP50-95(B)": "map50_95",
    "metrics/precision(M)": "mask_precision",
    "metrics/recall(M)": "mask_recall",
    "metrics/mAP50(M)": "mask_map50",
    "metrics/mAP50-95(M)": "mask_map50_95",
    "metrics/precision(P)": "pose_precision",
    "metrics/recall(P)": "pose_recall",
    "metrics/mAP50(P)": "pose_map50",
    "metrics/mAP50-95(P)": "pose_map50_95",
    "metrics/accuracy_top1": "top1",
    "metrics/accuracy_top5": "top5",
    "metrics/mIoU": "mean_iou",
    "metrics/pixel_acc": "pixel_accuracy",
}


def shared_names(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return an epoch's metrics, and the losses of its validation with their sum."""
    values = {ours: float(metrics[theirs]) for theirs, ours in _NAMES.items() if theirs in metrics}
    return {**_losses(metrics), **values}


def accuracy(metrics: Mapping[str, float], task_type: TaskType) -> float:
    """Return the metric that a task's accuracy is taken from."""
    return shared_names(metrics)[ACCURACY_METRIC[task_type]]


def validation_loss(metrics: Mapping[str, float]) -> float | None:
    """Return the sum of the validation losses among Ultralytics' metrics."""
    return _losses(metrics).get("val_loss")


def _losses(metrics: Mapping[str, float]) -> dict[str, float]:
    parts = {
        f"val_{name.removeprefix('val/')}": float(value)
        for name, value in metrics.items()
        if name.startswith("val/")
    }
    return {**parts, "val_loss": sum(parts.values())} if parts else {}
