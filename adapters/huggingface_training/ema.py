"""A moving average of a model's weights."""

from __future__ import annotations

import copy
from typing import Any

import torch


class MovingAverage:
    """Follows a model: after each update every weight goes a little of the way to the new one."""

    def __init__(self, model: Any, *, decay: float, warmup: bool) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._decay = decay
        self._warmup = warmup

    @torch.no_grad()
    def update(self, model: Any, *, updates: int) -> None:
        """Take one update in; ``updates`` counts from 1."""
        decay = min(self._decay, (1 + updates) / (10 + updates)) if self._warmup else self._decay
        ours, theirs = self.model.state_dict(), model.state_dict()
        for name, average in ours.items():
            if average.dtype.is_floating_point:
                average.lerp_(theirs[name].to(average.dtype), 1 - decay)
            else:
                average.copy_(theirs[name])
