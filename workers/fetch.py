"""`python -m workers.fetch`: fetches one data set from the store into this host's cache.

A process of its own, so that a cancel ends it at once whatever it waits for, and because proving a
copy decodes masks and reads large files. It is asked by a line of JSON on standard input, tells
how far it is by lines of JSON on standard output, and holds the data set's lock, which it has
from the worker that started it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapters.contract import ErrorKind, TrainingError
from adapters.data.child import say
from adapters.data.description import DatasetError
from adapters.data.manifest import Manifest, ManifestError, Shard, manifest_key, shard_key
from adapters.data.pack import verify
from adapters.data.shards import make_folders, unpack_shard
from adapters.files import is_disk_full
from modelyard.process import die_with_parent
from modelyard.storage import (
    RETRY_PAUSES_SECONDS,
    ObjectDamaged,
    ObjectMissing,
    StorageError,
    Store,
    open_store,
)
from workers.dataset_cache import DatasetCache

FETCHING, CHECKING = "fetching", "checking"
_TELL_SECONDS = 0.5
_AHEAD = 2  # shards that are fetched while one is unpacked


class Meter:
    """Tells how far a fetch is, from a thread: also while it waits, so that a stall is seen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state: dict[str, Any] = {"phase": FETCHING, "done": 0, "total": 0}
        self._partial: Callable[[], int] = lambda: 0

    def begin(self, phase: str, total: int, *, partial: Callable[[], int] = lambda: 0) -> None:
        """Begin a phase; ``partial`` tells what has come of things that are not done yet."""
        with self._lock:
            self._state = {"phase": phase, "done": 0, "total": total}
            self._partial = partial

    def add(self, done: int) -> None:
        with self._lock:
            self._state["done"] += done

    def at(self, done: int, total: int) -> None:
        with self._lock:
            self._state |= {"done": done, "total": total}

    def note(self, text: str) -> None:
        """Tell a line for the job's log."""
        with self._lock:
            say({"note": text})

    @contextmanager
    def telling(self) -> Iterator[None]:
        ended = threading.Event()

        def tell() -> None:
            while not ended.wait(_TELL_SECONDS):
                with self._lock:
                    done = self._state["done"] + self._partial()
                    say(self._state | {"done": min(done, self._state["total"])})

        thread = threading.Thread(target=tell, name="meter", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class Fetching:
    """Fetches, unpacks and proves one data set."""

    def __init__(self, store: Store, cache: DatasetCache, meter: Meter) -> None:
        self._store = store
        self._cache = cache
        self._meter = meter

    def run(self, fingerprint: str) -> None:
        """Leave the data set whole in the cache. Raises TrainingError and StorageError."""
        try:
            manifest = self._manifest(fingerprint)
            part = self._cache.new_part(manifest)
            self._fetch(manifest, part)
            self._meter.begin(CHECKING, 0)
            verify(part / "data", manifest, progress=self._meter.at)
        except (DatasetError, ObjectMissing, ObjectDamaged) as error:
            raise damaged(str(error)) from error
        else:
            self._cache.keep(fingerprint)
        finally:
            self._cache.discard(fingerprint)

    def _manifest(self, fingerprint: str) -> Manifest:
        text = self._again(lambda: self._store.read(manifest_key(fingerprint)))
        manifest = Manifest.from_json(text)
        if manifest.fingerprint != fingerprint:  # all that follows goes by the manifest's
            raise ManifestError("the manifest is that of another data set")
        return manifest

    def _fetch(self, manifest: Manifest, part: Path) -> None:
        self._meter.begin(FETCHING, manifest.stored_bytes, partial=lambda: _half_fetched(part))
        into = part / "data"
        make_folders(manifest.folders, into)
        with ThreadPoolExecutor(_AHEAD, thread_name_prefix="fetch") as pool:
            coming: list[Future[Path]] = []
            waiting = iter(manifest.shards)
            try:
                for shard in manifest.shards:
                    while len(coming) <= _AHEAD and (nxt := next(waiting, None)) is not None:
                        coming.append(pool.submit(self._get, manifest, nxt, part))
                    file = coming.pop(0).result()
                    unpack_shard(file, shard, into, on_bytes=lambda size: None)
                    file.unlink()
            finally:
                for future in coming:
                    future.cancel()

    def _get(self, manifest: Manifest, shard: Shard, part: Path) -> Path:
        file = part / shard.name
        key = shard_key(manifest.fingerprint, shard)
        self._again(lambda: self._store.get(key, file, sha256=shard.sha256))
        self._meter.add(shard.size)
        return file

    def _again(self, do: Callable[[], Any]) -> Any:
        """Return what is done with the store, with patience where it does not answer."""
        for pause in RETRY_PAUSES_SECONDS:
            try:
                return do()
            except (ObjectMissing, ObjectDamaged):
                raise
            except StorageError as error:
                if is_disk_full(error.__cause__):
                    raise
                self._meter.note(f"The store does not answer; again in {pause:g} s: {error}")
                time.sleep(pause)
        return do()


def _half_fetched(part: Path) -> int:
    """Return how many bytes have come of shards that are not whole yet."""
    size = 0
    for file in part.glob(".*.writing"):
        try:
            size += file.stat().st_size
        except FileNotFoundError:  # it is whole now
            continue
    return size


def damaged(reason: str) -> TrainingError:
    """Return the error of a copy that is no good: it is packed again, and the job tried again."""
    return TrainingError(
        ErrorKind.DATASET_COPY,
        f"The data set's copy in the store is no good: {reason}",
        hint="It is put into the store again by itself; if it stays so, look at the store.",
    )


def main() -> int:
    die_with_parent(os.getppid())
    asked = json.loads(sys.stdin.buffer.readline())
    cache = DatasetCache(Path(asked["cache"]), limit_bytes=asked["limit_bytes"])
    meter = Meter()
    try:
        store = open_store(asked["store"])
        with meter.telling():
            Fetching(store, cache, meter).run(asked["fingerprint"])
        say({"fetched": True})
    except TrainingError as error:
        say({"error": error.to_json()})
    except (StorageError, OSError) as error:
        if is_disk_full(error) or is_disk_full(error.__cause__):
            say({"error": _full(cache.folder).to_json()})
        elif isinstance(error, StorageError):
            say({"error": _away(error).to_json()})
        else:
            raise
    return 0


def _full(folder: Path) -> TrainingError:
    return TrainingError(
        ErrorKind.DISK_FULL,
        f"The disk of {folder} became full while the data set was fetched",
        hint="Free some space there, or set MODELYARD_DATA_CACHE to a larger disk.",
    )


def _away(error: StorageError) -> TrainingError:
    return TrainingError(
        ErrorKind.STORAGE,
        f"The data set cannot be fetched from the store: {error}",
        hint="Look at the store, at MODELYARD_STORE and at the credentials on the worker's host.",
    )


if __name__ == "__main__":
    sys.exit(main())
