"""Random changes of training images, with the boxes and masks that belong to them."""

from __future__ import annotations

from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from adapters.contract import TaskType
from adapters.data.content import IGNORED
from adapters.huggingface_training.data import Item
from adapters.schemas.huggingface import HuggingFaceHyperparameters

# An object of which a crop shows less than this is not asked for: nobody could tell what it is.
_SMALLEST_VISIBLE_SHARE = 0.25


class Augmentation:
    """Crops, turns and recolours an item; its image comes out as a square of a given side."""

    def __init__(
        self, hp: HuggingFaceHyperparameters, *, task_type: TaskType, image_size: int
    ) -> None:
        size = [image_size, image_size]
        steps: list[Any] = []
        if hp.augment and hp.rotation:
            steps.append(
                v2.RandomRotation(
                    hp.rotation,
                    InterpolationMode.BILINEAR,
                    fill={tv_tensors.Mask: IGNORED, "others": 0},
                )
            )
        if hp.augment and hp.crop_scale_min < 1.0:
            scale, ratio = (hp.crop_scale_min, 1.0), (1 / hp.crop_ratio_max, hp.crop_ratio_max)
            steps.append(v2.RandomResizedCrop(size, scale=scale, ratio=ratio, antialias=True))
        else:
            steps.append(v2.Resize(size, antialias=True))
        if hp.augment and hp.hflip:
            steps.append(v2.RandomHorizontalFlip(hp.hflip))
        if hp.augment and hp.vflip:
            steps.append(v2.RandomVerticalFlip(hp.vflip))
        if hp.augment and hp.color_jitter:
            strength = hp.color_jitter
            steps.append(v2.ColorJitter(strength, strength, strength))
        if hp.augment and hp.random_erasing and task_type == TaskType.IMAGE_CLASSIFICATION:
            steps.append(v2.RandomErasing(hp.random_erasing))
        self._transform = v2.Compose(steps)

    def __call__(self, item: Item) -> Item:
        if "boxes" not in item:
            changed: Item = self._transform(item)
            return changed
        crowd = item["crowd"]
        kept = {**item, "boxes": item["boxes"][~crowd], "labels": item["labels"][~crowd]}
        kept["boxes"] = tv_tensors.wrap(kept["boxes"], like=item["boxes"])
        kept["crowd"] = crowd[~crowd]
        return _visible(self._transform(kept))


def _visible(item: Item) -> Item:
    """Return an item with its boxes cut at the image's border, and without those that left it."""
    height, width = item["boxes"].canvas_size
    boxes = item["boxes"].as_subclass(torch.Tensor)
    limit = torch.tensor([width, height, width, height], dtype=boxes.dtype)
    cut = torch.minimum(boxes.clamp(min=0), limit)
    seen = _area(cut) / _area(boxes).clamp(min=1e-6)
    visible = (seen >= _SMALLEST_VISIBLE_SHARE) & (_area(cut) > 1.0)
    return {
        **item,
        "boxes": tv_tensors.wrap(cut[visible], like=item["boxes"]),
        "labels": item["labels"][visible],
        "crowd": item["crowd"][visible],
    }


def _area(boxes: torch.Tensor) -> torch.Tensor:
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    return sides[:, 0] * sides[:, 1]
