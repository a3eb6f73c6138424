"""One attempt on the devices of a slot: the batch size found where it is open, and halved."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Protocol

from adapters.batch_size import release_memory, shrinking
from adapters.contract import Reporter, Result, TrainingJob
from adapters.ranks import Rank, devices_of, on_ranks


class Attempt(Protocol):
    def __call__(
        self, job: TrainingJob, rank: Rank, reporter: Reporter, *, batch_size: int | None = None
    ) -> Result:
        """Train on one device, alone or as a rank among others."""


class Search(Protocol):
    def __call__(self, job: TrainingJob, ranks: int, rank: Rank, reporter: Reporter) -> int:
        """Return the batch size that a job goes on with, or the largest that fits."""


def train_on_devices(
    job: TrainingJob, reporter: Reporter, *, attempt: Attempt, find_batch_size: Search
) -> Result:
    """Train a job on all of its devices; see :func:`adapters.ranks.on_ranks`.

    A batch size of 0 is found on one of the devices, which are alike, for all of them, and halved
    where memory runs out later: then training goes on from what the attempt has kept.
    """
    devices = devices_of(job.compute_device)
    if job.batch_size:
        return on_ranks(partial(attempt, job), job=job, reporter=reporter, devices=devices)
    size = on_ranks(
        partial(find_batch_size, job, len(devices)),
        job=job,
        reporter=reporter,
        devices=devices[:1],
        apart=len(devices) > 1,
    )
    release_memory()  # of the trials
    goes_on = job.resume

    def with_size(size: int) -> Result:
        nonlocal goes_on
        attempted = dataclasses.replace(job, resume=goes_on)
        goes_on = True  # after out-of-memory, from what this attempt has kept
        work = partial(attempt, attempted, batch_size=size)
        return on_ranks(work, job=job, reporter=reporter, devices=devices)

    return shrinking(with_size, size, reporter=reporter, device=job.compute_device)
