"""The file of a backup: a compressed tar of small members, with a manifest as the last of them.

    tables/<table>/<part>.jsonl   rows, each a JSON list in the order of the manifest's columns
    home/<name>                   secrets that the home folder keeps
    index/<part>.jsonl            what jobs had written: {job, name, size, modified, sha256}
    outputs/<job>/<name>          those files themselves, where they were asked for
    manifest.json                 versions, counts, and each member's size and SHA-256

It is written in one pass, so that it may go through a pipe, and with no more in memory than one
part. A file that was cut short has no manifest; what was changed in it does not match.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO

from webapp.services.errors import Refused

FORMAT = 1
MANIFEST = "manifest.json"
FOLDERS = ("tables", "home", "index", "outputs")  # in the order in which they are written
PART_BYTES = 4 * 1024 * 1024
_COMPRESSION = 6
_CHUNK_BYTES = 1024 * 1024
_DAMAGE = (gzip.BadGzipFile, zlib.error, EOFError, tarfile.TarError)


class BackupError(Refused):
    """A backup cannot be taken, read or restored; the text says why and what to do."""


@dataclass(frozen=True)
class Table:
    columns: list[str]
    rows: int
    last_id: int | None  # the last one that was ever given, where the database counts them


@dataclass(frozen=True)
class Manifest:
    format: int
    modelyard: str  # the version that took the backup
    created_at: str
    database: str  # sqlite or postgresql
    revision: str
    tables: dict[str, Table]
    outputs: int  # files in the index of outputs
    outputs_problem: str | None  # why the index does not tell of all
    settings: dict[str, str]  # what was set, without secrets and addresses: for people
    members: dict[str, tuple[int, str]] = field(default_factory=dict)  # size and sha256 by name

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Manifest:
        """Read a manifest. Raises BackupError where it is of a later form, or not one at all."""
        try:
            raw = json.loads(content)
            if raw["format"] > FORMAT:
                raise BackupError(
                    f"The backup has form {raw['format']}, made by Modelyard {raw['modelyard']}; "
                    f"this version reads forms up to {FORMAT}: upgrade Modelyard first"
                )
            tables = {name: Table(**table) for name, table in raw["tables"].items()}
            members = {name: (int(m[0]), str(m[1])) for name, m in raw["members"].items()}
            return cls(**{**raw, "tables": tables, "members": members})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BackupError("The file's manifest is not that of a backup of Modelyard") from error


class ArchiveWriter:
    """Writes members one after the other; the manifest ends it."""

    def __init__(self, file: BinaryIO) -> None:
        self._gzip = gzip.GzipFile("", "wb", _COMPRESSION, file, mtime=0)
        self._tar = tarfile.TarFile.open(fileobj=self._gzip, mode="w|", format=tarfile.PAX_FORMAT)
        self.members: dict[str, tuple[int, str]] = {}

    def add(self, name: str, content: bytes) -> None:
        self.add_stream(name, io.BytesIO(content), size=len(content))

    def add_stream(self, name: str, stream: IO[bytes], *, size: int) -> None:
        """Add a member of exactly this size. Raises OSError where the stream ends before it."""
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = size, 0o600
        hashing = _Hashing(stream)
        self._tar.addfile(entry, hashing)
        self.members[name] = (size, hashing.digest.hexdigest())

    def finish(self, manifest: Manifest) -> None:
        self.add(MANIFEST, manifest.to_json())
        self._tar.close()
        self._gzip.close()


class _Hashing:
    """What is read through it is hashed on the way."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(size)
        self.digest.update(content)
        return content


class Parts:
    """Lines gathered into members of a few megabytes."""

    def __init__(self, archive: ArchiveWriter, name: Callable[[int], str]) -> None:
        self._archive = archive
        self._name = name
        self._lines: list[str] = []
        self._size = 0
        self._number = 0
        self.count = 0

    def add(self, value: Any) -> None:
        line = json.dumps(value, separators=(",", ":"))
        self._lines.append(line)
        self._size += len(line)  # of ASCII
        self.count += 1
        if self._size >= PART_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._lines:
            self._number += 1
            content = "\n".join(self._lines) + "\n"
            self._archive.add(self._name(self._number), content.encode())
        self._lines, self._size = [], 0


@contextmanager
def members(path: Path, *, to_the_end: bool = False) -> Iterator[Iterator[tuple[str, IO[bytes]]]]:
    """Give the members of an archive in their order, each to be read before the next.

    ``to_the_end``: only there it is told whether all was as it had been written. Raises
    BackupError where the file is damaged or none of ours.
    """
    try:
        with gzip.open(path, "rb") as unpacked:
            yield _members(unpacked)
            while to_the_end and unpacked.read(_CHUNK_BYTES):
                pass
    except _DAMAGE as error:
        raise BackupError(f"{path} is damaged, or no backup of Modelyard: {error}") from error


def _members(unpacked: gzip.GzipFile) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(fileobj=unpacked, mode="r|") as tar:
        for entry in tar:
            content = tar.extractfile(entry)
            if content is None:
                raise BackupError(f"'{entry.name}' in it is no file: not a backup of Modelyard")
            yield entry.name, content


def members_below(path: Path, folder: str) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the members of one of a verified archive's folders, by their names in it."""
    with members(path) as entries:
        for name, content in entries:
            place, _, rest = name.partition("/")
            if place == folder:
                yield rest, content
            elif place not in FOLDERS or FOLDERS.index(place) > FOLDERS.index(folder):
                return  # the rest may be gigabytes of outputs


def verify(path: Path) -> Manifest:
    """Read all of an archive and return its manifest. Raises BackupError where anything is off."""
    found: dict[str, tuple[int, str]] = {}
    manifest: Manifest | None = None
    with members(path, to_the_end=True) as entries:
        for name, content in entries:
            if manifest is not None or name in found:
                raise BackupError(f"{path} is damaged: '{name}' is one member too many")
            if name == MANIFEST:
                manifest = Manifest.from_json(content.read())
            else:
                found[name] = _measure(content)
    if manifest is None:
        raise BackupError(f"{path} is no whole backup of Modelyard: it has no manifest")
    _compare(path, found, manifest.members)
    return manifest


def _compare(
    path: Path,
    found: Mapping[str, tuple[int, str]],
    told: Mapping[str, tuple[int, str]],
) -> None:
    for name in sorted(found.keys() | told.keys()):
        if found.get(name) != told.get(name):
            raise BackupError(f"{path} is damaged: '{name}' is not what its manifest says")


def _measure(content: IO[bytes]) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    while chunk := content.read(_CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()
