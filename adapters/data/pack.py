"""Packing a data set into shards, and proving that a copy is what was packed.

:func:`pack` reads what strangers made: a server calls :func:`adapters.data.pack_apart.pack_apart`,
which does the same in a process of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from adapters.contract import DatasetFormat, TaskType
from adapters.data.content import Content, SplitRule
from adapters.data.description import DatasetError
from adapters.data.fingerprint import begun_fingerprint
from adapters.data.manifest import Manifest
from adapters.data.parts import parts_of, relative
from adapters.data.reading import scan
from adapters.data.roots import unreadable_as_dataset_error
from adapters.data.shards import SHARD_BYTES, ShardWriter, open_inside

Progress = Callable[[int, int], None]  # images packed or looked at, and in all


class DatasetChanged(DatasetError):
    """A data set is not (any more) what its fingerprint says."""


def pack(
    path: Path,
    into: Path,
    *,
    fingerprint: str,
    format: DatasetFormat,
    task_type: TaskType,
    split_rule: SplitRule,
    shard_bytes: int = SHARD_BYTES,
    before_shard: Callable[[], None] = lambda: None,
    progress: Progress = lambda done, total: None,
) -> Manifest:
    """Write the shards of a data set into a folder and return their manifest.

    The fingerprint is taken from the bytes that are packed. Raises DatasetChanged where it is
    not the one given, DatasetError where something cannot be read.
    """
    with unreadable_as_dataset_error(path):
        content = scan(path, format=format, task_type=task_type, split_rule=split_rule)
        shards = ShardWriter(into, shard_bytes=shard_bytes, before_shard=before_shard)
        packing = _Packing(path, content, shards, progress)
        if packing.run() != fingerprint:
            raise DatasetChanged("it has changed since it was checked; validate it again")
    return Manifest(
        fingerprint=fingerprint,
        format=format,
        task_type=task_type,
        split_rule=split_rule,
        entry="" if path.is_dir() else path.name,
        folders=packing.folders,
        shards=tuple(shards.shards),
    )


def verify(folder: Path, manifest: Manifest, *, progress: Progress) -> None:
    """Read a copy and raise DatasetChanged where it is not what its manifest says."""
    path = folder / manifest.entry
    with unreadable_as_dataset_error(path):
        content = scan(
            path,
            format=manifest.format,
            task_type=manifest.task_type,
            split_rule=manifest.split_rule,
        )
        fingerprint = begun_fingerprint(content)
        total, done = sum(map(len, content.splits.values())), 0
        for split, samples in content.splits.items():
            for sample in samples:
                with sample.image.open("rb") as file:
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                annotation = content.check(sample, size=None)
                fingerprint.add(split, sample.image, sha256, annotation.sha256)
                done += 1
                progress(done, total)
    if fingerprint.result() != manifest.fingerprint:
        raise DatasetChanged("the copy in the store is not the data set that it should be")


class _Packing:
    """Packs each file of a data set once, and takes its fingerprint on the way."""

    def __init__(
        self, path: Path, content: Content, shards: ShardWriter, progress: Progress
    ) -> None:
        self._content = content
        self._parts = parts_of(path, content)
        self._shards = shards
        self._progress = progress
        self._packed: dict[str, str] = {}  # name: sha256
        self.folders = self._parts.folders

    def run(self) -> str:
        """Pack everything and return the fingerprint."""
        content = self._content
        fingerprint = begun_fingerprint(content)
        for name, document in self._parts.documents.items():
            self._packed[name] = self._shards.add_bytes(name, document)
        for file in self._parts.files:
            self._add(file)
        total, done = sum(map(len, content.splits.values())), 0
        for split, samples in content.splits.items():
            for sample in samples:
                sha256 = self._add(sample.image)
                if isinstance(sample.key, Path):  # a label file or a mask
                    self._add(sample.key)
                annotation = content.check(sample, size=None)
                fingerprint.add(split, sample.image, sha256, annotation.sha256)
                done += 1
                self._progress(done, total)
        for image in self._parts.others:
            self._add(image)
        self._shards.close()
        return fingerprint.result()

    def _add(self, path: Path) -> str:
        name = relative(path, self._content.path)
        known = self._packed.get(name)
        if known is not None:
            return known
        file, size = open_inside(path, self._content.path)
        with file:
            sha256 = self._packed[name] = self._shards.add(name, file, size=size)
        return sha256
