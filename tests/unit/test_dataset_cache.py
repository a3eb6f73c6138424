"""The cache of fetched data sets stays within its bound, and takes nothing from who uses it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.contract import DatasetFormat, ErrorKind, TaskType, TrainingError
from adapters.data.content import SplitRule
from adapters.data.manifest import Manifest, Shard
from workers import dataset_cache
from workers.dataset_cache import DatasetCache, footprint


def name(number: int) -> str:
    return f"{number:064x}"


def manifest(number: int, size: int = 100_000) -> Manifest:
    """Return the manifest of a data set whose footprint is ``size``."""
    shard = Shard("0" * 64, size, files=1, content_bytes=size - 4096)
    return Manifest(
        name(number), DatasetFormat.IMAGEFOLDER, TaskType.IMAGE_CLASSIFICATION, SplitRule(),
        entry="", folders=(), shards=(shard,),
    )  # fmt: skip


def fetched(cache: DatasetCache, number: int, size: int = 100_000) -> bool:
    """Fetch a data set as a worker does; False where it is in use or being fetched."""
    lock = cache.begin(name(number))
    if lock is None:
        return False
    try:
        part = cache.new_part(manifest(number, size))
        (part / "data" / "image").write_bytes(b"x")
        cache.keep(name(number))
    finally:
        os.close(lock)
    return True


@contextmanager
def used(cache: DatasetCache, number: int) -> Iterator[Path]:
    found = cache.use(name(number))
    assert found is not None
    yield found[0]
    os.close(found[1])


def there(cache: DatasetCache) -> set[int]:
    return {int(folder, 16) for folder in cache.sizes()}


def at(cache: DatasetCache, number: int, second: int) -> None:
    """Let a data set have been used last at a second."""
    os.utime(cache.folder / f"{name(number)}.lock", (second, second))


@pytest.fixture
def cache(tmp_path: Path) -> DatasetCache:
    return DatasetCache(tmp_path / "cache", limit_bytes=300_000)


def test_what_was_fetched_is_there_and_what_was_not_is_not(cache: DatasetCache):
    assert cache.use(name(1)) is None
    assert fetched(cache, 1)
    with used(cache, 1) as path:
        assert (path / "image").read_bytes() == b"x"
    assert cache.use(name(2)) is None


def test_the_one_used_longest_ago_goes_first(cache: DatasetCache):
    for number in (1, 2, 3):
        fetched(cache, number)
        at(cache, number, 1000 + number)
    with used(cache, 1):
        pass
    fetched(cache, 4)
    assert there(cache) == {1, 3, 4}
    assert not (cache.folder / f"{name(2)}.lock").exists()


def test_one_that_is_in_use_stays_and_the_next_oldest_goes(cache: DatasetCache):
    for number in (1, 2, 3):
        fetched(cache, number)
        at(cache, number, 1000 + number)
    with used(cache, 1):
        at(cache, 1, 1)
        fetched(cache, 4, size=200_000)
        assert there(cache) == {1, 4}
        with (
            used(cache, 4),
            pytest.raises(TrainingError, match="running jobs use 300 kB") as caught,
        ):
            fetched(cache, 5)
        assert caught.value.kind == ErrorKind.DISK_FULL
        assert there(cache) == {1, 4}
    fetched(cache, 5)
    assert there(cache) == {4, 5}


def test_one_that_is_larger_than_the_bound_removes_nothing(cache: DatasetCache):
    fetched(cache, 1)
    with pytest.raises(TrainingError, match="holds 300 kB") as caught:
        fetched(cache, 2, size=300_001)
    assert caught.value.kind == ErrorKind.DISK_FULL
    assert "MODELYARD_DATA_CACHE_SIZE" in caught.value.hint
    assert there(cache) == {1}


def test_a_full_disk_makes_place_and_then_refuses(
    cache: DatasetCache, monkeypatch: pytest.MonkeyPatch
):
    fetched(cache, 1)
    free = 50_000 + dataset_cache.KEEP_FREE_BYTES

    def usage(folder: Path) -> object:
        gone = 0 if 1 in there(cache) else 100_000
        return type("Usage", (), {"free": free + gone})

    monkeypatch.setattr(dataset_cache.shutil, "disk_usage", usage)
    assert fetched(cache, 2)
    with pytest.raises(TrainingError, match=r"1\.\d+ GB stay free") as caught:
        fetched(cache, 3, size=200_000)
    assert caught.value.kind == ErrorKind.DISK_FULL


def test_two_that_are_fetched_at_once_know_of_each_other(cache: DatasetCache):
    one, other = cache.begin(name(1)), cache.begin(name(2))
    assert one is not None
    assert other is not None
    assert cache.begin(name(1)) is None
    cache.new_part(manifest(1, 200_000))
    with pytest.raises(TrainingError):
        cache.new_part(manifest(2, 200_000))
    cache.discard(name(1))
    cache.new_part(manifest(2, 200_000))
    os.close(one)
    os.close(other)


@pytest.mark.parametrize("whole", [False, True])
def test_what_a_killed_process_left_is_swept_and_what_is_fetched_is_not(
    cache: DatasetCache, whole: bool
):
    if whole:
        fetched(cache, 2)
    script = (
        "import sys; from tests.unit.test_dataset_cache import *;"
        f"cache = DatasetCache(Path({str(cache.folder)!r}), limit_bytes=10**6);"
        "cache.begin(name(1)); cache.new_part(manifest(1)); print('begun', flush=True);"
        "sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    part = cache.folder / f"{name(1)}.part"
    cache.sweep()
    assert part.is_dir()
    assert cache.begin(name(1)) is None
    process.kill()
    process.communicate()
    cache.sweep()
    left = {path.name for path in cache.folder.iterdir()}
    assert left == {"room.lock", *([name(2), f"{name(2)}.lock"] if whole else [])}


@pytest.mark.parametrize("text", ['{"version": 0}', "", None])
def test_one_that_is_of_another_version_or_was_torn_is_fetched_again(
    cache: DatasetCache, text: str | None
):
    assert fetched(cache, 1)
    kept = cache.folder / name(1) / "manifest.json"
    kept.unlink() if text is None else kept.write_text(text)
    assert cache.use(name(1)) is None
    assert not cache.has(name(1))
    assert fetched(cache, 1)
    with used(cache, 1) as path:
        assert (path / "image").exists()


def test_half_a_data_set_is_never_used(cache: DatasetCache):
    lock = cache.begin(name(1))
    assert lock is not None
    cache.new_part(manifest(1))
    os.close(lock)
    assert cache.use(name(1)) is None
    assert fetched(cache, 1)


steps = st.lists(
    st.tuples(st.sampled_from(("fetch", "use", "leave", "sweep")), st.integers(1, 6)), max_size=30
)


@settings(max_examples=60, deadline=None)
@given(steps=steps, sizes=st.lists(st.integers(5000, 350_000), min_size=6, max_size=6))
def test_whatever_comes_the_bound_holds_and_nothing_in_use_goes(
    steps: list[tuple[str, int]], sizes: list[int]
):
    with tempfile.TemporaryDirectory() as folder:
        cache = DatasetCache(Path(folder) / "cache", limit_bytes=300_000)
        cache.folder.mkdir()
        held: dict[int, int] = {}
        do: dict[str, Callable[[int], object]] = {
            "fetch": lambda number: fetch_or_refuse(cache, number, sizes[number - 1], held),
            "use": lambda number: hold(cache, number, held),
            "leave": lambda number: os.close(held.pop(number)) if number in held else None,
            "sweep": lambda number: cache.sweep(),
        }
        for what, number in steps:
            do[what](number)
            assert sum(cache.sizes().values()) <= 300_000
            assert set(held) <= there(cache)
        for lock in held.values():
            os.close(lock)


def fetch_or_refuse(cache: DatasetCache, number: int, size: int, held: dict[int, int]) -> None:
    if cache.has(name(number)):
        return
    in_use = sum(cache.sizes()[name(used)] for used in held)
    if size + in_use <= 300_000:  # whatever is in the way can go
        assert fetched(cache, number, size)
        return
    with pytest.raises(TrainingError):
        fetched(cache, number, size)


def hold(cache: DatasetCache, number: int, held: dict[int, int]) -> None:
    if number not in held and (found := cache.use(name(number))) is not None:
        held[number] = found[1]


def test_small_files_count_as_what_they_take_of_a_disk():
    assert footprint(manifest(1, 100_000)) == 100_000
