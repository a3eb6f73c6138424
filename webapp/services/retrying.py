"""What becomes of a job whose attempt failed: tried again, or failed for a person to act.

A pure decision, so that its test is a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters.contract import ErrorKind

# Failures of the machine or the moment, which another attempt, perhaps elsewhere, need not meet.
# Everything else is the same the next time: the data, the disk, the weights, the numbers, the code.
RETRIED = frozenset(
    {
        ErrorKind.CHILD_DIED,
        ErrorKind.DEVICE,
        ErrorKind.STALLED,
        ErrorKind.STORAGE,
        ErrorKind.DATASET_COPY,
    }
)


@dataclass(frozen=True)
class Failure:
    """A failed attempt as the next one's judge sees it: its kind and the last step it told of."""

    kind: str
    epoch: int | None = None
    step: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "epoch": self.epoch, "step": self.step}

    def __str__(self) -> str:
        return f"epoch {self.epoch}, step {self.step}" if self.epoch else "before the first step"


@dataclass(frozen=True)
class Verdict:
    retry: bool
    reason: str  # why not, or that it is tried again; empty where there was no question of it


def judge(failure: Failure, *, previous: Failure | None, lost: int, limit: int) -> Verdict:
    """Decide on a failure; ``lost`` attempts were lost with this one, ``limit`` may be."""
    if failure.kind not in RETRIED:
        return Verdict(False, "")
    if failure == previous:
        return Verdict(False, f"it failed the same way at the same place twice ({failure})")
    if lost >= limit:
        return Verdict(False, limit_reached(lost, limit))
    return Verdict(True, f"tried again after a failure ({failure})")


def limit_reached(lost: int, limit: int) -> str:
    """Return that as many attempts were lost as may be."""
    were = "1 attempt was" if lost == 1 else f"{lost} attempts were"
    return f"{were} lost, the limit is {limit}"


def failure_of(error: Mapping[str, Any], progress: Mapping[str, Any] | None) -> Failure:
    """Return the failure that an attempt's error and last progress tell of."""
    place = progress or {}
    return Failure(str(error.get("kind", "")), place.get("epoch"), place.get("step"))
