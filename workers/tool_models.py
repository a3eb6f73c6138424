"""Trained models that were used lately, kept loaded as long as they fit into memory."""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable

import psutil

from adapters import get_adapter
from adapters.contract import ContractError, TrainingJob
from adapters.prediction import Predictor

BUDGET_BYTES = 1_500_000_000
MOST = 8

Key = tuple[int, int, int]  # job, attempt, and when its checkpoints were last written


class Models:
    """Loads models of jobs; lets go of those that were used the longest ago."""

    def __init__(
        self,
        *,
        load: Callable[[TrainingJob], Predictor] | None = None,
        memory: Callable[[], int] | None = None,
        budget_bytes: int = BUDGET_BYTES,
    ) -> None:
        self._load = load or (lambda job: get_adapter(job.framework).load(job))
        self._memory = memory or (lambda: psutil.Process().memory_info().rss)
        self._budget = budget_bytes
        self._kept: OrderedDict[Key, tuple[Predictor, int]] = OrderedDict()

    def get(self, job: TrainingJob) -> Predictor:
        """Return a placed job's best model, loaded. Raises TrainingError where there is none."""
        key = (job.id, job.attempt, _written_at(job))
        if key not in self._kept:
            before = self._memory()
            predictor = self._load(job)
            # How much it grew by is what can be known of any framework's model.
            self._kept[key] = predictor, max(self._memory() - before, 0)
            self._make_room()
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def __len__(self) -> int:
        return len(self._kept)

    def _make_room(self) -> None:
        while len(self._kept) > 1 and (
            len(self._kept) > MOST or sum(size for _, size in self._kept.values()) > self._budget
        ):
            self._kept.popitem(last=False)
            gc.collect()


def _written_at(job: TrainingJob) -> int:
    """Return when the best checkpoint was written: a job that goes on has another model."""
    try:
        best = [path.stat().st_mtime_ns for path in job.checkpoints_dir.glob("best*")]
    except (OSError, ContractError):
        return 0
    return max(best, default=0)
