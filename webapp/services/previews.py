"""Pictures of a data set with what its annotations say, made once for each content of it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import uuid
from pathlib import Path
from typing import Any

from adapters.contract import DatasetFormat, TaskType
from adapters.data.apart import preview_apart
from adapters.data.content import SplitRule
from adapters.data.description import DatasetError
from webapp.config import settings
from webapp.extensions import db
from webapp.models import Dataset
from webapp.services.errors import Invalid

logger = logging.getLogger(__name__)

CACHE_BYTES = 256 * 1024 * 1024
_FORM = "1"  # counts up where what a preview holds changes

_showing = threading.BoundedSemaphore(2)  # each opens dozens of images


def preview(dataset: Dataset, *, split: str, limit: int) -> list[dict[str, Any]]:
    """Return images of a split, see :mod:`adapters.data.preview`.

    Raises Invalid where there is no such split, or where the files are not what was looked at.
    """
    if split not in dataset.splits:
        listed = " or ".join(dataset.splits)
        raise Invalid({"split": [f"The data set has no split '{split}'; it has {listed}"]})
    kept = _cache() / f"{_key(dataset, split, limit)}.json"
    found = _read(kept)
    if found is None:
        found = _make(dataset, split=split, limit=limit)
        _write(kept, found)
    return found


def _make(dataset: Dataset, *, split: str, limit: int) -> list[dict[str, Any]]:
    path, format, task = Path(dataset.path), dataset.format, dataset.task_type
    rule = SplitRule(seed=dataset.split_seed, val_share=dataset.val_share)
    db.session.rollback()  # hold no connection meanwhile
    try:
        with _showing:
            return preview_apart(
                path,
                format=DatasetFormat(format),
                task_type=TaskType(task),
                split=split,
                limit=limit,
                split_rule=rule,
            )
    except DatasetError as error:
        raise Invalid({"path": [f"{error}; look at the data set again"]}) from None


def _key(dataset: Dataset, split: str, limit: int) -> str:
    """Return the name of what is kept: equal content gives equal pictures, wherever it lies."""
    facts = (
        _FORM,
        dataset.fingerprint,
        dataset.format,
        dataset.task_type,
        split,
        limit,
        dataset.split_seed,
        dataset.val_share,
    )
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:40]


def _cache() -> Path:
    return settings().home / "cache" / "previews"


def _read(kept: Path) -> list[dict[str, Any]] | None:
    try:
        found: list[dict[str, Any]] = json.loads(kept.read_bytes())
        os.utime(kept)  # used just now, for what is dropped first
    except (OSError, ValueError):
        return None
    return found


def _write(kept: Path, found: list[dict[str, Any]]) -> None:
    """Keep a preview, and drop the longest unused. A cache that cannot be written is none."""
    beside = kept.with_name(f"{kept.name}.{uuid.uuid4().hex}")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(json.dumps(found).encode())
        beside.replace(kept)
        _drop(kept.parent)
    except OSError as error:
        logger.warning("previews cannot be kept in %s: %s", kept.parent, error.strerror)


def _drop(folder: Path) -> None:
    with os.scandir(folder) as scan:
        entries = [(entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in scan]
    room = CACHE_BYTES
    for _, size, path in sorted(entries, reverse=True):
        room -= size
        if room < 0:
            Path(path).unlink(missing_ok=True)
