"""The best model of a job, in a file that plain timm loads and that says what it holds.

``timm.create_model(name, num_classes=n, checkpoint_path='best.safetensors', **arguments)``; the
file's metadata, JSON under the key 'modelyard', has name, arguments, classes and preprocessing.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import safetensors
import safetensors.torch
import timm
import torch

from adapters.checkpoints import write_atomically
from adapters.contract import Best, ErrorKind, TrainingError

BEST = "best.safetensors"
_KEY = "modelyard"


@dataclass(frozen=True)
class About:
    """What a file of weights says of itself."""

    model_name: str
    model_arguments: Mapping[str, Any]  # of timm.create_model: img_size, where a model has one
    classes: tuple[str, ...]
    multi_label: bool
    data_config: Mapping[str, Any]  # input_size, mean, std, interpolation, crop_pct, crop_mode
    best: Best
    versions: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        return {"framework": "timm", **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` gave. Raises KeyError, TypeError or ValueError."""
        if content["framework"] != "timm":
            raise ValueError(f"it is of {content['framework']}")
        values = {field.name: content[field.name] for field in dataclasses.fields(cls)}
        best = Best(**values.pop("best"))
        config = dict(values.pop("data_config"))
        config["input_size"] = tuple(int(side) for side in config["input_size"])
        classes = tuple(map(str, values.pop("classes")))
        arguments = {name: values["model_arguments"][name] for name in values["model_arguments"]}
        if set(arguments) - {"img_size"}:
            raise ValueError(f"unknown model arguments {', '.join(arguments)}")
        return cls(**{**values, "best": best, "data_config": config, "classes": classes})

    @property
    def epoch(self) -> int:
        return self.best.epoch


def save_best(path: Path, model: torch.nn.Module, about: About) -> None:
    """Write a model's weights with what they are."""
    tensors = {
        # A copy of each: the format refuses tensors that share memory, as tied weights do.
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    metadata = {"format": "pt", _KEY: json.dumps(about.to_json())}
    content = safetensors.torch.save(tensors, metadata=metadata)
    write_atomically(path, lambda stream: stream.write(content))


def read_about(path: Path) -> About:
    """Return what a file that :func:`save_best` wrote says of itself.

    Raises TrainingError(CHECKPOINT_INVALID) where there is none that can be read.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return About.from_json(json.loads(metadata[_KEY]))
    except (OSError, safetensors.SafetensorError) as error:
        raise _invalid(path, str(error)) from error
    except (KeyError, TypeError, ValueError) as error:
        raise _invalid(path, f"it does not say what it holds ({error})") from error


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a file. Raises TrainingError(CHECKPOINT_INVALID)."""
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise _invalid(path, str(error)) from error


def versions() -> dict[str, str]:
    """Return the versions that a checkpoint is of."""
    return {"timm": str(timm.__version__), "torch": str(torch.__version__)}


def _invalid(path: Path, reason: str) -> TrainingError:
    return TrainingError(
        ErrorKind.CHECKPOINT_INVALID,
        f"weights file '{path}' cannot be used: {reason}",
        hint="Train the job again, or take another one's weights.",
    )
