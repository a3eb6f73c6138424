"""A trained model, loaded from the folder that plain transformers loads, too."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import adapters.huggingface_training.offline  # noqa: F401  (before the library)

# isort: split
import numpy as np
import torch
from PIL import Image
from torch.overrides import TorchFunctionMode
from torchvision.transforms.v2 import functional as F
from transformers import CONFIG_MAPPING

from adapters.contract import ErrorKind, TaskType, TrainingError, TrainingJob
from adapters.huggingface_training.architecture import (
    forward_arguments,
    make_processor,
    model_class,
)
from adapters.huggingface_training.pretrained import WEIGHTS, read_weights
from adapters.huggingface_training.state import BEST
from adapters.huggingface_training.tasks import full_size
from adapters.huggingface_training.zoo import find_spec
from adapters.prediction import Box, FoundObject, Network, Prediction

_BATCH = 16  # images at once: any number fits into memory
_LOWEST_SCORE = 0.001  # what is below is no find, for mean average precision neither
_MOST_OBJECTS = 300
# Whose decoder begins with the places of the image that have the highest scores.
_QUERIES_OF_PLACES = {"rt_detr", "rt_detr_v2", "d_fine", "deimv2"}


class HuggingFacePredictor:
    """Says of images what the best model of a job says."""

    def __init__(self, model: Any, *, processor: Any, task_type: TaskType, image_size: int) -> None:
        self._model = model.eval()
        self._processor = processor
        self._task_type = task_type
        self._size = image_size
        self._forward = forward_arguments(model, image_size=image_size)
        names: Mapping[int, str] = model.config.id2label
        self.classes = tuple(names[i] for i in sorted(names))
        self.multi_label = model.config.problem_type == "multi_label_classification"

    @torch.no_grad()
    def predict(self, images: Sequence[Image.Image]) -> list[Prediction]:
        """Return what the model says of each RGB image."""
        found: list[Prediction] = []
        for begin in range(0, len(images), _BATCH):
            some = images[begin : begin + _BATCH]
            pixels = self._processor(
                images=[F.pil_to_tensor(image.convert("RGB")) for image in some],
                return_tensors="pt",
            )["pixel_values"]
            outputs = self._model(pixel_values=pixels, **self._forward)
            found.extend(self._read(outputs, some))
        return found

    def network(self) -> Network:
        """Return the module for export: from normalised images to the task's raw outputs."""
        module = copy.deepcopy(self._model).float().cpu().eval()
        module.set_attn_implementation("eager")  # the form that every exporter follows
        outputs = (
            ("logits", "boxes") if self._task_type == TaskType.OBJECT_DETECTION else ("logits",)
        )
        generator = torch.Generator().manual_seed(0)
        processor = self._processor
        normalised = bool(processor.do_normalize)
        return Network(
            module=_Raw(module, outputs=outputs, forward=self._forward).eval(),
            example=torch.randn(2, 3, self._size, self._size, generator=generator),
            outputs=outputs,
            preprocessing={
                "size": [self._size, self._size],
                "resizing": "to the size, whatever the aspect; antialiased",
                "scale": "0 to 1",
                "mean": list(processor.image_mean) if normalised else [0.0, 0.0, 0.0],
                "std": list(processor.image_std) if normalised else [1.0, 1.0, 1.0],
            },
        )

    def _read(self, outputs: Any, images: Sequence[Image.Image]) -> Iterator[Prediction]:
        if self._task_type == TaskType.IMAGE_CLASSIFICATION:
            logits = outputs.logits.float()
            scores = logits.sigmoid() if self.multi_label else logits.softmax(-1)
            yield from (Prediction(scores=row.numpy()) for row in scores)
        elif self._task_type == TaskType.OBJECT_DETECTION:
            found = self._processor.post_process_object_detection(
                outputs, threshold=_LOWEST_SCORE, target_sizes=[(1, 1)] * len(images)
            )
            yield from (Prediction(objects=self._objects(one)) for one in found)
        else:
            for row, image in zip(outputs.logits, images, strict=True):
                scores = full_size(row[None], (image.height, image.width))
                yield Prediction(mask=scores[0].argmax(0).numpy().astype(np.uint8))

    def _objects(self, found: Mapping[str, torch.Tensor]) -> tuple[FoundObject, ...]:
        order = found["scores"].argsort(descending=True, stable=True)[:_MOST_OBJECTS].tolist()
        boxes = found["boxes"].float().clamp(0, 1).tolist()
        labels, scores = found["labels"].tolist(), found["scores"].tolist()
        return tuple(
            FoundObject(class_id=labels[i], score=scores[i], box=_box(boxes[i]))
            for i in order
            if labels[i] < len(self.classes)
        )


class _Raw(torch.nn.Module):
    """A model that takes images and gives plain tensors."""

    def __init__(self, model: Any, *, outputs: Sequence[str], forward: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model
        self._boxes = "boxes" in outputs
        self._forward = dict(forward)
        # Queries that are learnt, not taken from the places, belong to the first, the second, ….
        by_place = model.config.model_type in _QUERIES_OF_PLACES
        by_place = by_place and not model.config.learn_initial_query
        self._choosing = _BestInOrder if by_place else nullcontext

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with self._choosing():
            found = self.model(pixel_values=images, **self._forward)
        return (found.logits, found.pred_boxes) if self._boxes else (found.logits,)


class _BestInOrder(TorchFunctionMode):
    """Gives the places that become queries in the order of the image, not of their scores.

    Of equal scores the first place is taken. All places outside of what anchors may cover have
    the same score, and torch's topk takes and orders equals otherwise than another runtime's.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.topk and kwargs == {"dim": 1}:
            scores, count = args
            if torch.onnx.is_in_onnx_export():
                best = scores.topk(count, dim=1).indices  # ONNX says that the first equal is taken
            else:
                best = scores.sort(dim=1, descending=True, stable=True).indices[:, :count]
            places = best.sort(dim=1).values
            return scores.gather(1, places), places
        return func(*args, **(kwargs or {}))


def _box(sides: Sequence[float]) -> Box:
    left, top, right, bottom = sides
    return left, top, right, bottom


def load_predictor(job: TrainingJob) -> HuggingFacePredictor:
    """Load the best model of a job. Raises TrainingError(CHECKPOINT_INVALID)."""
    folder = job.checkpoints_dir / BEST
    spec = find_spec(job.model_name)
    if spec is None or not (folder / WEIGHTS).is_file():
        raise _unreadable(job, "it is not there")
    weights = read_weights(folder)
    if weights.config is None or weights.config.get("model_type") != spec.model_type:
        raise _unreadable(job, "its config.json is missing or of another model")
    if weights.preprocessor is None:
        raise _unreadable(job, "its preprocessor_config.json is missing")
    try:
        config = CONFIG_MAPPING[spec.model_type].from_dict(dict(weights.config))
        model, told = model_class(config, job.task_type).from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            dtype=torch.float32,
        )
        image_size = int(weights.preprocessor["size"]["height"])
    except Exception as error:  # a damaged file leads its readers to raise anything
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise _unreadable(job, reason) from error
    if told["missing_keys"] or told["mismatched_keys"]:
        raise _unreadable(job, "some of its weights are missing")
    processor = make_processor(
        spec,
        task_type=job.task_type,
        image_size=image_size,
        published=weights.preprocessor,
    )
    return HuggingFacePredictor(
        model, processor=processor, task_type=job.task_type, image_size=image_size
    )


def _unreadable(job: TrainingJob, reason: str) -> TrainingError:
    return TrainingError(
        ErrorKind.CHECKPOINT_INVALID,
        f"the best model of job {job.id} at {job.checkpoints_dir / BEST} cannot be read: {reason}",
        hint="Train the job anew: clone it and start the clone.",
    )
