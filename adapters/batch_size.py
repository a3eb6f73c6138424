"""Batch size 0: the largest that fits, found by trial, and half of it where it later does not.

An adapter gives a trial step: forward, backward and an optimizer update on a batch of a given
size, with parts that are thrown away afterwards. Sizes are doubled. On a GPU that ends where
memory runs out or nine tenths of it are taken; on a CPU, where running out would get the process
killed, before half of what is available would be.

'Largest' has a second bound: an epoch keeps at least sixteen updates. A batch of a whole data set
fits often and learns nothing, so of 1,400 images the answer is 64 on any machine, and of a million
it is what memory allows. The learning rate is the job's and is not scaled.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
import torch

from adapters.contract import Reporter
from adapters.failures import is_out_of_memory

SMALLEST = 2  # batch norm has nothing to average in one image
LARGEST = 1024
MIN_UPDATES_PER_EPOCH = 16
SMALL_ENOUGH = 8  # so many images a batch are asked for also where an epoch has fewer updates then
GPU_SHARE = 0.9  # the rest is for what a trial does not see: fragments, validation, other programs
CPU_SHARE = 0.5  # loader processes, the page cache and other slots live there, too
LONGEST_TRIAL_SECONDS = 10.0  # a slower step gains nothing from more images; CPUs, mostly
_SAMPLING_SECONDS = 0.005

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Limits:
    """What bounds a batch besides running out of memory."""

    size: int  # images
    size_why: str
    memory: int  # bytes that trials may add at their peak
    place: str  # whose memory: 'cuda:0', 'this machine'
    predict: bool  # do not try what the trials before say will not fit


@dataclass(frozen=True)
class Trial:
    """What a step with a batch size took."""

    size: int
    memory: int | None  # bytes it added at its peak; None: memory ran out
    seconds: float = 0.0


@dataclass(frozen=True)
class Chosen:
    """A batch size and the sentence that says why."""

    size: int
    why: str


def find_batch_size(
    step: Callable[[int], object],
    *,
    device: torch.device,
    train_images: int,
    accumulation_steps: int = 1,
    ranks: int = 1,
) -> Chosen:
    """Try steps of growing size and return the largest that fits.

    ``train_images`` is of the whole training split, the size found is of one of the ``ranks``.
    Raises what the first step raises, out of memory included.
    """
    size, why = size_limit(train_images, accumulation_steps=accumulation_steps, ranks=ranks)
    memory = _free_memory(device)
    if device.type == "cpu":
        memory //= ranks  # they share it
    limits = Limits(
        size=size,
        size_why=why,
        memory=memory,
        place="this machine" if device.type == "cpu" else str(device),
        predict=device.type == "cpu",
    )
    trials: list[Trial] = []
    with _peak_meter(device) as peak:
        while isinstance(answer := decide(trials, limits=limits), int):
            trials.append(_try(step, answer, device=device, peak=peak, first=not trials))
            release_memory()
    return answer


def size_limit(
    train_images: int, *, accumulation_steps: int = 1, ranks: int = 1
) -> tuple[int, str]:
    """Return the largest batch that leaves an epoch enough updates, a power of two, and why."""
    per_update = accumulation_steps * ranks
    for_updates = max(train_images // (MIN_UPDATES_PER_EPOCH * per_update), SMALL_ENOUGH)
    bound = max(SMALLEST, min(for_updates, train_images // ranks, LARGEST))
    why = (
        f"a larger one would leave an epoch of {train_images:,} images fewer than "
        f"{MIN_UPDATES_PER_EPOCH} updates"
    )
    if bound == LARGEST:
        why = f"no more than {LARGEST:,} are tried"
    return 1 << (bound.bit_length() - 1), why


def decide(trials: Sequence[Trial], *, limits: Limits) -> int | Chosen:
    """Return the next batch size to try, or the one to take."""
    if not trials:
        return min(SMALLEST, limits.size)
    last = trials[-1]
    before = trials[-2].size if len(trials) > 1 else last.size
    if last.memory is None:
        return Chosen(
            before, f"a batch of {last.size} did not fit into the memory of {limits.place}"
        )
    if last.memory > limits.memory:
        taken = f"takes {_gb(last.memory)} of the {_gb(limits.memory)} of {limits.place}"
        return Chosen(before, f"a batch of {last.size} {taken} that may be used")
    larger = last.size * 2
    if larger > limits.size:
        return Chosen(last.size, limits.size_why)
    if last.seconds > LONGEST_TRIAL_SECONDS:
        return Chosen(last.size, f"a step of it takes {last.seconds:.0f} s already")
    expected = _expected(trials, larger)
    if limits.predict and expected > limits.memory:
        taken = f"would take about {_gb(expected)} of the {_gb(limits.memory)} of {limits.place}"
        return Chosen(last.size, f"a batch of {larger} {taken} that may be used")
    return larger


def shrinking(
    train: Callable[[int], _Result], size: int, *, reporter: Reporter, device: torch.device | str
) -> _Result:
    """Train with a batch size, and with half of it each time that memory runs out.

    ``train`` goes on from the last checkpoint, where there is one. For jobs of batch size 0 only:
    a size that a person gave is not changed. Raises the error where a single image does not fit.
    """
    while True:
        try:
            return train(size)
        except Exception as error:
            if not is_out_of_memory(error) or size == 1:
                raise
        size //= 2
        why = f"memory of {device} ran out in training with a batch of {size * 2}"
        reporter.decided("batch_size", size, why=f"{why}; half of it, from the last checkpoint")
        release_memory()  # here: until the handler has ended, the error holds the tensors


def release_memory() -> None:
    """Give back what nothing uses any more, so that the next batch finds it free."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def _try(
    step: Callable[[int], object],
    size: int,
    *,
    device: torch.device,
    peak: Callable[[], int],
    first: bool,
) -> Trial:
    began = time.monotonic()
    try:
        step(size)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except Exception as error:
        if first or not is_out_of_memory(error):
            raise
        return Trial(size, None)
    return Trial(size, peak(), time.monotonic() - began)


def _expected(trials: Sequence[Trial], size: int) -> int:
    """Return the memory that a size will take, by what the last two took; 0: it is not known."""
    if len(trials) < 2:
        return 0
    one, two = trials[-2], trials[-1]
    assert one.memory is not None
    assert two.memory is not None
    each = (two.memory - one.memory) / (two.size - one.size)
    return round(two.memory + max(0.0, each) * (size - two.size))


def _free_memory(device: torch.device) -> int:
    """Return the bytes that trials may take on top of what is taken now."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return max(0, free - round(total * (1 - GPU_SHARE)))
    available = psutil.virtual_memory().available
    return round(CPU_SHARE * min(available, _free_in_container(Path("/sys/fs/cgroup"))))


def _free_in_container(root: Path) -> int:
    """Return the bytes a container may still take (cgroup 2, then 1); very many without limit."""
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            text = (root / limit).read_text().strip()
            used = int((root / usage).read_text())
        except (OSError, ValueError):
            continue
        if text.isdigit():
            return max(0, int(text) - used + _file_cache((root / limit).with_name("memory.stat")))
    return 1 << 62


def _file_cache(stat: Path) -> int:
    """Return what a container's files take in memory, which the kernel gives up on demand."""
    try:
        lines = stat.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))


@contextmanager
def _peak_meter(device: torch.device) -> Iterator[Callable[[], int]]:
    """Give a function that returns the bytes added at the peak since it was last called."""
    if device.type == "cuda":
        yield _gpu_peak(device)
        return
    process = psutil.Process()
    base = highest = process.memory_info().rss
    ended = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not ended.wait(_SAMPLING_SECONDS):
            highest = max(highest, process.memory_info().rss)

    def take() -> int:
        nonlocal highest
        now = process.memory_info().rss
        added, highest = max(highest, now) - base, now
        return max(0, added)

    watcher = threading.Thread(target=watch, name="memory-watch", daemon=True)
    watcher.start()
    try:
        yield take
    finally:
        ended.set()
        watcher.join()


def _gpu_peak(device: torch.device) -> Callable[[], int]:
    base = torch.cuda.memory_reserved(device)
    torch.cuda.reset_peak_memory_stats(device)

    def take() -> int:
        added = torch.cuda.max_memory_reserved(device) - base
        torch.cuda.reset_peak_memory_stats(device)
        return added

    return take


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
