"""Unpacking an uploaded archive: all of it below one new folder, or nothing at all.

An archive comes from a stranger. Nothing it says of itself is believed: sizes are counted while
it is unpacked, names are checked before anything is written, no link is made and no permission
taken over, and each file is made new. :func:`unpack` decodes what strangers made: a server calls
:func:`adapters.data.unpack_apart.unpack_apart`, which does the same in a process of its own.
"""

from __future__ import annotations

import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from adapters.data.archive_names import ArchiveRefused, Names, parts_of
from adapters.data.roots import printable

Progress = Callable[[int, int], None]  # bytes done, and of how many

_CHUNK_BYTES = 1024 * 1024
_RATIO_FROM_BYTES = 64 * 1024 * 1024  # below it no ratio is looked at: small images of one colour
_DISK_LOOK_BYTES = 64 * 1024 * 1024  # how often the room on the disk is looked at

# Folders that mean something by their name are not taken for the wrapping of a data set.
_NOTES = frozenset(("", ".txt", ".md", ".rst", ".pdf", ".html", ".docx"))  # beside a wrapping
_MEANT = frozenset(("train", "val", "valid", "validation", "test", "images", "labels", "masks"))


@dataclass(frozen=True)
class Limits:
    """How large what an archive holds may be."""

    total_bytes: int
    ratio: float  # unpacked bytes to the archive's own
    files: int  # entries, folders included
    keep_free_bytes: int = 0  # of the disk


@dataclass(frozen=True)
class _Entry:
    info: zipfile.ZipInfo
    parts: tuple[str, ...]


def unpack(archive: Path, into: Path, *, limits: Limits, progress: Progress | None = None) -> Path:
    """Unpack a zip into a folder that is made for it, and return where the data set lies.

    That is the folder in it where the archive holds one folder and nothing beside it. Raises
    ArchiveRefused, and OSError where the disk refuses; then nothing is left of the folder.
    """
    into.mkdir()
    try:
        with _opened(archive) as file:
            entries = _checked(file, limits)
            _Unpacking(file, into, limits=limits, archive_bytes=archive.stat().st_size,
                       progress=progress or _no_progress).run(entries)  # fmt: skip
        return _without_wrapping(into)
    except BaseException:
        shutil.rmtree(into, ignore_errors=True)
        raise


# What the library raises on hostile bytes; OSError, too, where an offset makes no sense.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,
    UnicodeError,
    ValueError,
    struct.error,
)


def _opened(archive: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except _UNREADABLE as failure:
        raise ArchiveRefused(f"the file is not a zip that can be read: {failure}") from failure


def _checked(file: zipfile.ZipFile, limits: Limits) -> list[_Entry]:
    """Return what is to be unpacked. Raises ArchiveRefused for the first entry that may not be."""
    found = file.infolist()
    if len(found) > limits.files:
        message = f"the archive has {len(found):,} entries; at most {limits.files:,} are taken"
        raise ArchiveRefused(message)
    names = Names()
    entries = []
    for info in found:
        parts = parts_of(info)
        if parts:
            names.add(parts, folder=info.is_dir())
            entries.append(_Entry(info, parts))
    if not any(not entry.info.is_dir() for entry in entries):
        raise ArchiveRefused("the archive has no file in it")
    return entries


class _Unpacking:
    """Writes entries and counts what really comes out of them."""

    def __init__(
        self,
        file: zipfile.ZipFile,
        into: Path,
        *,
        limits: Limits,
        archive_bytes: int,
        progress: Progress,
    ) -> None:
        self._file = file
        self._into = into
        self._limits = limits
        self._allowed_by_ratio = max(_RATIO_FROM_BYTES, int(limits.ratio * archive_bytes))
        self._progress = progress
        self._total = self._written = 0
        self._made: set[Path] = set()
        self._looked_at_disk = -_DISK_LOOK_BYTES

    def run(self, entries: list[_Entry]) -> None:
        self._total = sum(entry.info.file_size for entry in entries)
        self._check_size(self._total)  # of what it claims: sooner refused than written
        self._check_disk(self._total)
        for entry in entries:
            path = self._into.joinpath(*entry.parts)
            folder = path if entry.info.is_dir() else path.parent
            if folder not in self._made:
                folder.mkdir(parents=True, exist_ok=True)
                self._made.add(folder)
            if folder is not path:
                self._write(entry, path)

    def _write(self, entry: _Entry, path: Path) -> None:
        with path.open("xb") as out:
            for chunk in self._chunks(entry):
                self._written += len(chunk)
                self._check_size(self._written)
                if self._written - self._looked_at_disk >= _DISK_LOOK_BYTES:
                    self._looked_at_disk = self._written
                    self._check_disk(0)
                out.write(chunk)
                self._progress(self._written, max(self._total, self._written))

    def _chunks(self, entry: _Entry) -> Iterator[bytes]:
        """Yield an entry's content. Raises ArchiveRefused where it is torn or its sum is wrong."""
        shown = printable("/".join(entry.parts))
        try:
            with self._file.open(entry.info) as source:
                while chunk := source.read(_CHUNK_BYTES):
                    yield chunk
        except _UNREADABLE as failure:
            message = f"'{shown}' in the archive cannot be unpacked: {printable(str(failure))}"
            raise ArchiveRefused(message) from failure

    def _check_size(self, size: int) -> None:
        if size > self._limits.total_bytes:
            allowed = in_words(self._limits.total_bytes)
            raise ArchiveRefused(f"the archive holds more than {allowed}, the most that is taken")
        if size > self._allowed_by_ratio:
            raise ArchiveRefused(
                f"the archive unpacks to more than {self._limits.ratio:g} times its own size, "
                "as no images do"
            )

    def _check_disk(self, needed: int) -> None:
        free = shutil.disk_usage(self._into).free - self._limits.keep_free_bytes
        if free < needed or free < 0:
            room = in_words(max(0, free))
            raise ArchiveRefused(f"the server has no room for it: {room} are left for uploads")


def _without_wrapping(into: Path) -> Path:
    """Return the one folder that holds everything but notes, or the one in that."""
    found = _only_folder(into) or into
    # In a folder, one of images alone is a class, and no data set by itself.
    while (inner := _only_folder(found)) and any(entry.is_dir() for entry in inner.iterdir()):
        found = inner
    return found


def _only_folder(folder: Path) -> Path | None:
    with os.scandir(folder) as scan:
        entries = [entry for entry in scan if not _is_note(entry)]
    only = entries[0] if len(entries) == 1 else None
    if only is None or not only.is_dir() or only.name.lower() in _MEANT:
        return None
    return folder / only.name


def _is_note(entry: os.DirEntry[str]) -> bool:
    hidden = entry.name.startswith(".")
    return entry.is_file() and (hidden or Path(entry.name).suffix.lower() in _NOTES)


def _no_progress(done: int, total: int) -> None:
    """Tell nobody."""


def in_words(size: int) -> str:
    """Return a number of bytes for a person: '1.5 GB'."""
    if size < 1000:
        return f"{size} bytes"
    value, unit = size / 1000, "kB"
    for larger in ("MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"
