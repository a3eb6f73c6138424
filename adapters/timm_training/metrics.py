"""What a validation measures: of one class an image, and of any number of classes.

The same measures as the evaluation that follows training (adapters.evaluation.classification).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from adapters.evaluation.classification import MULTI_LABEL_SCORE, average_precision
from adapters.ranks import Rank


class OneClass:
    """Sums over the images of one class each: loss, top-1, top-5 and macro F1."""

    def __init__(self, *, classes: int, device: torch.device) -> None:
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._counts = torch.zeros(3, dtype=torch.int64, device=device)  # top 1, top 5, images
        self._matrix = torch.zeros(3, classes, dtype=torch.int64, device=device)

    def add(self, logits: torch.Tensor, targets: torch.Tensor) -> None:
        """Take note of a batch: logits (N, classes) and class ids (N)."""
        self._loss += F.cross_entropy(logits, targets, reduction="sum").double()
        said = logits.topk(min(5, logits.shape[1])).indices
        hits = said == targets[:, None]
        images = torch.full((), len(targets), device=targets.device)
        self._counts += torch.stack([hits[:, :1].sum(), hits.sum(), images])
        ones = torch.ones_like(targets)
        for row, classes in enumerate((targets, said[:, 0], targets[hits[:, 0]])):
            self._matrix[row].scatter_add_(0, classes, ones[: len(classes)])

    def result(self, rank: Rank) -> dict[str, float]:
        """Return the measures over the images of all ranks."""
        top1, top5, images = rank.sum(self._counts).tolist()
        there, named, right = rank.sum(self._matrix).double().cpu()
        met = there + named > 0  # a class that is neither there nor named is not measured
        f1 = 2 * right[met] / (there[met] + named[met])
        return {
            "val_loss": rank.sum(self._loss).item() / images,
            "top1": top1 / images,
            "top5": top5 / images,
            "f1": f1.mean().item(),
        }


class SeveralClasses:
    """The scores of images of any number of classes: loss, mean average precision, macro F1."""

    def __init__(self) -> None:
        self._loss = 0.0
        self._scores: list[torch.Tensor] = []
        self._targets: list[torch.Tensor] = []

    def add(self, logits: torch.Tensor, targets: torch.Tensor) -> None:
        """Take note of a batch: logits and targets, both (N, classes)."""
        loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        self._loss += loss.mean(1).double().sum().item()
        self._scores.append(logits.sigmoid().cpu())
        self._targets.append(targets.bool().cpu())

    def result(self, rank: Rank) -> dict[str, float]:
        """Return the measures over the images of all ranks."""
        parts = [part for part in rank.gather(self._part()) if part is not None]
        loss = sum(part[0] for part in parts)
        scores = np.concatenate([part[1] for part in parts]).astype(np.float64)
        truth = np.concatenate([part[2] for part in parts])
        precisions = [average_precision(s, t) for s, t in zip(scores.T, truth.T, strict=True)]
        measured = [value for value in precisions if value is not None]
        said = scores >= MULTI_LABEL_SCORE
        f1 = 2 * (said & truth).sum(0) / np.maximum(said.sum(0) + truth.sum(0), 1)
        return {
            "val_loss": loss / len(scores),
            "map": float(np.mean(measured)) if measured else 0.0,
            "f1": float(f1.mean()),
        }

    def _part(self) -> tuple[float, np.ndarray, np.ndarray] | None:
        if not self._scores:  # a rank without a validation image
            return None
        return self._loss, torch.cat(self._scores).numpy(), torch.cat(self._targets).numpy()
