"""Checkpoints of YOLO training: the library's own format, with what an exact continuation needs.

``best.pt`` is what Ultralytics leaves after a training: the averaged model in float16, ready for
``YOLO('best.pt')``. ``last.pt`` can be loaded so too, and holds in addition, at full precision,
the model, its average, the optimizer, the random states, the loader's place and the best epoch.
Both appear under their names only when they are whole.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import adapters.ultralytics_training.offline  # noqa: F401
from adapters.checkpoints import write_atomically
from adapters.contract import ErrorKind, TrainingError
from adapters.ultralytics_training.weights import load_checkpoint_file

# isort: split
from ultralytics import __version__
from ultralytics.utils.torch_utils import unwrap_model

STATE_KEY = "modelyard"
_NOTICE = "AGPL-3.0 License (https://ultralytics.com/license)"


def write_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that its name stands for a whole file at every moment."""
    write_atomically(path, lambda stream: torch.save(content, stream))


def read_state(path: Path) -> dict[str, Any]:
    """Read a last.pt that training can go on from.

    Raises TrainingError where the file is not one.
    """
    checkpoint = load_checkpoint_file(path)
    if not isinstance(checkpoint.get(STATE_KEY), dict):
        message = f"'{path.name}' lacks the state that training goes on from"
        hint = "Start the job anew, or put back the last.pt that Modelyard wrote."
        raise TrainingError(ErrorKind.CHECKPOINT_INVALID, message, hint=hint)
    return checkpoint


def inference_content(trainer: Any) -> dict[str, Any]:
    """Return what best.pt holds: the averaged model in float16 and where it comes from."""
    model = _snapshot(trainer.ema.ema).half()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            torch.nan_to_num_(tensor)  # what float16 cannot hold
    return {**_origin(trainer), "epoch": -1, "model": model, "ema": None, "optimizer": None}


def resumable_content(
    trainer: Any,
    *,
    epoch: int,
    batches: int = 0,
    losses: Mapping[str, float] | None = None,
    states: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what last.pt holds: the library's keys, and ours for an exact continuation.

    ``epoch`` is the last whole one, counted from 0, -1 where there is none; ``batches`` of the
    next were trained, with the mean ``losses``; ``states`` are those of the random generators,
    the present ones by default.
    """
    return {
        **_origin(trainer),
        "epoch": epoch,
        "best_fitness": trainer.best_fitness,
        "stopper": {
            "best_fitness": trainer.stopper.best_fitness,
            "best_epoch": trainer.stopper.best_epoch,
        },
        "model": None,
        "ema": _snapshot(trainer.ema.ema),
        "updates": trainer.ema.updates,
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        STATE_KEY: {
            "best": trainer.best_epoch.to_json() if trainer.best_epoch else None,
            "batches": batches,
            "losses": dict(losses or {}),
            "model": unwrap_model(trainer.model).state_dict(),
            "random": states or random_states(trainer.device),
            "mosaic_buffer": mosaic_buffer(trainer.train_loader),
        },
    }


def _snapshot(model: Any) -> Any:
    """Return a copy as it is stored: no loss function, memory in the usual order."""
    criterion, model.criterion = getattr(model, "criterion", None), None
    try:
        copy = deepcopy(model).to(memory_format=torch.contiguous_format)
    finally:
        model.criterion = criterion
    arguments = getattr(copy, "args", None)  # the library gives a classifier none
    if arguments is not None and not isinstance(arguments, dict):
        copy.args = dict(vars(arguments))
    return copy


def _origin(trainer: Any) -> dict[str, Any]:
    """Return where a checkpoint comes from. Ultralytics adds the state of the git checkout that
    it runs in; that is none of a model's business and left out."""
    return {
        "train_args": dict(vars(trainer.args)),
        "train_metrics": {**trainer.metrics, "fitness": trainer.fitness},
        "date": datetime.now(UTC).isoformat(),
        "version": __version__,
        "license": _NOTICE,
    }


def random_states(device: torch.device) -> dict[str, Any]:
    """Return the states of all random generators, in types that load without unpickling."""
    version, internal, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=True)
    _, keys, position, has_gauss, cached = numpy_state
    states: dict[str, Any] = {
        "python": [version, list(internal), gauss],
        "numpy": [torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Put back what :func:`random_states` returned."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    keys, *rest = states["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"].cpu())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)


def mosaic_buffer(loader: Any) -> list[int]:
    """Return the latest loaded images, which mosaic takes its others from.

    Empty where loader processes have buffers, and random states, of their own that nobody keeps,
    and for classification, which knows no mosaic.
    """
    return [] if loader.num_workers else list(getattr(loader.dataset, "buffer", ()))


def restore_mosaic_buffer(loader: Any, indices: list[int]) -> None:
    """Load what :func:`mosaic_buffer` told of, in the same order."""
    for index in indices:
        loader.dataset.load_image(index)
