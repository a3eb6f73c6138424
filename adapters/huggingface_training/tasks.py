"""What differs between the tasks: labels, loss, and how outputs become metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import adapters.huggingface_training.offline  # noqa: F401  (before the library)

# isort: split
import torch
import torch.nn.functional as F
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MultilabelAveragePrecision,
    MultilabelF1Score,
)
from torchmetrics.detection import MeanAveragePrecision
from torchvision.transforms.v2 import functional as TF

from adapters.contract import TaskType
from adapters.data.content import IGNORED, Content
from adapters.huggingface_training.data import Item
from adapters.ranks import Rank
from adapters.schemas.huggingface import HuggingFaceHyperparameters

Batch = dict[str, Any]  # pixel_values (N, 3, S, S) and what the task adds


class Task(ABC):
    """One task of one job."""

    best_metric: str

    def __init__(
        self,
        content: Content,
        *,
        processor: Any,
        image_size: int,
        class_weights: torch.Tensor | None,
        rank: Rank,
    ) -> None:
        self.classes = content.classes
        self._processor = processor
        self._image_size = image_size
        self._class_weights = class_weights
        self._rank = rank

    def collate(self, items: Sequence[Item]) -> Batch:
        """Make a batch of items; images that are not of the model's size yet are resized."""
        images = [item["image"].as_subclass(torch.Tensor) for item in items]
        square = (self._image_size, self._image_size)
        resize = any(tuple(image.shape[-2:]) != square for image in images)
        processed = self._processor(images=images, do_resize=resize, return_tensors="pt")
        return {"pixel_values": processed["pixel_values"], **self._targets(items)}

    @abstractmethod
    def _targets(self, items: Sequence[Item]) -> Batch:
        """Return what is to be learnt of a batch."""

    @abstractmethod
    def loss(
        self, model: Callable[..., Any], batch: Batch, *, smoothing: float
    ) -> tuple[torch.Tensor, Any]:
        """Return the mean loss of a batch and the model's outputs; of ranks, their mean is that."""

    def _cross_entropy(
        self, logits: torch.Tensor, labels: torch.Tensor, *, smoothing: float
    ) -> torch.Tensor:
        """Return the mean over what counts; of nothing 0, where torch's mean is no number."""
        weights = self._class_weights
        total = F.cross_entropy(
            logits,
            labels,
            weight=weights,
            ignore_index=IGNORED if logits.ndim > 2 else -100,
            label_smoothing=smoothing,
            reduction="sum",
        )
        counted = labels[labels != IGNORED] if logits.ndim > 2 else labels
        number = float(counted.numel() if weights is None else weights[counted].sum())
        return total / max(self._averaged(number), 1e-6)

    def _averaged(self, number: float) -> float:
        """Return the ranks' mean: losses over it have the mean over what counts on all of them."""
        if self._rank.total == 1:
            return number
        return float(self._rank.sum(torch.tensor(number))) / self._rank.total

    @abstractmethod
    def metrics(self, device: torch.device) -> Metrics:
        """Return empty metrics of a validation."""


class Metrics(ABC):
    """Gathers what a validation finds, a batch at a time."""

    @abstractmethod
    def update(self, outputs: Any, batch: Batch) -> None: ...

    @abstractmethod
    def compute(self) -> dict[str, float]: ...


class Classification(Task):
    best_metric = "top1"

    def _targets(self, items: Sequence[Item]) -> Batch:
        return {"labels": torch.tensor([item["classes"][0] for item in items])}

    def loss(
        self, model: Callable[..., Any], batch: Batch, *, smoothing: float
    ) -> tuple[torch.Tensor, Any]:
        outputs = model(pixel_values=batch["pixel_values"])
        logits = outputs.logits.float()
        return self._cross_entropy(logits, batch["labels"], smoothing=smoothing), outputs

    def metrics(self, device: torch.device) -> Metrics:
        number = max(2, len(self.classes))  # torchmetrics knows no single class
        return _FromLogits(
            {
                "top1": MulticlassAccuracy(number, average="micro"),
                "top5": MulticlassAccuracy(number, top_k=min(5, number), average="micro"),
                "f1": MulticlassF1Score(number, average="macro"),
            },
            probabilities=lambda logits: logits.softmax(-1),
            columns=number,
            device=device,
        )


class MultiLabel(Task):
    best_metric = "map"

    def _targets(self, items: Sequence[Item]) -> Batch:
        labels = torch.zeros(len(items), len(self.classes))
        for row, item in enumerate(items):
            labels[row, list(item["classes"])] = 1.0
        return {"labels": labels}

    def loss(
        self, model: Callable[..., Any], batch: Batch, *, smoothing: float
    ) -> tuple[torch.Tensor, Any]:
        outputs = model(pixel_values=batch["pixel_values"])
        targets = batch["labels"] * (1 - smoothing) + 0.5 * smoothing
        each = F.binary_cross_entropy_with_logits(outputs.logits.float(), targets, reduction="none")
        if self._class_weights is not None:
            each = each * self._class_weights
        return each.sum() / self._averaged(each.numel()), outputs

    def metrics(self, device: torch.device) -> Metrics:
        number = len(self.classes)
        return _FromLogits(
            {
                "map": MultilabelAveragePrecision(number, average="macro"),
                "f1": MultilabelF1Score(number, average="macro"),
            },
            probabilities=torch.sigmoid,
            columns=number,
            device=device,
        )


class _FromLogits(Metrics):
    """torchmetrics over class scores; of several ranks it gathers them itself."""

    def __init__(
        self,
        metrics: Mapping[str, Any],
        *,
        probabilities: Callable[[torch.Tensor], torch.Tensor],
        columns: int,
        device: torch.device,
    ) -> None:
        self._metrics = {name: metric.to(device) for name, metric in metrics.items()}
        self._probabilities = probabilities
        self._columns = columns

    def update(self, outputs: Any, batch: Batch) -> None:
        scores = self._probabilities(outputs.logits.float())
        scores = F.pad(scores, (0, self._columns - scores.shape[-1]))
        for metric in self._metrics.values():
            metric.update(scores, batch["labels"].long())

    def compute(self) -> dict[str, float]:
        return {name: float(metric.compute()) for name, metric in self._metrics.items()}


class Detection(Task):
    """Boxes; the loss is the model's own, which matches queries to objects."""

    best_metric = "map50"

    def _targets(self, items: Sequence[Item]) -> Batch:
        labels, truths = [], []
        for item in items:
            height, width = item["boxes"].canvas_size
            boxes = item["boxes"].as_subclass(torch.Tensor)
            boxes = boxes / torch.tensor([width, height, width, height])
            learnt = boxes[~item["crowd"]]
            centres, sides = (learnt[:, :2] + learnt[:, 2:]) / 2, learnt[:, 2:] - learnt[:, :2]
            labels.append(
                {
                    "class_labels": item["labels"][~item["crowd"]],
                    "boxes": torch.cat([centres, sides], dim=1),
                }
            )
            truths.append(
                {"boxes": boxes, "labels": item["labels"], "iscrowd": item["crowd"].long()}
            )
        return {"labels": labels, "truths": truths}

    def loss(
        self, model: Callable[..., Any], batch: Batch, *, smoothing: float
    ) -> tuple[torch.Tensor, Any]:
        outputs = model(pixel_values=batch["pixel_values"], labels=batch["labels"])
        return outputs.loss, outputs

    def metrics(self, device: torch.device) -> Metrics:
        return _Boxes(self._processor, size=self._image_size, rank=self._rank)


class _Boxes(Metrics):
    """COCO's mean average precision."""

    def __init__(self, processor: Any, *, size: int, rank: Rank) -> None:
        self._processor = processor
        self._rank = rank
        self._seen: list[tuple[Any, Any]] = []
        self._size = size  # COCO's areas are in pixels; small, middle and large are not reported
        # Left to itself it gathers from the ranks image by image, and some have one less.
        self._metric = MeanAveragePrecision(backend="pycocotools", sync_on_compute=False)
        self._metric.warn_on_many_detections = False

    def update(self, outputs: Any, batch: Batch) -> None:
        found = self._processor.post_process_object_detection(
            outputs, threshold=0.0, target_sizes=[(1, 1)] * len(batch["truths"])
        )
        predicted = [
            {
                "boxes": one["boxes"].float().cpu() * self._size,
                "scores": one["scores"].float().cpu(),
                "labels": one["labels"].cpu(),
            }
            for one in found
        ]
        truths = [
            {
                "boxes": truth["boxes"].cpu() * self._size,
                "labels": truth["labels"].cpu(),
                "iscrowd": truth["iscrowd"].cpu(),
            }
            for truth in batch["truths"]
        ]
        self._seen += zip(predicted, truths, strict=True)

    def compute(self) -> dict[str, float]:
        for predicted, truth in chain(*self._rank.gather(self._seen)):
            self._metric.update([predicted], [truth])
        found = self._metric.compute()
        # COCO says -1 where there is nothing to be found.
        return {
            "map50": max(0.0, float(found["map_50"])),
            "map50_95": max(0.0, float(found["map"])),
            "recall": max(0.0, float(found["mar_100"])),
        }


class Segmentation(Task):
    best_metric = "mean_iou"

    def _targets(self, items: Sequence[Item]) -> Batch:
        size = [self._image_size, self._image_size]
        nearest = TF.InterpolationMode.NEAREST
        masks = [TF.resize(item["mask"], size, interpolation=nearest) for item in items]
        return {"labels": torch.cat([m.as_subclass(torch.Tensor) for m in masks]).long()}

    def loss(
        self, model: Callable[..., Any], batch: Batch, *, smoothing: float
    ) -> tuple[torch.Tensor, Any]:
        outputs = model(pixel_values=batch["pixel_values"])
        logits = full_size(outputs.logits, batch["labels"].shape[-2:])
        return self._cross_entropy(logits, batch["labels"], smoothing=smoothing), outputs

    def metrics(self, device: torch.device) -> Metrics:
        return _Pixels(len(self.classes), device=device, rank=self._rank)


def full_size(logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return the classes' scores (N, classes, H, W) of every pixel, in float32."""
    return F.interpolate(logits.float(), size=tuple(size), mode="bilinear", align_corners=False)


class _Pixels(Metrics):
    """Mean intersection over union, over the classes that are there or were said to be."""

    def __init__(self, classes: int, *, device: torch.device, rank: Rank) -> None:
        self._classes = classes
        self._rank = rank
        self._counts = torch.zeros(classes * classes, dtype=torch.int64, device=device)

    def update(self, outputs: Any, batch: Batch) -> None:
        labels = batch["labels"]
        said = full_size(outputs.logits, labels.shape[-2:]).argmax(1)
        counted = labels != IGNORED
        pairs = labels[counted] * self._classes + said[counted]
        self._counts += torch.bincount(pairs, minlength=self._classes**2)

    def compute(self) -> dict[str, float]:
        counts = self._rank.sum(self._counts).reshape(self._classes, self._classes).double()
        right = counts.diagonal()
        union = counts.sum(0) + counts.sum(1) - right
        return {
            "mean_iou": float((right / union)[union > 0].mean()) if union.any() else 0.0,
            "pixel_accuracy": float(right.sum() / counts.sum().clamp(min=1)),
        }


def make_task(
    content: Content,
    hp: HuggingFaceHyperparameters,
    *,
    processor: Any,
    image_size: int,
    device: torch.device,
    rank: Rank,
) -> Task:
    """Return the task of a data set."""
    kind: type[Task] = {
        TaskType.IMAGE_CLASSIFICATION: MultiLabel if content.multi_label else Classification,
        TaskType.OBJECT_DETECTION: Detection,
        TaskType.SEMANTIC_SEGMENTATION: Segmentation,
    }[content.task_type]
    weights = class_weights(content, hp)
    if weights is not None:
        weights = weights.to(device)
    return kind(
        content, processor=processor, image_size=image_size, class_weights=weights, rank=rank
    )


def class_weights(content: Content, hp: HuggingFaceHyperparameters) -> torch.Tensor | None:
    """Return the weight of each class in the loss, 1 on average, or None for all alike."""
    if isinstance(hp.class_weights, list):
        return torch.tensor(hp.class_weights, dtype=torch.float32)
    if hp.class_weights == "none" or content.task_type == TaskType.OBJECT_DETECTION:
        return None
    counts = torch.zeros(len(content.classes), dtype=torch.float64)
    for sample in content.splits["train"]:
        if content.task_type == TaskType.SEMANTIC_SEGMENTATION:
            found = torch.from_numpy(content.mask(sample).copy()).flatten().long()
            counts += torch.bincount(found[found != IGNORED], minlength=len(counts))
        else:
            counts[list(sample.classes)] += 1
    weights = torch.where(counts > 0, counts.sum() / counts.clamp(min=1), 0.0)
    return (weights / weights[counts > 0].mean()).float()
