"""Run-length encoded masks as COCO writes them: runs of zeros and ones in turn, down the columns.

The compressed form packs each run's length into characters of 6 bits: 5 of value and one that
says that more follow; from the third run on it is the difference to the run before the last.
See the COCO API's description of 'maskApi'.

Decoded here and not by the COCO API, whose code in C trusts what it is given.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_MAX_GROUPS = 8  # of 5 bits: no run is longer than 2**40


def decode_rle(counts: str | Sequence[int], *, height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask (height, width). Raises ValueError where the runs do not fill it exactly."""
    runs = _unpacked(counts) if isinstance(counts, str) else list(counts)
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f"its runs do not add up to {height} × {width} pixels")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape((width, height)).T


def _unpacked(text: str) -> list[int]:
    runs: list[int] = []
    value = groups = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or groups >= _MAX_GROUPS:
            raise ValueError("its text is not of the form that COCO packs runs into")
        value |= (bits & 31) << (5 * groups)
        groups += 1
        if bits & 32:
            continue
        if bits & 16:  # the sign of the last group
            value -= 1 << (5 * groups)
        if len(runs) > 2:
            value += runs[-2]
        runs.append(value)
        value = groups = 0
    if groups:
        raise ValueError("its text ends within a run")
    return runs
