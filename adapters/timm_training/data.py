"""Images for training: which, in which order, how changed, from any batch of any epoch on."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from timm.data import create_transform
from timm.data.loader import PrefetchLoader, fast_collate
from torch.utils.data import DataLoader, Dataset

from adapters.data.content import Content, Sample
from adapters.images import middle, open_rgb
from adapters.randomness import Stream, derive_seed, seed_everything
from adapters.ranks import Rank
from adapters.schemas.timm import TimmHyperparameters


class SampleKey(NamedTuple):
    """Names an image and, by the epoch, how it is changed at random."""

    split: str
    epoch: int
    number: int  # of the image in its split


class Samples(Dataset[tuple[torch.Tensor, int | torch.Tensor]]):
    """Images by key, as unsigned bytes (3, H, W), with their targets.

    A target is a class id, or where images may have several classes a float for each, 0 or 1.
    """

    def __init__(self, data: Content, *, transforms: Mapping[str, Any], seed: int) -> None:
        self._data = data
        self._transforms = transforms
        self._seed = seed

    def __getitem__(self, key: SampleKey) -> tuple[torch.Tensor, int | torch.Tensor]:
        sample = self._data.splits[key.split][key.number]
        image = open_rgb(sample.image)
        if key.split == "train":
            seed_everything(derive_seed(self._seed, Stream.SAMPLE, key.epoch, key.number))
        return self._transforms[key.split](image), self._target(sample)

    def _target(self, sample: Sample) -> int | torch.Tensor:
        if not self._data.multi_label:
            return sample.classes[0]
        target = torch.zeros(len(self._data.classes))
        target[list(sample.classes)] = 1.0
        return target


def make_transforms(
    hyperparameters: TimmHyperparameters, data_config: Mapping[str, Any]
) -> dict[str, Any]:
    """Return timm's transforms of the splits; normalisation follows on the device."""
    ratio = hyperparameters.crop_ratio_max
    auto_augment = hyperparameters.auto_augment
    train = create_transform(
        **_common(data_config),
        is_training=True,
        no_aug=not hyperparameters.augment,
        scale=(hyperparameters.crop_scale_min, 1.0),
        ratio=(1 / ratio, ratio),
        hflip=hyperparameters.hflip,
        vflip=hyperparameters.vflip,
        color_jitter=hyperparameters.color_jitter or None,
        auto_augment=None if auto_augment == "none" else auto_augment,
    )
    return {"train": train, "val": evaluation_transform(data_config)}


def evaluation_transform(data_config: Mapping[str, Any]) -> Any:
    """Return timm's transform of validation: resized and cropped, as unsigned bytes (3, H, W)."""
    crop = {"crop_pct": data_config["crop_pct"], "crop_mode": data_config["crop_mode"]}
    transform = create_transform(**_common(data_config), **crop)
    if crop["crop_mode"] == "center":
        transform.transforms.insert(0, middle)
    return transform


def _common(data_config: Mapping[str, Any]) -> dict[str, Any]:
    names = ("input_size", "interpolation", "mean")
    return {**{name: data_config[name] for name in names}, "use_prefetcher": True}


class Order:
    """Which images are in which batch of which epoch, and which of them are this rank's."""

    def __init__(
        self,
        *,
        train_size: int,
        val_size: int,
        batch_size: int,
        seed: int,
        rank: Rank,
    ) -> None:
        self._train_size = train_size
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        # As in timm, the images left over after the last whole batch sit out the epoch, each
        # epoch others; but a set smaller than one batch is one batch.
        self.train_steps = max(1, train_size // batch_size)
        self.train_batch_size = min(batch_size, train_size)  # of all ranks together
        self._val_numbers = range(rank.number, val_size, rank.total)
        self._val_batch = -(-batch_size // rank.total)
        longest_share = -(-val_size // rank.total)
        self.val_steps = -(-longest_share // self._val_batch)

    def train(self, epoch: int, *, first_step: int = 0) -> Iterator[list[SampleKey]]:
        """Yield the keys of an epoch's batches from a step on."""
        generator = torch.Generator().manual_seed(derive_seed(self._seed, Stream.ORDER, epoch))
        order = torch.randperm(self._train_size, generator=generator).tolist()
        size, rank = self._batch_size, self._rank
        for step in range(first_step, self.train_steps):
            numbers = order[step * size : (step + 1) * size][rank.number :: rank.total]
            yield [SampleKey("train", epoch, number) for number in numbers]

    def val(self) -> Iterator[list[SampleKey]]:
        """Yield the keys of the validation batches; a rank may have one less than others."""
        for begin in range(0, len(self._val_numbers), self._val_batch):
            numbers = self._val_numbers[begin : begin + self._val_batch]
            yield [SampleKey("val", 0, number) for number in numbers]


class _Batches:
    """A batch sampler that hands out the batches it was last given."""

    def __init__(self) -> None:
        self.keys: Iterator[list[SampleKey]] = iter(())

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return self.keys


class Loader:
    """Batches on the device, normalised, in a given order.

    timm's create_loader always begins an epoch at its first batch, so the loader is put together
    here from timm's collation and prefetching and a sampler that can begin anywhere. One set of
    loader processes serves training and validation, for as long as the job lasts.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        workers: int,
        device: torch.device,
        data_config: Mapping[str, Any],
    ) -> None:
        self._batches = _Batches()
        loader: DataLoader[tuple[torch.Tensor, int | torch.Tensor]] = DataLoader(
            samples,
            batch_sampler=self._batches,
            num_workers=workers,
            collate_fn=fast_collate,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            # A child of a warm template would start its loaders by a template of their own, which
            # imports everything once more: 9 s to the first batch in place of 0.3 s.
            multiprocessing_context="fork" if workers else None,
            worker_init_fn=_leave_signals_to_the_child,
        )
        self._prefetched: PrefetchLoader | None = PrefetchLoader(
            loader,
            mean=data_config["mean"],
            std=data_config["std"],
            channels=data_config["input_size"][0],
            device=device,
            img_dtype=torch.float32,
        )

    def __call__(
        self, keys: Iterator[list[SampleKey]]
    ) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
        """Yield (images, targets) of each batch."""
        if self._prefetched is None:
            raise RuntimeError("the loader was closed")
        self._batches.keys = keys
        yield from self._prefetched

    def close(self) -> None:
        """End the loader processes."""
        self._prefetched = None


def _leave_signals_to_the_child(_worker_id: int) -> None:
    """Let Ctrl-C reach the training process only, which ends its loaders in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
