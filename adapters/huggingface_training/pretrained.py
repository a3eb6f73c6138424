"""Published weights: from the weights folder, else downloaded into it, else a clear refusal.

A model's folder, ``<weights folder>/huggingface/<name>/``, holds ``model.safetensors`` and, as
data, the ``config.json`` and ``preprocessor_config.json`` that were published with it. A job that
asked for pretrained weights never trains on random ones.
"""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, BinaryIO

from adapters.contract import ErrorKind, Reporter, StopReason, TrainingError, TrainingJob
from adapters.files import write_atomically
from adapters.huggingface_training.zoo import ModelSpec

BASE_URL = "https://huggingface.co"
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
# Between two bytes, not for the whole file; a person waits for this answer, so there is one try.
DOWNLOAD_TIMEOUT_SECONDS = 10.0
LARGEST_WEIGHTS = 20 * 1024**3
LARGEST_JSON = 8 * 1024**2
_CHUNK = 1 << 20


class StoppedMeanwhile(Exception):
    """Somebody asked to stop while weights were fetched."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(str(reason))
        self.reason = reason


@dataclass(frozen=True)
class Weights:
    """Trained weights on the disk, and what was said of them."""

    folder: Path
    config: Mapping[str, Any] | None
    preprocessor: Mapping[str, Any] | None


def pretrained_weights(job: TrainingJob, spec: ModelSpec, reporter: Reporter) -> Weights:
    """Return a model's published weights, downloading them where they are not there yet.

    Raises TrainingError(WEIGHTS_MISSING) where they are neither there nor to be had.
    """
    if job.weights_dir is None:
        raise _missing(spec, Path("<weights folder>"), "this worker has no weights folder")
    folder = job.weights_dir / "huggingface" / spec.name
    if not (folder / WEIGHTS).is_file():
        if spec.hub is None:
            raise TrainingError(
                ErrorKind.WEIGHTS_MISSING,
                f"nobody publishes pretrained weights of {spec.name}",
                hint=f"Start it with pretrained off, or put weights of your own at "
                f"{folder / WEIGHTS}.",
            )
        _download(spec, folder, reporter)
    reporter.log(f"pretrained weights: {folder / WEIGHTS}")
    return read_weights(folder)


def read_weights(folder: Path) -> Weights:
    """Return the weights of a folder with what its descriptions say."""
    return Weights(
        folder=folder,
        config=_description(folder / CONFIG),
        preprocessor=_description(folder / PREPROCESSOR),
    )


def _description(path: Path) -> Mapping[str, Any] | None:
    """Return a JSON object, None where there is no file."""
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError("it is too large")
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        found = error
    if not isinstance(found, dict):
        raise TrainingError(
            ErrorKind.CHECKPOINT_INVALID,
            f"'{path}' is not the description of a model",
            hint="Replace it by the file that was published with the weights, or remove it.",
        )
    return found


def _download(spec: ModelSpec, folder: Path, reporter: Reporter) -> None:
    """Fetch a model's files. Raises TrainingError(WEIGHTS_MISSING)."""
    reporter.log(f"downloading pretrained weights of {spec.name} from '{spec.hub}'")
    # The weights last: where they are, the descriptions are, too.
    for name, limit in ((CONFIG, LARGEST_JSON), (PREPROCESSOR, LARGEST_JSON), (WEIGHTS, None)):
        try:
            with _open(f"{BASE_URL}/{spec.hub}/resolve/{spec.revision}/{name}") as response:
                copy = partial(_copy, response, limit=limit or LARGEST_WEIGHTS, reporter=reporter)
                write_atomically(folder / name, copy)
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.NOT_FOUND and name == PREPROCESSOR:
                continue  # older models came without
            reason = f"downloading '{name}' failed ({error})"
            if error.code == HTTPStatus.NOT_FOUND and name == WEIGHTS:
                reason = "its authors publish none in the format safetensors, the only one read"
            raise _missing(spec, folder, reason) from error
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            told = getattr(error, "reason", None) or error
            raise _missing(spec, folder, f"downloading '{name}' failed ({told})") from error
        except PermissionError as error:
            reason = f"{folder} cannot be written: {error.strerror}"
            raise _missing(spec, folder, reason) from error


def _open(url: str) -> contextlib.closing[HTTPResponse]:
    request = urllib.request.Request(url, headers={"User-Agent": "modelyard"})  # noqa: S310
    # The address is made from our own table, never from what a person sent.
    return contextlib.closing(
        urllib.request.urlopen(request, timeout=DOWNLOAD_TIMEOUT_SECONDS)  # noqa: S310
    )


def _copy(response: HTTPResponse, stream: BinaryIO, *, limit: int, reporter: Reporter) -> None:
    """Copy a download of at most ``limit`` bytes; half a file must not pass for a whole one."""
    while chunk := response.read(_CHUNK):
        stream.write(chunk)
        if stream.tell() > limit:
            raise ConnectionError(f"it has more than {limit:,} bytes")
        stop = reporter.should_stop()
        if stop is not None and stop != StopReason.AFTER_EPOCH:
            raise StoppedMeanwhile(stop)
    expected = response.headers.get("Content-Length")
    if expected is not None and stream.tell() != int(expected):
        raise ConnectionError(f"it broke off after {stream.tell()} of {expected} bytes")


def _missing(spec: ModelSpec, folder: Path, reason: str) -> TrainingError:
    revision = "" if spec.revision == "main" else f", revision '{spec.revision}'"
    return TrainingError(
        ErrorKind.WEIGHTS_MISSING,
        f"no pretrained weights of {spec.name} at {folder / WEIGHTS}, and {reason}",
        hint=f"Put the files '{WEIGHTS}', '{CONFIG}' and '{PREPROCESSOR}' of '{spec.hub}' "
        f"(Hugging Face hub{revision}) into {folder} on the worker, or start the job with "
        "pretrained off.",
    )
