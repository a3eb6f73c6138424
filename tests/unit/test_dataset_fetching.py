"""Fetching proves what it fetches, and says apart a bad copy, a store that is away, a full disk."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from adapters.contract import ErrorKind, TrainingError
from adapters.data.content import SplitRule
from adapters.data.describe import describe
from adapters.data.manifest import Manifest, dataset_prefix, manifest_key
from adapters.data.pack import pack
from modelyard.storage import StorageError, Store, open_store
from tests.unit.data_sets import make_imagefolder
from workers import fetch
from workers.dataset_cache import DatasetCache
from workers.fetch import Fetching, Meter


class There:
    """A store with a data set in it, and an empty cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"file://{folder}/store"
        self.store = open_store(self.url)
        self.cache = DatasetCache(folder / "cache", limit_bytes=10**7)
        self.manifest = self.put("set")

    def put(self, name: str) -> Manifest:
        path = make_imagefolder(self.folder / name)
        found = describe(path, workers=1)
        shards = self.folder / f"{name} shards"
        shards.mkdir()
        manifest = pack(
            path, shards, fingerprint=found.fingerprint, format=found.format,
            task_type=found.task_type, split_rule=SplitRule(), shard_bytes=8000,
        )  # fmt: skip
        for shard in shards.iterdir():
            self.store.put(shard, f"{dataset_prefix(found.fingerprint)}/{shard.name}")
        self.store.write(manifest_key(found.fingerprint), manifest.to_json())
        return manifest

    def shard(self, number: int) -> str:
        prefix = dataset_prefix(self.manifest.fingerprint)
        return f"{prefix}/{self.manifest.shards[number].name}"

    def fetch(self) -> None:
        lock = self.cache.begin(self.manifest.fingerprint)
        assert lock is not None
        try:
            Fetching(self.store, self.cache, Meter()).run(self.manifest.fingerprint)
        finally:
            os.close(lock)

    @contextmanager
    def fails(self, kind: ErrorKind, match: str) -> Iterator[None]:
        with pytest.raises(TrainingError, match=match) as caught:
            yield
        assert caught.value.kind == kind
        assert caught.value.hint
        assert self.left() == {"room.lock", f"{self.manifest.fingerprint}.lock"}

    def left(self) -> set[str]:
        return {path.name for path in self.cache.folder.iterdir()}


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> There:
    monkeypatch.setattr(fetch, "RETRY_PAUSES_SECONDS", (0.0, 0.0))
    there = There(tmp_path)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "room.lock").touch()
    return there


def test_what_is_fetched_is_what_was_packed(there: There):
    assert len(there.manifest.shards) > 2
    there.fetch()
    found = there.cache.use(there.manifest.fingerprint)
    assert found is not None
    os.close(found[1])
    copy = {p.relative_to(found[0]): p.read_bytes() for p in found[0].rglob("*") if p.is_file()}
    original = there.folder / "set"
    assert copy == {
        p.relative_to(original): p.read_bytes() for p in original.rglob("*") if p.is_file()
    }
    kept = {path.name for path in (there.cache.folder / there.manifest.fingerprint).iterdir()}
    assert kept == {"manifest.json", "data"}


@pytest.mark.parametrize(
    "harm",
    ["no copy", "no shard", "torn", "no manifest", "other manifest", "elsewhere", "other content"],
)
def test_a_bad_copy_is_told_from_a_store_that_is_away_and_nothing_of_it_stays(
    there: There, harm: str
):
    key = manifest_key(there.manifest.fingerprint)
    if harm == "no copy":
        there.store.delete(dataset_prefix(there.manifest.fingerprint))
    elif harm == "no shard":
        there.store.delete(there.shard(1))
    elif harm == "torn":
        there.store.write(there.shard(1), there.store.read(there.shard(1))[:-1])
    elif harm == "no manifest":
        there.store.write(key, b'{"version": 1}')
    elif harm == "other manifest":  # in all its parts a good copy, and of another data set
        there.store.write(key, there.put("other").to_json())
    elif harm == "elsewhere":
        claim = json.loads(there.manifest.to_json()) | {"entry": "../../elsewhere"}
        there.store.write(key, json.dumps(claim).encode())
    else:
        # A whole and sound copy, of another data set: its own sums are right.
        other = there.put("other")
        for shard in other.shards:
            content = there.store.read(f"{dataset_prefix(other.fingerprint)}/{shard.name}")
            there.store.write(f"{dataset_prefix(there.manifest.fingerprint)}/{shard.name}", content)
        claim = json.loads(other.to_json()) | {"fingerprint": there.manifest.fingerprint}
        there.store.write(key, json.dumps(claim).encode())
    with there.fails(ErrorKind.DATASET_COPY, "copy in the store is no good"):
        there.fetch()


def test_a_store_that_is_away_for_a_moment_is_asked_again(
    there: There, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    real, failures = Store.get, iter([StorageError("it is away"), StorageError("it is away")])

    def get(*how: Any, **more: Any) -> None:
        for failure in failures:
            raise failure
        real(*how, **more)

    monkeypatch.setattr(Store, "get", get)
    there.fetch()
    assert there.cache.has(there.manifest.fingerprint)
    assert "The store does not answer; again in 0 s: it is away" in capsys.readouterr().out


def answer(there: There, monkeypatch: pytest.MonkeyPatch, error: Exception, capsys: Any) -> Any:
    """Return what the fetching process says where each read of the store raises an error."""

    def get(*how: Any, **more: Any) -> None:
        raise error

    monkeypatch.setattr(Store, "get", get)
    monkeypatch.setattr(fetch, "die_with_parent", lambda pid: None)
    asked = {
        "store": there.url,
        "cache": str(there.cache.folder),
        "limit_bytes": 10**7,
        "fingerprint": there.manifest.fingerprint,
    }
    read, write = os.pipe()
    os.write(write, json.dumps(asked).encode() + b"\n")
    os.close(write)
    with os.fdopen(read, "r") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert fetch.main() == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])["error"]


def test_a_store_that_stays_away_and_a_disk_that_is_full_are_told_apart(
    there: There, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    away = answer(there, monkeypatch, StorageError("nobody answers"), capsys)
    assert (away["kind"], "nobody answers" in away["message"]) == ("storage", True)
    full = StorageError("x could not be read")
    full.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    said = answer(there, monkeypatch, full, capsys)
    assert said["kind"] == "disk_full"
    assert "MODELYARD_DATA_CACHE" in said["hint"]
