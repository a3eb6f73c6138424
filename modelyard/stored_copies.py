"""A host's copy of what a job has in the store, in the job's own folder among the outputs.

``.stored.json`` in the folder says what the copy is: the folder of an attempt that trains or
trained here and may be ahead of the store, or single files that were fetched. A lock beside it
keeps two processes of a host from changing a folder at once.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from modelyard.locks import take
from modelyard.storage import ObjectDamaged, ObjectMissing, StorageError, Store, file_sha256
from modelyard.stored_outputs import Index, StoredFile, StoredOutputs

logger = logging.getLogger(__name__)

STATE = ".stored.json"
_LOCK = ".stored.lock"
_GONE = ".gone-"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class LocalState:
    """What a job's folder on this host holds."""

    attempt: int  # whose files they are
    whole: bool  # the attempt works, or worked, in this folder
    files: Mapping[str, str] = field(default_factory=dict)  # fetched: checksum by name
    stored: bool = False  # all of a whole one is in the store, too


@dataclass(frozen=True)
class Brought:
    """What a new attempt begins with."""

    attempt: int  # whose files they are; 0: there were none
    from_store: bool
    notes: tuple[str, ...] = ()  # what was damaged, for the job's log


def read_state(folder: Path) -> LocalState | None:
    """Return what a folder holds, None where nobody has said."""
    try:
        return LocalState(**json.loads((folder / STATE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def write_state(folder: Path, state: LocalState) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{STATE}.{os.getpid()}"
    temporary.write_text(json.dumps(asdict(state)))
    temporary.replace(folder / STATE)


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Let no other process of this host change a job's folder meanwhile."""
    while (lock := _lock(folder)) is None:
        pass
    try:
        yield
    finally:
        os.close(lock)


def claim(folder: Path) -> None:
    """Say that a folder is used now, so that it is not swept away from under an attempt."""
    with changing(folder):
        if (folder / STATE).exists():
            os.utime(folder / STATE)


def sweep(jobs: Path, *, idle_seconds: float) -> None:
    """Remove the folders of jobs of which all is in the store, and that were not used lately.

    One that somebody changes just now is in use, and is not waited for: it may be fetched into for
    a long time, and who sweeps is an attempt that ends.
    """
    for gone in jobs.glob(f"{_GONE}*"):  # a process was killed while it removed it
        shutil.rmtree(gone, ignore_errors=True)
    for state_file in jobs.glob(f"*/{STATE}"):
        try:
            _sweep_folder(state_file.parent, idle_seconds=idle_seconds)
        except OSError as error:
            logger.warning("%s stays: %s", state_file.parent, error)


def _sweep_folder(folder: Path, *, idle_seconds: float) -> None:
    lock = take(folder / _LOCK, new=True)
    if lock is None:
        return
    try:
        state = read_state(folder)
        if state is None or (state.whole and not state.stored):
            return
        if time.time() - (folder / STATE).stat().st_mtime < idle_seconds:
            return
        gone = folder.with_name(f"{_GONE}{uuid.uuid4().hex}")
        folder.replace(gone)
    finally:
        os.close(lock)
    logger.info("%s is in the store and is removed here", folder)
    shutil.rmtree(gone, ignore_errors=True)


def bring(
    outputs: StoredOutputs, folder: Path, *, attempt: int, progress: Progress = lambda d, t: None
) -> Brought:
    """Have in a folder what an attempt goes on from, from the newest attempt that is whole.

    What this host has itself comes first where no other host's is newer: it may be ahead of the
    store. Raises ObjectDamaged where there are checkpoints and none is good, and StorageError.
    """
    with changing(folder):
        state = read_state(folder)
        stored = [number for number in outputs.attempts() if number <= attempt]
        if state is not None and state.whole and state.attempt >= max(stored, default=0):
            return Brought(state.attempt, from_store=False)
        notes: list[str] = []
        for number in stored:
            try:
                index = outputs.index(number)
                notes += _replace(outputs.store, index, folder, progress=progress)
            except (ObjectDamaged, ObjectMissing) as error:
                logger.warning("attempt %s cannot be gone on from: %s", number, error)
                notes.append(f"The files of attempt {number} in the store are no good: {error}")
                continue
            return Brought(number, from_store=True, notes=tuple(notes))
        if stored:
            raise ObjectDamaged("; ".join(notes))
        return Brought(0, from_store=False)


def fetch(
    store: Store, index: Index, folder: Path, *, wanted: Callable[[StoredFile], bool], needed: str
) -> bool:
    """Have some of a job's files in its folder; return whether the folder is an attempt's own.

    Then it is left as it is, for the attempt is as new as the index or newer. Raises StorageError
    where one cannot be had whose name begins with ``needed``; others are left out.
    """
    with changing(folder):
        state = read_state(folder)
        if not index.files or (state and state.whole and state.attempt >= index.attempt):
            return True
        had = {} if state is None or state.whole else dict(state.files)
        missing = [
            file
            for file in filter(wanted, index.files.values())
            if had.get(file.name) != file.sha256 or not (folder / file.name).is_file()
        ]
        for file in missing:  # while they are replaced, they are not what anybody has said
            had.pop(file.name, None)
        write_state(folder, LocalState(index.attempt, whole=False, files=had))
        for file in missing:
            try:
                _get(store, file, folder)
            except (ObjectDamaged, ObjectMissing) as error:
                if file.name.startswith(needed):
                    raise
                logger.warning("a file is left out: %s", error)
                continue
            had[file.name] = file.sha256
        write_state(folder, LocalState(index.attempt, whole=False, files=had))
    return False


def put_events(store: Store, key: str, events: Path, *, start: int, scratch: Path) -> int:
    """Store the whole lines of an attempt's events; return where they end in its file.

    Packed: a tenth of the size, and with a checksum that is looked at when they are read.
    """
    end = start
    with events.open("rb") as source, gzip.open(scratch, "wb", compresslevel=1) as target:
        source.seek(start)
        for line in source:
            if not line.endswith(b"\n"):
                break  # being written
            target.write(line)
            end += len(line)
    store.put(scratch, key)
    return end


def get_events(store: Store, key: str, into: Path) -> None:
    """Fetch an attempt's events into a file. Raises StorageError."""
    packed = into.with_name(f"{into.name}.gz")
    try:
        store.get(key, packed)
        temporary = into.with_name(f"{into.name}.writing")
        with gzip.open(packed, "rb") as source, temporary.open("wb") as target:
            shutil.copyfileobj(source, target)
        temporary.replace(into)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ObjectDamaged(f"{key} is damaged: {error}") from error
    finally:
        packed.unlink(missing_ok=True)


def below(folder: Path, *, besides: Collection[str] = ()) -> Iterator[str]:
    """Yield the names of a folder's files, without those that are hidden, and without links."""
    for place, folders, names in os.walk(folder):
        here = Path(place).relative_to(folder)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (here / name).as_posix() not in besides
        )
        for name in sorted(names):
            path = Path(place) / name
            if not name.startswith(".") and path.is_file() and not path.is_symlink():
                yield (here / name).as_posix()


def _replace(store: Store, index: Index, folder: Path, *, progress: Progress) -> list[str]:
    """Make a folder what an index says; return what could not be had and is not needed."""
    (folder / STATE).unlink(missing_ok=True)  # from here on until it is done, it is nobody's
    _look_for_links(folder / "checkpoints", folder)
    _remove(set(below(folder / "checkpoints")) - _names(index), folder / "checkpoints")
    notes: list[str] = []
    done, total = 0, sum(file.size for file in index.files.values())
    # Checkpoints first: where one is no good, nothing else need be fetched.
    for file in sorted(index.files.values(), key=lambda file: not file.is_checkpoint):
        try:
            _get(store, file, folder)
        except (ObjectDamaged, ObjectMissing) as error:
            if file.is_checkpoint:
                raise
            notes.append(f"{file.name} is left out: {error}")
        done += file.size
        progress(done, total)
    return notes


def _names(index: Index) -> set[str]:
    return {f.name.removeprefix("checkpoints/") for f in index.files.values() if f.is_checkpoint}


def _remove(names: Iterable[str], folder: Path) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _get(store: Store, file: StoredFile, folder: Path) -> None:
    """Have one file, from the store unless the very content lies here already."""
    path = folder / file.name
    _look_for_links(path.parent, folder)
    if path.is_symlink():
        path.unlink()
    if not _is_same(path, file):
        store.get(file.key, path, sha256=file.sha256)
    os.utime(path, (file.modified, file.modified))


def _lock(folder: Path) -> int | None:
    """Return a folder's lock, once it is had; None where the folder was removed meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    # Waited for: whoever holds it ends soon, or is killed.
    return take(folder / _LOCK, new=True, wait=True)


def _look_for_links(place: Path, folder: Path) -> None:
    if not place.resolve().is_relative_to(folder.resolve()):
        raise StorageError(f"{place} leads out of the job's folder; remove the link in it")


def _is_same(path: Path, file: StoredFile) -> bool:
    try:
        return path.stat().st_size == file.size and file_sha256(path) == file.sha256
    except FileNotFoundError:
        return False
