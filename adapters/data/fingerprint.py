"""A hash over what a data set holds, so that two jobs are known to have seen the same data."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.contract import DatasetFormat

if TYPE_CHECKING:
    from adapters.data.content import Content


class Fingerprint:
    """Hashes facts in the order in which they are added.

    Paths are taken relative to the data set: a copy elsewhere has the same fingerprint.
    """

    def __init__(self, base: Path) -> None:
        self._base = base
        self._hash = hashlib.sha256()

    def add(self, *facts: str | Path) -> None:
        for fact in facts:
            if isinstance(fact, Path):
                content = os.fsencode(os.path.relpath(fact, self._base))
            else:
                content = fact.encode("utf-8")
            # With its length before it, no fact can be mistaken for two.
            self._hash.update(len(content).to_bytes(8, "big") + content)

    def result(self) -> str:
        return self._hash.hexdigest()


def begun_fingerprint(content: Content) -> Fingerprint:
    """Return a fingerprint to which a data set's samples are still to be added, split by split.

    Of each, its split, its image, the image's sha256 and that of its annotation.
    """
    fingerprint = Fingerprint(content.path)
    fingerprint.add(content.format, *content.classes)
    if content.keypoints is not None:
        fingerprint.add(str(content.keypoints))
    if content.format == DatasetFormat.IMAGEFOLDER and content.multi_label:
        fingerprint.add("multi_label")  # also where its labels.csv says what the folders would
    for path in content.other_annotations():
        with path.open("rb") as file:
            fingerprint.add(path, hashlib.file_digest(file, "sha256").hexdigest())
    return fingerprint
