"""A job's best model, loaded for use: images are made ready exactly as in validation."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image

from adapters.contract import ErrorKind, TrainingError
from adapters.prediction import Network, Prediction
from adapters.timm_training.best import About, read_about, read_weights
from adapters.timm_training.data import evaluation_transform
from adapters.timm_training.model import check_name, first_output

BATCH_SIZE = 32


class TimmPredictor:
    """Computes in float32. Raises TrainingError where the file holds no model of timm."""

    def __init__(self, path: Path, *, device: str) -> None:
        about = read_about(path)
        self.classes = about.classes
        self.multi_label = about.multi_label
        self._about = about
        self._device = torch.device(device)
        self._model = _load(path, about).to(self._device)
        self._transform = evaluation_transform(about.data_config)
        # In levels of 0 to 255, as timm's loader normalises.
        self._mean = _per_channel(about.data_config["mean"], self._device)
        self._std = _per_channel(about.data_config["std"], self._device)

    @torch.inference_mode()
    def predict(self, images: Sequence[Image.Image]) -> list[Prediction]:
        """Return the score of each class, for any number of RGB images of any sizes."""
        found: list[Prediction] = []
        for begin in range(0, len(images), BATCH_SIZE):
            logits = self._logits(images[begin : begin + BATCH_SIZE])
            scores = logits.sigmoid() if self.multi_label else logits.softmax(1)
            found += [Prediction(scores=row) for row in scores.cpu().numpy().astype(np.float32)]
        return found

    def network(self) -> Network:
        """Return the model, which takes a normalised batch and gives logits."""
        config = self._about.data_config
        generator = torch.Generator().manual_seed(0)
        return Network(
            module=_Logits(deepcopy(self._model).cpu().float()).eval(),
            example=torch.randn(2, *config["input_size"], generator=generator),
            outputs=("logits",),
            preprocessing={
                "size": list(config["input_size"]),  # channels, height, width
                "mean": list(
                    config["mean"]
                ),  # of values from 0 to 1, in the order red, green, blue
                "std": list(config["std"]),
                "interpolation": config["interpolation"],
                # The shorter side is resized to size / crop_pct, then the centre is cropped.
                "crop_pct": config["crop_pct"],
                "crop_mode": config["crop_mode"],
                "activation": "sigmoid" if self.multi_label else "softmax",  # logits to scores
            },
        )

    def _logits(self, images: Sequence[Image.Image]) -> torch.Tensor:
        batch = torch.stack([self._transform(image.convert("RGB")) for image in images])
        normalised = batch.to(self._device).float().sub_(self._mean).div_(self._std)
        return first_output(self._model(normalised)).float()


class _Logits(torch.nn.Module):
    """A model without what some give besides."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return first_output(self.model(images))


def _load(path: Path, about: About) -> torch.nn.Module:
    check_name(about.model_name)
    try:
        model: torch.nn.Module = timm.create_model(
            about.model_name,
            num_classes=len(about.classes),
            exportable=True,
            **about.model_arguments,
        )
        model.load_state_dict(read_weights(path))
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise TrainingError(
            ErrorKind.CHECKPOINT_INVALID,
            f"'{path}' cannot be loaded into {about.model_name} of timm {timm.__version__}: "
            f"{str(error).strip().splitlines()[0]}",
            hint=f"It was made with timm {about.versions.get('timm')}.",
        ) from error
    return model.eval()


def _per_channel(values: Any, device: torch.device) -> torch.Tensor:
    return torch.tensor([x * 255 for x in values], device=device).view(1, -1, 1, 1)
