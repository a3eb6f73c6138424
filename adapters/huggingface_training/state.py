"""Where a training is, kept in ``last.pth`` so that it goes on as if it had never stopped.

The Trainer's own checkpoints are a folder of files that are written one after another; one file
that is renamed into place is whole or not there. It is read without unpickling objects.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers

from adapters.checkpoints import load_own_checkpoint, save_checkpoint
from adapters.contract import Reporter
from adapters.files import write_atomically
from adapters.huggingface_training.build import Parts
from adapters.huggingface_training.plan import Plan
from adapters.place import Place

FORMAT = "modelyard-huggingface-1"
LAST = "last.pth"
BEST = "best"  # a folder that from_pretrained() reads


def save_last(
    path: Path,
    *,
    plan: Plan,
    parts: Parts,
    place: Place,
    optimizer: Any,
    scheduler: Any,
    scaler: Any,
) -> None:
    """Write all that an exact continuation needs; random states are not among it."""
    state = {
        "identity": plan.identity,
        "versions": versions(),
        "precision": plan.precision,
        "device": plan.device.type,
        "ranks": plan.rank.total,
        "threads": torch.get_num_threads(),
        "chosen_batch_size": plan.batch_size,
        "place": dataclasses.asdict(place),
        "config": parts.model.config.to_json_string(use_diff=False),
        "processor": parts.processor.to_json_string(),
        "model": parts.model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "scaler": scaler.state_dict() if scaler is not None else None,
        "ema": parts.ema.model.state_dict() if parts.ema else None,
    }
    save_checkpoint(path, state, format=FORMAT)


def read_last(path: Path, *, plan: Plan, reporter: Reporter) -> dict[str, Any]:
    """Read a checkpoint of this very job.

    Raises TrainingError(CHECKPOINT_INVALID) where it is of another job or of other data.
    """
    return load_own_checkpoint(
        path, format=FORMAT, identity=plan.identity, versions=versions(), log=reporter.log
    )


def save_best(folder: Path, *, parts: Parts) -> list[Path]:
    """Write the validated model so that ``from_pretrained(folder)`` reads it; return its files.

    Only the weights change from one best epoch to the next, so files replaced one by one are a
    whole model at any moment.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".best-", dir=folder.parent) as scratch:
        parts.evaluated.save_pretrained(scratch, max_shard_size="1000GB")
        parts.processor.save_pretrained(scratch)
        written = []
        for made in sorted(Path(scratch).iterdir()):
            target = folder / made.name
            content = made.read_bytes() if made.suffix == ".json" else None
            if content is None or not target.is_file() or target.read_bytes() != content:
                with made.open("rb") as source:
                    write_atomically(target, lambda stream, source=source: _copy(source, stream))  # type: ignore[misc]
            written.append(target)
    return written


def _copy(source: Any, stream: Any) -> None:
    while chunk := source.read(1 << 20):
        stream.write(chunk)


def trainer_state(place: Place) -> str:
    """Return what the Trainer reads of a checkpoint to know where it goes on."""
    return json.dumps({"global_step": place.updates, "train_batch_size": 1})


def versions() -> dict[str, str]:
    return {"transformers": str(transformers.__version__), "torch": str(torch.__version__)}
