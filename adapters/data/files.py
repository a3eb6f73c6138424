# ruff: noqa: PTH112, PTH113, PTH114, PTH118
# os.path and not pathlib: it answers False where pathlib raises (a name too long), and is faster.
"""Listing the files of a data set without leaving it."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adapters.data.description import Problem, Severity
from adapters.data.roots import is_inside, printable

IMAGE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
)

# Told of as such: they are images to whoever put them there.
_OTHER_IMAGES = frozenset(
    (".heic", ".heif", ".avif", ".jfif", ".jpe", ".jp2", ".jxl", ".dng", ".cr2", ".nef", ".svg")
)

# What systems leave behind; nobody put it there on purpose, so nobody is warned of it.
_LITTER = frozenset(
    (
        "thumbs.db",
        "desktop.ini",
        "__macosx",
        "@eadir",  # previews that a Synology makes of each image
        "#recycle",
        "$recycle.bin",
        "system volume information",
        "lost+found",
    )
)


@dataclass
class Listing:
    """The images below a folder, in the order of their names, and what is wrong with the rest."""

    images: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def list_images(
    folder: Path,
    *,
    base: Path,
    allowed: Sequence[str],
    suffixes: frozenset[str] = IMAGE_SUFFIXES,
    known: frozenset[str] = frozenset(),
) -> Listing:
    """List the images below a folder, following only links that stay in the allowed folders.

    Problems name files relative to ``base``. Files with a suffix in ``known`` belong to the
    format and are passed over; any other is warned of.
    """
    listing = Listing()
    for path, problem in _walk(folder, base=base, allowed=allowed):
        suffix = path.suffix.lower()
        if problem is not None:
            listing.problems.append(problem)
        elif suffix in suffixes:
            listing.images.append(path)
        elif suffix not in known:
            listing.problems.append(_unknown_file(path, base))
    listing.images.sort(key=os.fspath)
    listing.problems.sort(key=lambda problem: problem.file or "")
    return listing


def subfolders(folder: Path, *, base: Path, allowed: Sequence[str]) -> tuple[list[Path], Listing]:
    """Return the folders directly in a folder by natural order, and what else lies there."""
    folders: list[Path] = []
    rest = Listing()
    for path, problem, real in _entries(folder, base=base, allowed=allowed):
        if problem is not None:
            rest.problems.append(problem)
        elif os.path.isdir(real):
            folders.append(path)
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            rest.images.append(path)
        else:
            rest.problems.append(_unknown_file(path, base))
    folders.sort(key=lambda path: natural_key(path.name))
    return folders, rest


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a sort key by which '2' comes before '10' and letters go by their code points."""
    parts = [part for part in re.split(r"([0-9]+)", name) if part]
    return [_number_key(part) if "0" <= part[0] <= "9" else (1, 0, part) for part in parts], name


def class_name(folder_name: str) -> str:
    """Return the class that a folder stands for: composed Unicode, and always printable.

    A Mac decomposes names such as Korean ones and Linux does not; both mean the same class.
    """
    return printable(composed(folder_name))


def composed(name: str) -> str:
    """Return a name as most systems write it; a Mac takes letters such as Korean ones apart."""
    return unicodedata.normalize("NFC", name)


def spellings(name: str) -> Iterator[str]:
    """Yield a name as it is given and, where they differ, with its letters composed or not.

    Who packs on a Mac what was annotated elsewhere has files and lists of different compositions.
    """
    yield name
    if not name.isascii():
        forms = (composed(name), unicodedata.normalize("NFD", name))
        yield from (form for form in dict.fromkeys(forms) if form != name)


def relative_name(path: Path, base: Path) -> str:
    """Return the name by which a problem shows a file: relative to the data set, printable."""
    return printable(os.path.relpath(path, base).replace(os.sep, "/"))


def error(code: str, message: str, *, file: str | None = None, line: int | None = None) -> Problem:
    return Problem(Severity.ERROR, code, message, file, line)


def warning(
    code: str, message: str, *, file: str | None = None, line: int | None = None
) -> Problem:
    return Problem(Severity.WARNING, code, message, file, line)


def _number_key(digits: str) -> tuple[int, int, str]:
    significant = digits.lstrip("0")  # compared by length and text: int() refuses long numbers
    return 0, len(significant), significant


def _walk(
    folder: Path, *, base: Path, allowed: Sequence[str]
) -> Iterator[tuple[Path, Problem | None]]:
    start = os.path.realpath(folder)
    waiting = [folder]
    seen = {start}  # real paths, so that a link to a folder above ends the walk and not the disk
    while waiting:
        for path, problem, real in _entries(waiting.pop(), base=base, allowed=allowed):
            if problem is not None:
                yield path, problem
            elif not os.path.isdir(real):
                yield path, None
            elif real not in seen:
                seen.add(real)
                waiting.append(path)


def _entries(
    folder: Path, *, base: Path, allowed: Sequence[str]
) -> Iterator[tuple[Path, Problem | None, str]]:
    """Yield each entry of a folder with what is wrong with it and its real path."""
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as failure:
        name = relative_name(folder, base)
        reason = failure.strerror or "it cannot be listed"
        yield folder, error("unreadable_folder", f"'{name}': {reason}", file=name), ""
        return
    real_folder = os.path.realpath(folder)
    for entry in entries:
        if entry.name.startswith(".") or entry.name.lower() in _LITTER:
            continue
        path = Path(entry.path)
        real = os.path.join(real_folder, entry.name)
        if entry.is_symlink():
            real = os.path.realpath(path)
        yield path, _link_or_device(path, real, base=base, allowed=allowed), real


def _link_or_device(path: Path, real: str, *, base: Path, allowed: Sequence[str]) -> Problem | None:
    if not is_inside(real, allowed):
        name = relative_name(path, base)
        message = f"'{name}' is a link that leads out of the data set's folder; copy it"
        return error("link_outside", message, file=name)
    if os.path.isfile(real) or os.path.isdir(real):
        return None
    name = relative_name(path, base)
    if os.path.lexists(real) and not os.path.islink(real):
        # Opening a pipe would wait for ever for a writer.
        return error("not_a_file", f"'{name}' is neither a file nor a folder", file=name)
    return error("broken_link", f"'{name}' is a link to something that is not there", file=name)


def _unknown_file(path: Path, base: Path) -> Problem:
    name = relative_name(path, base)
    if path.suffix.lower() in _OTHER_IMAGES:
        message = f"'{name}' is an image of a form that is not read; save it as JPEG or PNG"
        return warning("unknown_file", message, file=name)
    return warning("unknown_file", f"'{name}' is no image and is passed over", file=name)
