"""Checking that an image can be decoded to its last row, and hashing it on the way."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from adapters.data.description import DatasetError, Problem
from adapters.data.files import error, relative_name, warning
from adapters.data.roots import printable

# The decoders a data set may reach. Others of Pillow start programs (EPS) or parse documents.
_SUFFIXES_OF_FORMAT = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg", ".mpo"),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
# What Pillow may open; its JPEG decoder opens MPO, which it does not know as a format of its own
# and stops at: no BMP, WebP or TIFF would be read.
FORMATS = tuple(name for name in _SUFFIXES_OF_FORMAT if name != "MPO")
MAX_IMAGE_BYTES = 512 * 1024 * 1024
MAX_IMAGE_PIXELS = 80_000_000  # just below where Pillow warns of a decompression bomb
_ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 exchange width and height
_TURNED = range(2, 9)
_QUARTER_TURNS = range(5, 9)
_PNG_BIT_DEPTH = 24  # the byte of the header that tells it
_TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)


@dataclass(frozen=True)
class CheckedFile:
    """What checking a file told: a hash of its content and what is wrong with it."""

    sha256: str
    problems: tuple[Problem, ...] = ()
    size: tuple[int, int] | None = None  # width and height, turned; None: it cannot be read


class FileUnreadable(Exception):
    """A file cannot be read; the message is the reason, as the end of a sentence."""


def check_image(path: Path, *, base: Path, smallest_side: int = 1) -> CheckedFile:
    """Read and decode an image. Problems name it relative to ``base``; nothing is raised."""
    name = relative_name(path, base)
    try:
        content = read_limited(path, limit=MAX_IMAGE_BYTES)
    except FileUnreadable as failure:
        message = f"'{name}' cannot be read: {failure}"
        return CheckedFile("", (error("unreadable_image", message, file=name),))
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        return _decode(
            content, sha256, name=name, suffix=path.suffix.lower(), smallest=smallest_side
        )
    except _TOO_LARGE:
        return CheckedFile(sha256, (_too_large(name),))
    except Exception as failure:  # on hostile bytes decoders raise anything, from IndexError on
        message = f"'{name}' cannot be read as an image: {reason_of(failure, content=content)}"
        return CheckedFile(sha256, (error("unreadable_image", message, file=name),))


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image as RGB of eight bits; one of 16 bits a pixel keeps its upper eight.

    Pillow itself would make all that is above 255 white.
    """
    if image.mode.startswith("I;16"):
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L").convert("RGB")
    return image.convert("RGB")


def image_size(path: Path) -> tuple[int, int]:
    """Return the width and height of an image, turned as its camera said; decodes nothing.

    Raises DatasetError where it cannot be read.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) in _QUARTER_TURNS
    except MemoryError:
        raise
    except Exception as failure:  # on hostile bytes decoders raise anything, from IndexError on
        reason = reason_of(failure)
        raise DatasetError(f"image '{printable(str(path))}' cannot be read: {reason}") from failure
    return (height, width) if turned else (width, height)


def read_mask(path: Path, *, mode: str) -> Image.Image:
    """Return a PNG, in 'RGB', or in 'L': gray values or, of a palette, its numbers.

    Raises DatasetError where it cannot be read or has no 8 bits a pixel.
    """
    shown = printable(path.name)
    try:
        content = read_limited(path, limit=MAX_IMAGE_BYTES)
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.width * image.height > MAX_IMAGE_PIXELS:
                raise DatasetError(f"mask '{shown}' has too many pixels")
            image.load()
            kept = image.copy()
    except FileUnreadable as failure:
        raise DatasetError(f"mask '{shown}' cannot be read: {failure}") from failure
    except (MemoryError, DatasetError):
        raise
    except Exception as failure:  # on hostile bytes decoders raise anything, from IndexError on
        reason = reason_of(failure, content=content)
        raise DatasetError(f"mask '{shown}' cannot be read as a PNG: {reason}") from failure
    if mode == "RGB":
        return kept.convert("RGB")
    if kept.mode not in ("L", "P", "1"):
        raise DatasetError(
            f"mask '{shown}' has the mode {kept.mode}; a mask has 8 bits a pixel, gray or with "
            "a palette, and its values are class ids"
        )
    if kept.mode == "1":
        return kept.convert("L").point([0] + [1] * 255)
    # The numbers of a palette's colours are the ids, not their brightness.
    return Image.frombytes("L", kept.size, kept.tobytes())


def read_limited(path: Path, *, limit: int) -> bytes:
    """Return the content of a file. Raises FileUnreadable, also where it is larger or no file."""
    try:
        # Non-blocking, and looked at once it is open: a pipe would wait for ever for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise FileUnreadable("it is not a file")
            if status.st_size > limit:
                raise FileUnreadable(f"it has more than {limit // 1024} kB")
            return file.read(limit)
    except OSError as failure:
        raise FileUnreadable(failure.strerror or "the file system refuses") from failure


def _decode(content: bytes, sha256: str, *, name: str, suffix: str, smallest: int) -> CheckedFile:
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        width, height = image.size
        if width * height > MAX_IMAGE_PIXELS:
            return CheckedFile(sha256, (_too_large(name),))
        mode, found = image.mode, image.format or ""
        # A JPEG is decoded at an eighth of its size: all of its data is read, in half the time.
        image.draft(mode, (max(1, width // 8), max(1, height // 8)))
        image.load()
        orientation = image.getexif().get(_ORIENTATION, 1)
        has_alpha = "A" in image.getbands() or "transparency" in image.info
    problems = []
    if suffix not in _SUFFIXES_OF_FORMAT.get(found, ()):
        right = _SUFFIXES_OF_FORMAT[found][0]
        message = f"'{name}' is a {found} by its content; let its name end in {right}"
        problems.append(warning("wrong_extension", message, file=name))
    if min(width, height) < smallest:
        message = f"'{name}' has {width} × {height} pixels; below {smallest} a side it is left out"
        problems.append(warning("image_too_small", message, file=name))
    if orientation in _TURNED:
        message = (
            f"'{name}' is stored turned or mirrored (EXIF orientation {orientation}) and is "
            "turned back for training; its labels must be meant for the image as it is shown"
        )
        problems.append(warning("exif_rotation", message, file=name))
    problems += _unusual_pixels(content, name=name, format=found, mode=mode, alpha=has_alpha)
    size = (height, width) if orientation in _QUARTER_TURNS else (width, height)
    return CheckedFile(sha256, tuple(problems), size)


def _unusual_pixels(
    content: bytes, *, name: str, format: str, mode: str, alpha: bool
) -> list[Problem]:
    """Tell what is lost where an image becomes three colours of eight bits, as training takes it.

    Pillow reads a PNG of 16 bits a colour as one of eight and does not tell; its header does.
    """
    problems = []
    deep_png = format == "PNG" and content[_PNG_BIT_DEPTH : _PNG_BIT_DEPTH + 1] == b"\x10"
    if deep_png or mode.startswith(("I", "F")):
        message = f"'{name}' has 16 bits or more a pixel's colour; training sees it in 8"
        problems.append(warning("sixteen_bit", message, file=name))
    if mode == "CMYK":
        message = f"'{name}' is in CMYK, for printing; its colours are converted and may look off"
        problems.append(warning("cmyk", message, file=name))
    if mode == "P" and format != "GIF":
        message = f"'{name}' has a palette of colours and is converted; is it a mask, by mistake?"
        problems.append(warning("palette", message, file=name))
    if alpha:
        message = f"'{name}' has an alpha channel; what is transparent shows its hidden colours"
        problems.append(warning("alpha", message, file=name))
    return problems


def _too_large(name: str) -> Problem:
    megapixels = MAX_IMAGE_PIXELS // 1_000_000
    message = f"'{name}' has more than {megapixels} million pixels; make it smaller"
    return error("image_too_large", message, file=name)


def reason_of(failure: Exception, *, content: bytes | None = None) -> str:
    """Return why a decoder failed, as the end of a sentence."""
    if content == b"":
        return "it is empty"
    if isinstance(failure, UnidentifiedImageError):  # its message holds an address of memory
        return "it is no image of a known format"
    return printable(str(failure))[:200] or type(failure).__name__
