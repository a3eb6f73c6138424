"""Loading that can be interrupted, and goes on at the very batch that it left."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch.utils.data import RandomSampler, SequentialSampler

import adapters.ultralytics_training.offline  # noqa: F401
from adapters.ranks import Rank

# isort: split
from ultralytics.data import dataset as library_dataset
from ultralytics.data.build import InfiniteDataLoader
from ultralytics.engine import trainer as library_trainer
from ultralytics.utils import TQDM


class EpochBatches:
    """The batches of one epoch after the other, each epoch shuffled by seed and number alone.

    The library draws the order from a generator that loader processes run ahead of, so that
    nobody can tell where it stands between two epochs.
    """

    def __init__(self, count: int, *, batch_size: int, seed: int, rank: Rank) -> None:
        self._images = count
        self._count = -(-count // rank.total)  # of this rank; some images are repeated for it
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        self._epoch = 0
        self._first = 0

    def begin_at(self, *, epoch: int, batch: int) -> None:
        """Let the next pass be that of an epoch, without the batches before ``batch``."""
        self._epoch, self._first = epoch, batch

    def __len__(self) -> int:
        return -(-self._count // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order = torch.randperm(self._images, generator=generator).tolist()
        if self._rank.total > 1:
            order = (order + order)[self._rank.number :: self._rank.total][: self._count]
        first, self._first = self._first, 0
        self._epoch += 1
        for start in range(first * self._batch_size, self._count, self._batch_size):
            yield order[start : start + self._batch_size]


class ResumableLoader(InfiniteDataLoader):  # type: ignore[misc]
    """The library's loader, with an epoch that may begin in its middle."""

    iterator: Any
    first_batch = 0  # of the epoch under way

    def __iter__(self) -> Iterator[Any]:
        if self.iterator is None:
            self.iterator = self._get_iterator()
        for _ in range(len(self) - self.first_batch):
            yield next(self.iterator)


def make_resumable(loader: InfiniteDataLoader, *, seed: int, rank: Rank) -> ResumableLoader:
    """Turn a training loader of the library's into one that can begin anywhere."""
    loader.__class__ = ResumableLoader
    loader.batch_sampler.sampler = EpochBatches(
        len(loader.dataset), batch_size=loader.batch_size, seed=seed, rank=rank
    )
    return loader


def make_sequential(loader: InfiniteDataLoader) -> InfiniteDataLoader:
    """Let a validation loader go through its images in their order; for classification the
    library shuffles them, so that a mean of batches depends on the draw."""
    batches = loader.batch_sampler.sampler
    if isinstance(batches.sampler, RandomSampler):
        batches.sampler = SequentialSampler(loader.dataset)
    return loader


def begin_at(loader: ResumableLoader, *, epoch: int, batch: int) -> None:
    """Let a fresh loader begin with a batch of an epoch, both counted from 0."""
    loader.batch_sampler.sampler.begin_at(epoch=epoch, batch=batch)
    loader.first_batch = batch
    # Loader processes take their seeds from here: they are not to repeat the first epoch's draws.
    loader.generator.manual_seed(loader.generator.initial_seed() + epoch)


class WatchedBar(TQDM):  # type: ignore[misc]
    """The library's progress bar, undrawn: it can be interrupted as every image is looked at."""

    _watch: ClassVar[Callable[[], None] | None] = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "disable": True})

    def __iter__(self) -> Iterator[Any]:
        for item in super().__iter__():
            if WatchedBar._watch is not None:
                WatchedBar._watch()
            yield item


@contextmanager
def watching_scan(watch: Callable[[], None]) -> Iterator[None]:
    """Call ``watch`` for every image that is looked at; what it raises ends the look."""
    WatchedBar._watch = staticmethod(watch)
    try:
        yield
    finally:
        WatchedBar._watch = None


def numbered(items: Iterable[Any], start: int = 0) -> Iterator[tuple[int, Any]]:
    """Enumerate as Python does, but the batches of a begun epoch from where it begins."""
    return builtins.enumerate(items, getattr(items, "first_batch", start))


# The training loop numbers its batches with this; warm-up goes by the number.
library_trainer.enumerate = numbered
library_dataset.TQDM = WatchedBar
