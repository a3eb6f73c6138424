"""The list of timm's models for ``python -m adapters.catalog_build timm``."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import timm
import torch

from adapters.catalog import ModelEntry
from adapters.contract import TaskType

log = logging.getLogger(__name__)

_CLASSES = 7  # any number that is not a model's own


def catalog_entries() -> Iterator[ModelEntry]:
    """Yield every model that classifies into classes of one's own, built without its weights."""
    for name in timm.list_models():
        with torch.device("meta"):
            if not _classifies(name):
                log.warning("%s is left out: it gives features, not classes", name)
                continue
            model = timm.create_model(name)
        config = model.pretrained_cfg
        yield ModelEntry(
            framework="timm",
            name=name,
            task_types=(str(TaskType.IMAGE_CLASSIFICATION),),
            params_m=round(sum(p.numel() for p in model.parameters()) / 1e6, 2),
            input_size=max(config["input_size"][1:]),
            pretrained=bool(config.get("url") or config.get("hf_hub_id")),
        )


def model_names() -> list[str]:
    """Return every name of the installed library, also of the few that do not classify."""
    return timm.list_models()


def _classifies(name: str) -> bool:
    """Put a batch of two through a model, on the device that computes shapes only."""
    model = timm.create_model(name, num_classes=_CLASSES)
    output = model(torch.empty(2, *model.pretrained_cfg["input_size"]))
    return isinstance(output, torch.Tensor) and output.shape == (2, _CLASSES)
