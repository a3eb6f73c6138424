"""What the entries of an uploaded archive may be called, and what kind of thing each may be."""

from __future__ import annotations

import stat
import unicodedata
import zipfile
from contextlib import suppress
from pathlib import PurePosixPath

from adapters.data.description import DatasetError
from adapters.data.roots import printable

MAX_NAME_BYTES = 255  # of one part, what file systems take
MAX_PATH_BYTES = 1000  # of the whole, well below the 4096 of a path from the root
MAX_DEPTH = 24

_UTF8, _ENCRYPTED, _STRONGLY_ENCRYPTED, _MASKED = 0x800, 0x1, 0x40, 0x2000  # flag bits
_READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# What operating systems add to an archive; nobody put it there on purpose.
_LITTER_FOLDER = "__MACOSX"
_LITTER_FILES = frozenset((".ds_store", "thumbs.db", "desktop.ini"))


class ArchiveRefused(DatasetError):
    """An archive that is not unpacked, or not to its end; the message says which entry and why."""


def parts_of(entry: zipfile.ZipInfo) -> tuple[str, ...]:
    """Return the path of an entry as the names in it; empty for litter and for the root itself.

    Raises ArchiveRefused where it is a link or a device, is encrypted, leads out of the archive,
    or has a name that no file should have.
    """
    name = _name(entry)
    shown = printable(name)[:200]
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if parts and (parts[0] == _LITTER_FOLDER or parts[-1].lower() in _LITTER_FILES):
        return ()
    if reason := _wrong_name(name, parts) or _wrong_kind(entry):
        raise ArchiveRefused(f"'{shown}' in the archive {reason}")
    return parts


class Names:
    """The paths of an archive so far; refuses those that a Mac or Windows takes for the same."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}  # folded: as written
        self._files: dict[str, str] = {}

    def add(self, parts: tuple[str, ...], *, folder: bool) -> None:
        """Take in a path. Raises ArchiveRefused where it collides with an earlier one."""
        above = parts if folder else parts[:-1]
        for depth in range(1, len(above) + 1):
            self._add_folder("/".join(above[:depth]))
        if not folder:
            self._add_file("/".join(parts))

    def _add_folder(self, path: str) -> None:
        key = _folded(path)
        other = self._folders.setdefault(key, path)
        if other != path:
            raise _alike(other, path)
        if key in self._files:
            raise _both(self._files[key], path)

    def _add_file(self, path: str) -> None:
        key = _folded(path)
        if (other := self._files.get(key)) is not None:
            raise _twice(path) if other == path else _alike(other, path)
        self._files[key] = path
        if key in self._folders:
            raise _both(self._folders[key], path)


def _folded(path: str) -> str:
    """Return what paths have in common that differ by case or by composition only."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _alike(one: str, other: str) -> ArchiveRefused:
    return ArchiveRefused(
        f"'{printable(one)}' and '{printable(other)}' in the archive differ only by case or by "
        "how their letters are composed; rename one"
    )


def _both(one: str, other: str) -> ArchiveRefused:
    if one != other:
        return _alike(one, other)
    return ArchiveRefused(f"'{printable(one)}' in the archive is a file and a folder")


def _twice(path: str) -> ArchiveRefused:
    return ArchiveRefused(f"'{printable(path)}' is in the archive twice")


def _name(entry: zipfile.ZipInfo) -> str:
    """Return an entry's whole name: as written, not cut at a NUL as the library does.

    A Mac writes UTF-8 and does not say so; the library then reads it as a DOS code page. So does
    a Korean Windows with its own code page, whose syllables would be frames of boxes in the other.
    """
    name = entry.orig_filename
    if entry.flag_bits & _UTF8 or name.isascii():
        return name
    with suppress(UnicodeError):
        return name.encode("cp437").decode("utf-8")
    with suppress(UnicodeError):
        korean = name.encode("cp437").decode("euc_kr")
        if all("가" <= c <= "힣" for c in korean if not c.isascii()):
            return korean
    return name


def _wrong_name(name: str, parts: tuple[str, ...]) -> str:
    """Return what is wrong with a name, as the end of a sentence; nothing where all is well."""
    if any(ord(c) < 0x20 or ord(c) == 0x7F for c in name):
        return "has control characters in its name"
    if "\\" in name:
        return "has a backslash in its name; folders are separated by '/'"
    if PurePosixPath(name).is_absolute() or name[1:2] == ":":
        return "has an absolute name; names must be relative"
    if ".." in parts:
        return "leads out of the archive by '..'"
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    if any(len(part) > MAX_NAME_BYTES for part in encoded):
        return f"has a name of more than {MAX_NAME_BYTES} bytes"
    if sum(map(len, encoded)) + len(encoded) > MAX_PATH_BYTES:
        return f"has a path of more than {MAX_PATH_BYTES} bytes"
    if len(parts) > MAX_DEPTH:
        return f"lies more than {MAX_DEPTH} folders deep"
    return ""


def _wrong_kind(entry: zipfile.ZipInfo) -> str:
    """Return why an entry is no plain file or folder, as the end of a sentence."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a link; put in what it points to"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is neither a file nor a folder"
    if entry.flag_bits & (_ENCRYPTED | _STRONGLY_ENCRYPTED | _MASKED):
        return "is encrypted; make the archive without a password"
    if entry.compress_type not in _READABLE:
        # The others' decompressors give all they hold at once, however much that is.
        return "is compressed by another method than 'deflate'"
    return ""
