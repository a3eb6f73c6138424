"""A hash over what a data set holds, so that two jobs are known to have seen the same data."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


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
