"""The data sets that this host has fetched: bounded, shared by its workers, the oldest goes first.

    <fingerprint>.lock       held alone by who fetches or removes it, shared by the attempts that
                             use it; touched at each use
    <fingerprint>/           a whole data set: manifest.json, and its files in data/
    <fingerprint>.part/      one that is being fetched or removed; without a holder, left by a
                             killed worker
    room.lock                held by who makes room

Locks are the kernel's: they end with their holder, however it ends.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.contract import ErrorKind, TrainingError
from adapters.data.description import DatasetError
from adapters.data.manifest import MANIFEST, Manifest
from adapters.data.unpack import in_words
from modelyard.locks import take
from modelyard.settings import Settings

logger = logging.getLogger(__name__)

KEEP_FREE_BYTES = 1024**3  # of the disk: checkpoints and shards on their way need room, too
_BLOCK_BYTES = 4096  # what a file takes at the end, on the average more than half of it


class DatasetCache:
    """Fetched data sets in a folder, at most ``limit_bytes`` of them."""

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        self.folder = folder
        self._limit_bytes = limit_bytes

    def use(self, fingerprint: str) -> tuple[Path, int] | None:
        """Return the path of a data set that is there, and a lock that keeps it there.

        None where it is not there, or is being fetched or removed. Close the lock after use.
        """
        mark = self._mark(fingerprint)
        lock = take(mark, new=False, shared=True)
        if lock is None:
            return None
        try:
            manifest = _read_manifest(self.folder / fingerprint)
            if manifest is None:
                os.close(lock)
                return None
            os.utime(mark)
        except OSError:
            os.close(lock)
            raise
        return self.folder / fingerprint / "data" / manifest.entry, lock

    def has(self, fingerprint: str) -> bool:
        """Tell whether a data set is there that :meth:`use` would give."""
        return _read_manifest(self.folder / fingerprint) is not None

    def begin(self, fingerprint: str) -> int | None:
        """Return the lock of who is to fetch a data set; None where another does or uses it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return take(self._mark(fingerprint), new=True)

    def new_part(self, manifest: Manifest) -> Path:
        """Make room for a data set and return the folder to fetch it into; holds its lock.

        Raises TrainingError(DISK_FULL) where there cannot be room for it.
        """
        part = self._part(manifest.fingerprint)
        # One under its name is of another version, or was torn by a power cut: it is of no use.
        for left in (part, self.folder / manifest.fingerprint):
            shutil.rmtree(left, ignore_errors=True)
        needed = footprint(manifest)
        if needed > self._limit_bytes:
            raise TrainingError(
                ErrorKind.DISK_FULL,
                f"The data set takes {in_words(needed)}, and this worker's cache of data sets "
                f"holds {in_words(self._limit_bytes)}",
                hint="Raise MODELYARD_DATA_CACHE_SIZE on the worker, or mount the data there.",
            )
        with self._making_room():
            self._make_room(needed, besides=manifest.fingerprint)
            (part / "data").mkdir(parents=True)
            # From now on it counts: of two that are fetched at once, each knows of the other.
            (part / MANIFEST).write_bytes(manifest.to_json())
        return part

    def keep(self, fingerprint: str) -> None:
        """Take a fetched data set for whole; holds its lock."""
        os.utime(self._mark(fingerprint))
        self._part(fingerprint).replace(self.folder / fingerprint)

    def discard(self, fingerprint: str) -> None:
        """Remove what was fetched of a data set; holds its lock."""
        shutil.rmtree(self._part(fingerprint), ignore_errors=True)

    def sweep_in_background(self) -> threading.Thread:
        """Sweep while the worker starts: what was left may be large."""
        thread = threading.Thread(target=self.sweep, name="sweep-datasets", daemon=True)
        thread.start()
        return thread

    def sweep(self) -> None:
        """Remove what killed workers have left half-fetched or half-removed."""
        for part in self.folder.glob("*.part"):
            lock = take(self._mark(part.stem), new=True)
            if lock is not None:
                logger.info("half a data set is removed: %s", part.stem[:12])
                self._remove(part.stem, lock, whole=False)

    def sizes(self) -> dict[str, int]:
        """Return what each data set takes that is there or being fetched, by fingerprint."""
        found: dict[str, int] = {}
        for folder in self.folder.iterdir():
            if folder.suffix in ("", ".part") and folder.is_dir():
                manifest = _read_manifest(folder)
                if manifest is not None:
                    found[folder.stem] = footprint(manifest)
        return found

    def _make_room(self, needed: int, *, besides: str) -> None:
        sizes = self.sizes()
        sizes.pop(besides, None)
        oldest_first = iter(sorted(sizes, key=self._used_at))
        while (short := self._short_of(needed, sizes)) is not None:
            for fingerprint in oldest_first:
                if (lock := take(self._mark(fingerprint), new=True)) is not None:
                    logger.info("data set %s leaves the cache", fingerprint[:12])
                    self._remove(fingerprint, lock, whole=True)
                    sizes.pop(fingerprint)
                    break
            else:
                raise short

    def _short_of(self, needed: int, sizes: dict[str, int]) -> TrainingError | None:
        """Return why a data set does not fit beside those that are there, None where it does."""
        used = sum(sizes.values())
        if used + needed > self._limit_bytes:
            return TrainingError(
                ErrorKind.DISK_FULL,
                f"The data set takes {in_words(needed)}; of this worker's cache of "
                f"{in_words(self._limit_bytes)}, running jobs use {in_words(used)}",
                hint="Resume the job when they have ended, or raise MODELYARD_DATA_CACHE_SIZE.",
            )
        free = shutil.disk_usage(self.folder).free
        if free < needed + KEEP_FREE_BYTES:
            return TrainingError(
                ErrorKind.DISK_FULL,
                f"The data set takes {in_words(needed)}, and {in_words(free)} are free below "
                f"{self.folder}, of which {in_words(KEEP_FREE_BYTES)} stay free",
                hint="Free some space there, or set MODELYARD_DATA_CACHE to a larger disk.",
            )
        return None

    def _remove(self, fingerprint: str, lock: int, *, whole: bool) -> None:
        part = self._part(fingerprint)
        shutil.rmtree(part, ignore_errors=True)
        if whole and (self.folder / fingerprint).exists():
            (self.folder / fingerprint).replace(part)  # never seen in part under its name
            shutil.rmtree(part, ignore_errors=True)
        if not part.exists() and not (self.folder / fingerprint).exists():
            self._mark(fingerprint).unlink(missing_ok=True)
        os.close(lock)

    def _used_at(self, fingerprint: str) -> float:
        try:
            return self._mark(fingerprint).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def _mark(self, fingerprint: str) -> Path:
        return self.folder / f"{fingerprint}.lock"

    def _part(self, fingerprint: str) -> Path:
        return self.folder / f"{fingerprint}.part"

    @contextmanager
    def _making_room(self) -> Iterator[None]:
        with (self.folder / "room.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # whoever holds it ends soon, or is killed
            yield


def cache_of(settings: Settings) -> DatasetCache:
    """Return the cache of this host."""
    return DatasetCache(settings.data_cache, limit_bytes=settings.data_cache_bytes)


def footprint(manifest: Manifest) -> int:
    """Return what a data set takes of a disk, rather too much than too little."""
    return manifest.content_bytes + _BLOCK_BYTES * manifest.files


def _read_manifest(folder: Path) -> Manifest | None:
    try:
        return Manifest.from_json((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError, DatasetError):
        return None
