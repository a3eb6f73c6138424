"""Random numbers that follow from where training is, not from what ran before.

Each sample's augmentation is seeded by (seed, epoch, index) and each step's mixing, erasing and
dropout by (seed, epoch, step). So an attempt that goes on in the middle of an epoch draws the same
numbers as one that was never interrupted, however many loader processes there are, and there are
no random states to keep in a checkpoint.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch
from torch.utils import deterministic


class Stream(IntEnum):
    """What random numbers are for; streams of one job do not overlap."""

    MODEL = 1
    ORDER = 2
    SAMPLE = 3
    STEP = 4


def derive_seed(seed: int, stream: Stream, *place: int) -> int:
    """Return 63 bits that depend on all arguments and on nothing else."""
    # Two's complement: a job's seed may be negative, what a SeedSequence takes may not.
    entropy = [seed & 0xFFFF_FFFF_FFFF_FFFF, int(stream), *place]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]) >> 1


def seed_everything(seed: int) -> None:
    """Seed every generator that timm, torchvision and torch draw from."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFF_FFFF)
    # Not torch.manual_seed: it takes a millisecond to note where devices are seeded that are not
    # in use, and this is called for every sample.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed(seed)


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Make torch repeatable on a CPU, and fast on a GPU, for as long as the block runs."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    benchmark = torch.backends.cudnn.benchmark
    if device.type == "cpu":
        # Warn only: an operation without a repeatable form is better than a job that fails.
        torch.use_deterministic_algorithms(True, warn_only=True)
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    else:
        torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = benchmark
