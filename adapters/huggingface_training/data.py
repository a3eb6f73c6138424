"""Images for training: which, in which order, how changed, from any batch of any epoch on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from adapters.contract import TaskType
from adapters.data.content import Content, Sample
from adapters.images import open_rgb
from adapters.randomness import Stream, derive_seed, seed_everything
from adapters.ranks import Rank

Item = dict[str, Any]  # 'image', unsigned bytes (3, H, W), and what the task's labels are made of


class SampleKey(NamedTuple):
    """Names an image and, by the epoch, how it is changed at random."""

    split: str
    epoch: int
    number: int  # of the image in its split


class Samples(Dataset[Item]):
    """Images by key, with the classes, boxes or mask that the task learns from."""

    def __init__(self, content: Content, *, augmentation: Any, seed: int) -> None:
        self._content = content
        self._augmentation = augmentation
        self._seed = seed

    def __getitem__(self, key: SampleKey) -> Item:
        sample = self._content.splits[key.split][key.number]
        item = read_item(self._content, sample)
        if key.split == "train":
            seed_everything(derive_seed(self._seed, Stream.SAMPLE, key.epoch, key.number))
            item = self._augmentation(item)
        return item


def read_item(content: Content, sample: Sample) -> Item:
    """Read an image and its annotation. Raises DatasetError naming the file."""
    image = tv_tensors.Image(F.pil_to_tensor(open_rgb(sample.image)))
    if content.task_type == TaskType.IMAGE_CLASSIFICATION:
        return {"image": image, "classes": sample.classes}
    if content.task_type == TaskType.SEMANTIC_SEGMENTATION:
        mask = torch.from_numpy(content.mask(sample).copy())
        return {"image": image, "mask": tv_tensors.Mask(mask[None])}
    height, width = image.shape[-2:]
    objects = content.objects(sample)
    places = torch.tensor([o.box for o in objects], dtype=torch.float32).reshape(-1, 4)
    boxes = places * torch.tensor([width, height, width, height])
    return {
        "image": image,
        "boxes": tv_tensors.BoundingBoxes(
            boxes,
            format="XYXY",
            canvas_size=(height, width),
            clamping_mode=None,  # a crop is to show how much of each object it left
        ),
        "labels": torch.tensor([o.class_id for o in objects], dtype=torch.int64),
        "crowd": torch.tensor([o.crowd for o in objects], dtype=torch.bool),
    }


class Order:
    """Which images are in which batch of which epoch, and which of them are this rank's.

    Of every batch each rank has an image at least: they compute step by step together. Of training
    all have as many, so that the mean of their gradients is the batch's.
    """

    def __init__(
        self, *, train_size: int, val_size: int, batch_size: int, seed: int, rank: Rank
    ) -> None:
        self._train_size = train_size
        self._val_size = val_size
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        # The images left over after the last whole batch sit out the epoch, each epoch others: a
        # batch of one is nothing that batch norms learn from. A set smaller than one batch is one.
        self.train_steps = max(1, train_size // batch_size)
        self.val_steps = -(-val_size // batch_size)
        if 0 < val_size % batch_size < rank.total:
            self.val_steps = max(1, self.val_steps - 1)  # the last batch takes them along

    def train(self, epoch: int) -> Iterator[list[SampleKey]]:
        """Yield the keys of an epoch's batches."""
        generator = torch.Generator().manual_seed(derive_seed(self._seed, Stream.ORDER, epoch))
        order = torch.randperm(self._train_size, generator=generator).tolist()
        size = self._batch_size
        for step in range(self.train_steps):
            numbers = order[step * size : (step + 1) * size]
            whole = len(numbers) // self._rank.total * self._rank.total
            yield [SampleKey("train", epoch, number) for number in self._share(numbers[:whole])]

    def val(self) -> Iterator[list[SampleKey]]:
        """Yield the keys of the validation batches."""
        size = self._batch_size
        for step in range(self.val_steps):
            end = (step + 1) * size if step + 1 < self.val_steps else self._val_size
            numbers = list(range(step * size, end))
            yield [SampleKey("val", 0, number) for number in self._share(numbers)]

    def _share(self, numbers: list[int]) -> list[int]:
        return numbers[self._rank.number :: self._rank.total]


class TrainBatches(Sampler[list[SampleKey]]):
    """The batch sampler of the training split; the Trainer sets the epoch and skips batches."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._epoch = 1

    def set_epoch(self, epoch: int) -> None:
        """Take the Trainer's epoch, which begins at 0."""
        self._epoch = epoch + 1

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return self._order.train(self._epoch)

    def __len__(self) -> int:
        return self._order.train_steps


class ValBatches(Sampler[list[SampleKey]]):
    """The batch sampler of the validation split."""

    def __init__(self, order: Order) -> None:
        self._order = order

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return self._order.val()

    def __len__(self) -> int:
        return self._order.val_steps


class Loader(DataLoader[Item]):
    """A loader that passes the epoch on to its batch sampler."""

    def set_epoch(self, epoch: int) -> None:
        if isinstance(self.batch_sampler, TrainBatches):
            self.batch_sampler.set_epoch(epoch)


def make_loader(
    samples: Samples,
    batches: TrainBatches | ValBatches,
    *,
    collate: Any,
    workers: int,
    device: torch.device,
) -> Loader:
    """Return a loader of collated batches, on the CPU."""
    return Loader(
        samples,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        # A child of a warm template would start its loaders by a template of their own, which
        # imports everything once more.
        multiprocessing_context="fork" if workers else None,
        worker_init_fn=_begin_loader if workers else None,
    )


def _begin_loader(_worker_id: int) -> None:
    """Let Ctrl-C reach the training process only, which ends its loaders in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
