"""What the store holds of a data set: shards, each a tar of many files, and a manifest of them.

    datasets/<fingerprint>/<sha256>.tar      shards; the name is the sum of the content
    datasets/<fingerprint>/manifest.json     written last: without it there is no copy

A hundred thousand small images are some dozen objects. A shard's name follows from its content, so
one that is put twice, by whomever, is the same object.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import Any, Self

from adapters.contract import DatasetFormat, TaskType
from adapters.data.content import SplitRule
from adapters.data.description import DatasetError

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 64 * 1024 * 1024
_VERSION = 1
_SHA256 = re.compile("[0-9a-f]{64}")


class ManifestError(DatasetError):
    """A manifest that has not the form that this version writes."""


@dataclass(frozen=True)
class Shard:
    sha256: str  # of the tar
    size: int  # of the tar, in bytes
    files: int
    content_bytes: int  # of the files in it

    @property
    def name(self) -> str:
        return f"{self.sha256}.tar"


@dataclass(frozen=True)
class Manifest:
    """A copy, and how its fingerprint was taken."""

    fingerprint: str
    format: DatasetFormat
    task_type: TaskType
    split_rule: SplitRule
    entry: str  # what is named of it, in its folder: '' is the folder, else its yaml or JSON file
    folders: tuple[str, ...]  # that are there, even if no file is in them
    shards: tuple[Shard, ...]

    @property
    def files(self) -> int:
        return sum(shard.files for shard in self.shards)

    @property
    def content_bytes(self) -> int:
        return sum(shard.content_bytes for shard in self.shards)

    @property
    def stored_bytes(self) -> int:
        return sum(shard.size for shard in self.shards)

    def to_json(self) -> bytes:
        return json.dumps({"version": _VERSION, **dataclasses.asdict(self)}).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Read a manifest. Raises ManifestError."""
        try:
            raw = json.loads(text)
            if raw.pop("version") != _VERSION:
                raise ManifestError("the manifest is of another version of Modelyard")
            return cls(
                fingerprint=_sum(raw["fingerprint"]),
                format=DatasetFormat(raw["format"]),
                task_type=TaskType(raw["task_type"]),
                split_rule=SplitRule(
                    seed=int(raw["split_rule"]["seed"]),
                    val_share=float(raw["split_rule"]["val_share"]),
                ),
                entry=_entry(raw["entry"]),
                folders=tuple(map(str, raw["folders"])),
                shards=tuple(map(_shard, raw["shards"])),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as failure:
            raise ManifestError(f"the manifest cannot be read: {failure!r}") from failure


def dataset_prefix(fingerprint: str) -> str:
    """Return where the store holds a data set. Raises ManifestError: it is no fingerprint."""
    return f"datasets/{_sum(fingerprint)}"


def manifest_key(fingerprint: str) -> str:
    return f"{dataset_prefix(fingerprint)}/{MANIFEST}"


def shard_key(fingerprint: str, shard: Shard) -> str:
    return f"{dataset_prefix(fingerprint)}/{shard.name}"


def _sum(text: Any) -> str:
    if not isinstance(text, str) or not _SHA256.fullmatch(text):
        raise ManifestError("a fingerprint is 64 hexadecimal digits")
    return text


def _entry(text: Any) -> str:
    if not isinstance(text, str) or "/" in text or "\0" in text or text in (".", ".."):
        raise ManifestError("the manifest names no file in the data set's folder")
    return text


def _shard(raw: dict[str, Any]) -> Shard:
    shard = Shard(
        _sum(raw["sha256"]), int(raw["size"]), int(raw["files"]), int(raw["content_bytes"])
    )
    if min(shard.size, shard.files, shard.content_bytes) < 0:
        raise ManifestError("the manifest has a size below zero")
    return shard
