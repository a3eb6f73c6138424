"""Holding validation images out of a data set that comes without them.

The rule is stratified: the same share of each class, of which at least one image stays in train.
Within a class the images with the smallest hashes of seed and name are held out, so that the same
images are at each reading, on each machine, and a file that is added moves one other at most.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from adapters.data.content import Sample, SplitRule

_T = TypeVar("_T")


def hold_out(samples: Sequence[Sample], *, base: Path, rule: SplitRule) -> dict[str, list[Sample]]:
    """Return the splits train and val of samples whose classes are known.

    An image of several classes counts for the rarest of them.
    """
    frequency = Counter(label for sample in samples for label in sample.classes)

    def stratum(sample: Sample) -> int:
        return min(sample.classes, key=lambda label: (frequency[label], label), default=-1)

    def name(sample: Sample) -> str:
        return os.path.relpath(sample.image, base)

    train, val = split(samples, name=name, stratum=stratum, rule=rule)
    return {"train": train, "val": val}


def split(
    items: Sequence[_T],
    *,
    name: Callable[[_T], str],
    stratum: Callable[[_T], Hashable],
    rule: SplitRule,
) -> tuple[list[_T], list[_T]]:
    """Return the items that stay and those that are held out, both in the order given."""
    strata: dict[Hashable, list[int]] = {}
    for number, item in enumerate(items):
        strata.setdefault(stratum(item), []).append(number)
    order = [_rank(rule.seed, name(item)) for item in items]
    held: set[int] = set()
    for numbers in strata.values():
        held.update(_first(numbers, order, share=rule.val_share))
    if not held:  # a class an image: hold out of all of them together
        held.update(_first(range(len(items)), order, share=rule.val_share))
    return (
        [item for number, item in enumerate(items) if number not in held],
        [item for number, item in enumerate(items) if number in held],
    )


def _first(numbers: Iterable[int], order: Sequence[bytes], *, share: float) -> list[int]:
    ranked = sorted(numbers, key=order.__getitem__)
    count = min(len(ranked) - 1, max(1, round(len(ranked) * share)))
    return ranked[: max(0, count)]


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0".encode() + os.fsencode(name)).digest()
