"""The module of a trained model for export: one batch of images in, what its layers say out.

Left out is what sorts and selects: suppression of overlaps and the choice of the highest scores.
Two runtimes that agree to the last digits but one would order equal scores differently.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch

import adapters.ultralytics_training.offline  # noqa: F401
from adapters.contract import TaskType
from adapters.prediction import Network
from adapters.ultralytics_training.models import RTDETR, PackagedModel

# isort: split
from ultralytics.nn.modules.head import Detect

_BOXES = (
    "output (batch, 4 + classes{extra}, places): centre x, centre y, width and height in pixels of "
    "the input, then a score 0..1 for each class{told}; overlaps are not suppressed yet"
)
_OUTPUTS: dict[TaskType, tuple[tuple[str, ...], str]] = {
    TaskType.OBJECT_DETECTION: (("predictions",), _BOXES.format(extra="", told="")),
    TaskType.INSTANCE_SEGMENTATION: (
        ("predictions", "prototypes"),
        _BOXES.format(
            extra=" + 32",
            told=", then the mask's coefficients, which prototypes (batch, 32, height / 4, "
            "width / 4) are multiplied with and summed; above 0 is inside",
        ),
    ),
    TaskType.POSE_ESTIMATION: (
        ("predictions",),
        _BOXES.format(extra=" + keypoints", told=", then x, y and visibility of each keypoint"),
    ),
    TaskType.ORIENTED_DETECTION: (
        ("predictions",),
        _BOXES.format(extra=" + 1", told=", then the angle in radians"),
    ),
    TaskType.SEMANTIC_SEGMENTATION: (
        ("logits",),
        "output (batch, classes, height, width): the highest is a pixel's class",
    ),
    TaskType.IMAGE_CLASSIFICATION: (
        ("scores",),
        "output (batch, classes): scores 0..1 that add up to 1",
    ),
}
_RTDETR_OUTPUT = (
    "output (batch, queries, 4 + classes): centre x, centre y, width and height as fractions of "
    "the input, then a score 0..1 for each class"
)


class ExportedModel(torch.nn.Module):
    """A fused model whose outputs are plain tensors."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = self.model(images)
        return outputs if isinstance(outputs, tuple) else (outputs,)


class ExportedTransformer(ExportedModel):
    """RT-DETR with its queries in the order of their places instead of their scores."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        by_score = Detect._grouped_topk
        Detect._grouped_topk = staticmethod(_best_in_order)
        try:
            return super().forward(images)
        finally:
            Detect._grouped_topk = staticmethod(by_score)


def _best_in_order(
    values: torch.Tensor, count: int, groups: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the highest values of each row, and where they are, in the order of the row."""
    index = values.topk(count, dim=1).indices.sort(dim=1).values
    return values.gather(1, index), index


def exported_network(model: Any, *, packaged: PackagedModel, side: int) -> Network:
    """Return a copy of a trained model as the module that is exported."""
    rtdetr = packaged.head == RTDETR
    if hasattr(model, "end2end"):
        model.end2end = False  # as in validation: the branch whose overlaps are suppressed
    model = model.float().cpu().eval().fuse(verbose=False)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    head = model.model[-1]
    head.export = True
    if rtdetr:
        head.postprocess = MethodType(_boxes_and_scores, head)
    example = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    module = (ExportedTransformer if rtdetr else ExportedModel)(model).eval()
    with torch.no_grad():
        module(example)  # the grid of places is made now, and is constant in what is exported
    if hasattr(head, "_get_decode_boxes"):
        head._get_decode_boxes = MethodType(_decode_boxes, head)
    outputs, told = _OUTPUTS[packaged.task_type]
    return Network(
        module=module,
        example=example,
        outputs=outputs,
        preprocessing=_preprocessing(packaged, side, told=_RTDETR_OUTPUT if rtdetr else told),
    )


def _preprocessing(packaged: PackagedModel, side: int, *, told: str) -> dict[str, Any]:
    if packaged.task_type == TaskType.IMAGE_CLASSIFICATION:
        resizing = "shorter side to the size, then the middle"
    elif packaged.head == RTDETR:
        resizing = "stretched to the size"
    else:
        resizing = "longer side to the size, the rest filled with grey 114 on both sides"
    return {
        "size": [side, side],
        "channels": "RGB",
        "scale": 1 / 255,
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
        "resizing": resizing,
        "outputs": told,
    }


def _decode_boxes(head: Any, raw: dict[str, Any]) -> torch.Tensor:
    """Do what Detect does, without asking whether the grid is still that of the last batch."""
    boxes: torch.Tensor = head.decode_bboxes(
        head.dfl(raw["boxes"]), head.anchors.unsqueeze(0), raw.get("angle")
    )
    return boxes * head.strides


def _boxes_and_scores(head: Any, boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Return every query's box and scores, in place of the best ones in their order."""
    return torch.cat((boxes, scores), dim=-1)
