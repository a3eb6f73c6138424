"""Pretrained weights: from the weights folder, else downloaded into it, else a clear refusal.

A job that asked for pretrained weights never trains on random ones: what cannot be found, fetched
or fully loaded ends the attempt with a sentence that says which file to put where.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import urllib.error
import urllib.request
from functools import partial
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, BinaryIO

import torch
from huggingface_hub import hf_hub_url
from timm.models import get_pretrained_cfg

from adapters.checkpoints import write_atomically
from adapters.contract import ErrorKind, Reporter, TrainingError, TrainingJob
from adapters.weights import find_weights, weights_file_name

log = logging.getLogger(__name__)

# Between two bytes, not for the whole file. The hub's own client tries for 46 s on a machine
# without a network; a person waits for this answer, so there is one try.
DOWNLOAD_TIMEOUT_SECONDS = 10.0
_LARGEST_NEW_SHARE = 0.25  # of all parameters; a small model with many classes has a large head
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def pretrained_file(job: TrainingJob, reporter: Reporter) -> Path:
    """Return the file of a job's pretrained weights, downloading it where it is not there yet.

    Raises TrainingError(WEIGHTS_MISSING) where it is neither there nor to be had.
    """
    if job.weights_dir is None:
        raise _missing(job, Path("<weights folder>"), reason="this worker has no weights folder")
    found = find_weights(job.weights_dir, "timm", job.model_name)
    if found is not None:
        reporter.log(f"pretrained weights: {found}")
        return found
    target = job.weights_dir / weights_file_name("timm", job.model_name)
    config = get_pretrained_cfg(job.model_name)
    if config is None or not config.has_weights:
        raise TrainingError(
            ErrorKind.WEIGHTS_MISSING,
            f"nobody publishes pretrained weights of {job.model_name}",
            hint=f"Start it with pretrained off, or put weights of your own at {target}.",
        )
    return _download(job, target, config=config, reporter=reporter)


def _download(job: TrainingJob, target: Path, *, config: Any, reporter: Reporter) -> Path:
    """Fetch weights into the weights folder. Raises TrainingError(WEIGHTS_MISSING)."""
    if not config.hf_hub_id:
        raise _missing(job, target, reason="they are published in a form that has to be converted")
    names = (config.hf_hub_filename,) if config.hf_hub_filename else _HUB_FILES
    reporter.log(f"downloading pretrained weights of {job.model_name} from '{config.hf_hub_id}'")
    reason: object = "nothing was tried"
    for name in names:
        kept = target.with_name(target.name.removesuffix(target.suffix) + Path(name).suffix)
        try:
            with _open(hf_hub_url(config.hf_hub_id, name)) as response:
                write_atomically(kept, partial(_copy_whole, response))
        except urllib.error.HTTPError as error:
            reason = error
            if error.code == HTTPStatus.NOT_FOUND:
                continue  # older models are published as the next name
            break
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", None) or error
            break
        except PermissionError as error:
            reason = f"{kept.parent} cannot be written: {error.strerror}"
            break
        reporter.log(f"pretrained weights kept as {kept}")
        return kept
    raise _missing(job, target, reason=f"downloading them failed ({reason})")


def _open(url: str) -> contextlib.closing[HTTPResponse]:
    request = urllib.request.Request(url, headers={"User-Agent": "modelyard"})  # noqa: S310
    # The address is made from timm's own table, never from what a person sent.
    return contextlib.closing(
        urllib.request.urlopen(request, timeout=DOWNLOAD_TIMEOUT_SECONDS)  # noqa: S310
    )


def _copy_whole(response: HTTPResponse, stream: BinaryIO) -> None:
    """Copy a download; half a file must not pass for a whole one."""
    shutil.copyfileobj(response, stream, length=1 << 20)
    expected = response.headers.get("Content-Length")
    if expected is not None and stream.tell() != int(expected):
        raise ConnectionError(f"it broke off after {stream.tell()} of {expected} bytes")


def _missing(job: TrainingJob, target: Path, *, reason: str) -> TrainingError:
    config = get_pretrained_cfg(job.model_name)
    source = getattr(config, "hf_hub_id", None) or getattr(config, "url", None) or "its authors"
    file_name = getattr(config, "hf_hub_filename", None) or _HUB_FILES[0]
    return TrainingError(
        ErrorKind.WEIGHTS_MISSING,
        f"no pretrained weights of {job.model_name} at {target}, and {reason}",
        hint=f"Put the file '{file_name}' of '{source}' (Hugging Face hub) at {target} "
        "on the worker, or start the job with pretrained off.",
    )


def check_loaded(
    model: torch.nn.Module, untrained: torch.nn.Module, *, file: Path, reporter: Reporter
) -> None:
    """Refuse a model whose weights are still what the random initialisation made them.

    timm loads what fits by name and passes over the rest when the number of classes differs, so a
    file of another model would leave random weights behind in silence. The classifier is meant to
    be new, and a few models add a layer that their authors' files lack; such is told in the log.
    """
    fresh = dict(untrained.named_parameters())
    same = {
        name: parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.ndim > 1 and parameter.std() > 0 and torch.equal(parameter, fresh[name])
    }
    names = ", ".join(list(same)[:3]) + (", …" if len(same) > 3 else "")
    total = sum(parameter.numel() for parameter in model.parameters())
    if sum(same.values()) > _LARGEST_NEW_SHARE * total:
        raise TrainingError(
            ErrorKind.CHECKPOINT_INVALID,
            f"weights file '{file}' lacks {len(same)} of the model's weights: {names}",
            hint="It seems to belong to another model; replace the file.",
        )
    reporter.log(f"weights that begin at random, not in the file: {names or 'none'}")
