"""Pretrained YOLO weights: found in the weights folder, or fetched where there is a network."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from inspect import signature
from pathlib import Path
from typing import Any, BinaryIO

import torch

import adapters.ultralytics_training.offline  # noqa: F401
from adapters.contract import ErrorKind, TrainingError, TrainingJob
from adapters.weights import find_weights, weights_file_name

# isort: split
from ultralytics.nn.tasks import torch_safe_load
from ultralytics.utils.downloads import (
    GITHUB_ASSETS_NAMES,
    GITHUB_ASSETS_REPO,
    attempt_download_asset,
)
from ultralytics.utils.torch_utils import intersect_dicts

_RELEASE = signature(attempt_download_asset).parameters["release"].default
ASSETS_URL = f"https://github.com/{GITHUB_ASSETS_REPO}/releases/download/{_RELEASE}"

CONNECT_SECONDS = 10.0  # also the longest silence of a server
DOWNLOAD_SECONDS = 600.0
_CHUNK_BYTES = 1 << 18


def is_published(model_name: str) -> bool:
    """Return whether Ultralytics publishes weights for a model."""
    return f"{model_name}.pt" in GITHUB_ASSETS_NAMES


def pretrained_file(job: TrainingJob, *, still_wanted: Callable[[], None]) -> Path:
    """Return the file of a job's pretrained weights, fetching it where the folder has none.

    ``still_wanted`` is called as the file arrives and may raise. Raises TrainingError naming the
    file and its folder where the weights cannot be had.
    """
    assert job.weights_dir is not None
    assert job.output_dir is not None
    found = find_weights(job.weights_dir, "ultralytics", job.model_name)
    if found is not None:
        return found
    wanted = job.weights_dir / weights_file_name("ultralytics", job.model_name)
    if not is_published(job.model_name):
        raise _missing(wanted, reason=f"Ultralytics publishes none for '{job.model_name}'")
    target = wanted if _writable(wanted.parent) else job.output_dir / wanted.name
    try:
        _download(f"{ASSETS_URL}/{wanted.name}", target, still_wanted=still_wanted)
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise _missing(wanted, reason=f"they could not be fetched ({reason})") from error
    return target


def initial_file(job: TrainingJob) -> Path:
    """Return the best weights of the job that another begins with."""
    assert job.initial_dir is not None
    path = job.initial_dir / "checkpoints" / "best.pt"
    if not path.is_file():
        message = f"job {job.initial_job_id}, which this one begins with, has left no best.pt"
        hint = "Begin with a job that has trained an epoch on this worker's storage."
        raise TrainingError(ErrorKind.WEIGHTS_MISSING, message, hint=hint)
    return path


def load_checkpoint_file(path: Path) -> dict[str, Any]:
    """Read an Ultralytics .pt file without running code that it may hold.

    The format is a pickle of the whole model. It is read with torch's ``weights_only`` and the
    library's list of known model classes; anything else in it raises TrainingError.
    """
    try:
        checkpoint, _ = torch_safe_load(path, safe_only=True)
    except (TypeError, RuntimeError, ValueError, ModuleNotFoundError, AttributeError) as error:
        message = f"'{path.name}' cannot be read as an Ultralytics checkpoint: {error}"
        raise TrainingError(ErrorKind.CHECKPOINT_INVALID, message, hint=_REPLACE_HINT) from error
    if not isinstance(checkpoint, dict) or checkpoint.get("modelopt"):
        # 'modelopt' would have Ultralytics import and run a package for quantized models.
        message = f"'{path.name}' is not a plain Ultralytics checkpoint"
        raise TrainingError(ErrorKind.CHECKPOINT_INVALID, message, hint=_REPLACE_HINT)
    return checkpoint


_REPLACE_HINT = "Put an official or Modelyard checkpoint of the model in its place."


def load_pretrained(path: Path, model: torch.nn.Module) -> torch.nn.Module:
    """Return the weights of a file as the module it holds, checked to be of the same model."""
    checkpoint = load_checkpoint_file(path)
    weights = checkpoint.get("ema") or checkpoint.get("model")
    if not isinstance(weights, torch.nn.Module):
        message = f"'{path.name}' holds no model"
        raise TrainingError(ErrorKind.CHECKPOINT_INVALID, message, hint=_REPLACE_HINT)
    own = model.state_dict()
    shared = intersect_dicts(weights.float().state_dict(), own)
    # Heads differ with the number of classes; a backbone that differs is another model, and
    # would leave the rest at random.
    if len(shared) < len(own) / 2:
        message = f"'{path.name}' holds the weights of another model: {len(shared)} of {len(own)}"
        raise TrainingError(
            ErrorKind.CHECKPOINT_INVALID, f"{message} tensors fit", hint=_REPLACE_HINT
        )
    return weights


def _missing(wanted: Path, *, reason: str) -> TrainingError:
    return TrainingError(
        ErrorKind.WEIGHTS_MISSING,
        f"Pretrained weights are not there and {reason}: put the file '{wanted.name}' into "
        f"the folder '{wanted.parent}'.",
        hint=f"Put '{wanted.name}' into '{wanted.parent}', or start without pretrained weights.",
    )


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _download(url: str, target: Path, *, still_wanted: Callable[[], None]) -> None:
    """Fetch a file to a temporary name beside its target, within a bounded time."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    try:
        with (
            urllib.request.urlopen(url, timeout=CONNECT_SECONDS) as response,  # noqa: S310
            temporary.open("wb") as file,
        ):
            expected = int(response.headers.get("Content-Length") or 0)
            received = _copy(response, file, deadline=deadline, still_wanted=still_wanted)
        if expected and received != expected:
            raise ConnectionError(f"{received} of {expected} bytes arrived")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _copy(source: Any, file: BinaryIO, *, deadline: float, still_wanted: Callable[[], None]) -> int:
    received = 0
    while chunk := source.read(_CHUNK_BYTES):
        still_wanted()
        if time.monotonic() > deadline:
            raise TimeoutError(f"not here after {DOWNLOAD_SECONDS:.0f} s")
        received += file.write(chunk)
    return received
