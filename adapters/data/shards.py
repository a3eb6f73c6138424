"""Writing the files of a data set into shards of bounded size, and unpacking shards.

A shard is a plain tar with nothing in it that depends on when or where it was written, so the same
files in the same order give the same bytes. What is unpacked comes from a store that others may
write to: only plain files are taken, below a folder that holds no links, and no more than the
manifest says.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, BinaryIO, cast

from adapters.data.description import DatasetError
from adapters.data.manifest import Shard
from adapters.data.roots import is_inside, printable

SHARD_BYTES = 64 * 1024 * 1024  # small enough to tell progress by, large enough to be few
_CHUNK_BYTES = 1024 * 1024
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)
READY = ".tar"  # a shard that is whole; one that is being written ends in '.part'


class ShardRefused(DatasetError):
    """A shard holds what it may not, or not what its manifest says."""


class ShardWriter:
    """Writes files into one shard after the other; use it as a context manager."""

    def __init__(
        self,
        folder: Path,
        *,
        shard_bytes: int = SHARD_BYTES,
        before_shard: Callable[[], None] = lambda: None,
    ) -> None:
        """Write shards into a folder; ``before_shard`` is called before each, and may wait."""
        self.shards: list[Shard] = []
        self._folder = folder
        self._shard_bytes = shard_bytes
        self._before_shard = before_shard
        self._open: _OpenShard | None = None

    def add(self, name: str, content: BinaryIO, *, size: int) -> str:
        """Put a file into a shard and return its sha256. Raises DatasetError where it is short."""
        if self._open is not None and self._open.content_bytes + size > self._shard_bytes:
            self.close()
        if self._open is None:
            self._before_shard()
            self._open = _OpenShard(self._folder / f"{len(self.shards)}.part")
        return self._open.add(name, content, size=size)

    def add_bytes(self, name: str, content: bytes) -> str:
        return self.add(name, io.BytesIO(content), size=len(content))

    def close(self) -> None:
        """Finish the last shard."""
        if self._open is not None:
            self.shards.append(self._open.close(self._folder))
            self._open = None


class _OpenShard:
    def __init__(self, path: Path) -> None:
        self.content_bytes = 0
        self._files = 0
        self._path = path
        self._file = _Summed(path)
        self._tar = tarfile.open(  # noqa: SIM115
            fileobj=cast("BinaryIO", self._file),  # it is only written to
            mode="w|",
            format=tarfile.PAX_FORMAT,
            encoding="utf-8",
            errors="surrogateescape",
        )

    def add(self, name: str, content: BinaryIO, *, size: int) -> str:
        entry = tarfile.TarInfo(name)  # of nobody, from 1970
        entry.size = size
        summed = _SummedReader(content)
        try:
            self._tar.addfile(entry, summed)
        except OSError as failure:
            if summed.bytes >= size:
                raise
            message = f"'{printable(name)}' became shorter while it was read"
            raise DatasetError(message) from failure
        self._files += 1
        self.content_bytes += size
        return summed.sha256

    def close(self, folder: Path) -> Shard:
        self._tar.close()
        sha256, size = self._file.close()
        shard = Shard(sha256, size, self._files, self.content_bytes)
        self._path.replace(folder / shard.name)
        return shard


class _Summed:
    """A file whose sum is taken while it is written."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self._size += len(data)
        return self._file.write(data)

    def close(self) -> tuple[str, int]:
        self._file.close()
        return self._hash.hexdigest(), self._size


class _SummedReader:
    """A file whose sum is taken while it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.bytes = 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        self.bytes += len(data)
        return data

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def open_inside(path: Path, base: Path) -> tuple[BinaryIO, int]:
    """Open a plain file that really lies in a data set's folder; return it and its size.

    Looked at once it is open, so that no link can be put in its place meanwhile. Raises
    DatasetError.
    """
    shown = printable(os.path.relpath(path, base))
    try:
        # Non-blocking: a pipe would wait for ever for a writer.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as failure:
        raise DatasetError(f"'{shown}' cannot be read: {failure.strerror}") from failure
    status = os.fstat(file.fileno())
    held = Path(f"/proc/self/fd/{file.fileno()}")
    real = os.path.realpath(held if held.exists() else path)
    if stat.S_ISREG(status.st_mode) and is_inside(real, [os.path.realpath(base)]):
        return file, status.st_size
    file.close()
    raise DatasetError(f"'{shown}' is no plain file in the data set's folder")


def unpack_shard(tar: Path, shard: Shard, into: Path, *, on_bytes: Callable[[int], None]) -> None:
    """Unpack a shard's files into a folder; ``on_bytes`` hears of each piece that is written.

    Raises ShardRefused, and OSError where the disk refuses.
    """
    files = size = 0
    try:
        with tarfile.open(tar, "r:", encoding="utf-8", errors="surrogateescape") as opened:
            for entry in opened:
                path = into / _checked_name(entry)
                files, size = files + 1, size + entry.size
                if files > shard.files or size > shard.content_bytes:
                    raise ShardRefused("a shard holds more than its manifest says")
                path.parent.mkdir(parents=True, exist_ok=True)
                content = opened.extractfile(entry)
                assert content is not None  # it is a plain file
                _write(content, path, size=entry.size, on_bytes=on_bytes)
    except tarfile.TarError as failure:
        raise ShardRefused(f"a shard cannot be unpacked: {failure}") from failure
    if (files, size) != (shard.files, shard.content_bytes):
        raise ShardRefused("a shard holds less than its manifest says")


def make_folders(folders: tuple[str, ...], into: Path) -> None:
    """Make the folders that a manifest names. Raises ShardRefused for one that leads elsewhere."""
    for name in folders:
        (into / _checked(name)).mkdir(parents=True, exist_ok=True)


def _write(
    content: IO[bytes],
    path: Path,
    *,
    size: int,
    on_bytes: Callable[[int], None],
) -> None:
    left = size
    with path.open("xb") as out:
        while left:
            data = content.read(min(left, _CHUNK_BYTES))
            if not data:
                raise ShardRefused("a shard ends in the middle of a file")
            out.write(data)
            left -= len(data)
            on_bytes(len(data))


def _checked_name(entry: tarfile.TarInfo) -> str:
    if entry.type not in _PLAIN or entry.issparse():
        raise ShardRefused(f"'{printable(entry.name)[:200]}' in a shard is no plain file")
    return _checked(entry.name)


def _checked(name: str) -> str:
    parts = name.split("/")
    if name == "." or not (name.startswith("/") or "\0" in name or ".." in parts or "" in parts):
        return name
    raise ShardRefused(f"'{printable(name)[:200]}' is no name that a data set's file may have")
