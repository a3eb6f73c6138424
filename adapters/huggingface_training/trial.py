"""Batch size 0: a trial step on made-up images, with parts that are thrown away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torchvision import tv_tensors

from adapters.batch_size import find_batch_size
from adapters.contract import Reporter, TaskType
from adapters.huggingface_training.build import build
from adapters.huggingface_training.data import Item
from adapters.huggingface_training.plan import Plan

_OBJECTS = 20  # in each made-up image


def choose_batch_size(plan: Plan, reporter: Reporter, *, ranks: int) -> int:
    """Return the largest batch that fits, of all ranks together, and tell why it is that."""
    if plan.device.type == "cuda":
        torch.cuda.set_device(plan.device)
    chosen = find_batch_size(
        trial_step(plan, reporter),
        device=plan.device,
        train_images=len(plan.content.splits["train"]),
        accumulation_steps=plan.hyperparameters.accumulation_steps,
        ranks=ranks,
    )
    each = f", {chosen.size} on each of {ranks} devices" if ranks > 1 else ""
    reporter.decided("batch_size", chosen.size * ranks, why=f"{chosen.why}{each}")
    return chosen.size * ranks


def trial_step(plan: Plan, reporter: Reporter) -> Callable[[int], None]:
    """Return a step on made-up images, with a model of its own; its optimizer has AdamW's size."""
    parts = build(plan, reporter, load_weights=False)
    trained = [p for p in parts.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(plan.precision)

    def call(**arguments: object) -> object:
        return parts.model(**arguments, **parts.forward)

    def step(size: int) -> None:
        parts.model.train()
        batch = _to(parts.task.collate([_item(plan)] * size), plan.device)
        with torch.autocast(plan.device.type, dtype=dtype, enabled=dtype is not None):
            loss, _ = parts.task.loss(call, batch, smoothing=0.0)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _item(plan: Plan) -> Item:
    side = plan.image_size
    image = tv_tensors.Image(torch.zeros(3, side, side, dtype=torch.uint8))
    if plan.job.task_type == TaskType.IMAGE_CLASSIFICATION:
        return {"image": image, "classes": (0,)}
    if plan.job.task_type == TaskType.SEMANTIC_SEGMENTATION:
        mask = torch.zeros(1, side, side, dtype=torch.uint8)
        return {"image": image, "mask": tv_tensors.Mask(mask)}
    boxes = torch.tensor([[0.25, 0.25, 0.75, 0.75]]).repeat(_OBJECTS, 1) * side
    return {
        "image": image,
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(side, side)),
        "labels": torch.zeros(_OBJECTS, dtype=torch.int64),
        "crowd": torch.zeros(_OBJECTS, dtype=torch.bool),
    }


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: _to(part, device) for name, part in value.items()}
    return [_to(part, device) for part in value] if isinstance(value, list) else value
