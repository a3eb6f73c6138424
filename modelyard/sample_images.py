"""Drawing the sample images, with the same bytes on every machine.

Only whole numbers, hashes and ``Random.random`` (whose sequence Python promises to keep) are
used, and images are stored without compression: another version of Python, zlib or an image
library changes no byte.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

DIGITS_FILE = Path(__file__).parent / "data" / "digits.csv.gz"
SOURCE_SIDE = 8  # pixels; a source pixel has 0 to 16
SOURCE_MAX = 16
SCENE_SIDE = 160
DIGIT_SIDES = (26, 60)  # pixels of a digit's cell in a scene, smallest and largest
DIGITS_PER_SCENE = (3, 8)
_INK_THRESHOLD = 64  # of 255: fainter pixels do not widen a digit's box
_PLACES_TRIED = 60
_OVERLAP_ALLOWED = 0.08  # of the smaller of two boxes


@dataclass(frozen=True)
class Digit:
    """One handwritten digit of the source."""

    index: int  # its place in the source
    label: int
    pixels: tuple[tuple[int, ...], ...]  # 8 rows of 8, 0 to 16


@dataclass(frozen=True)
class Box:
    """Where a digit's ink lies in a scene, in pixels; right and bottom are one past it."""

    label: int
    left: int
    top: int
    right: int
    bottom: int

    def yolo_line(self) -> str:
        """Return the label line: class, centre and size as fractions of the scene."""
        x, y = (self.left + self.right) / 2, (self.top + self.bottom) / 2
        sizes = (x, y, self.right - self.left, self.bottom - self.top)
        return f"{self.label} " + " ".join(f"{value / SCENE_SIDE:.6f}" for value in sizes)

    def overlap(self, other: Box) -> float:
        """Return the shared area as a fraction of the smaller box."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        if width <= 0 or height <= 0:
            return 0.0
        return width * height / min(self._area(), other._area())

    def _area(self) -> int:
        return (self.right - self.left) * (self.bottom - self.top)


@dataclass(frozen=True)
class Placed:
    """A digit as it stands in a scene: its box, and where its drawn rows lie."""

    box: Box
    rows: Sequence[bytes]
    x: int
    y: int

    def ink(self) -> Iterator[tuple[int, int]]:
        """Yield the pixels (x, y) of the scene that the digit's ink covers."""
        for y, row in enumerate(self.rows, start=self.y):
            for x, value in enumerate(row, start=self.x):
                if value >= _INK_THRESHOLD:
                    yield x, y


def read_digits() -> list[Digit]:
    """Return the 1,797 digits of the repository in the order of their source."""
    digits = []
    with gzip.open(DIGITS_FILE, "rt", encoding="ascii") as file:
        for index, line in enumerate(file):
            *values, label = map(int, line.split(","))
            rows = zip(*[iter(values)] * SOURCE_SIDE, strict=True)
            digits.append(Digit(index, label, tuple(rows)))
    return digits


def draw_digit(digit: Digit, *, width: int, height: int) -> list[bytes]:
    """Return the rows of a digit enlarged by linear interpolation, 0 to 255."""
    columns = list(_taps(width))
    wide = [[row[i] * a + row[j] * b for i, j, a, b in columns] for row in digit.pixels]
    full = SOURCE_MAX * 4 * width * height
    drawn = []
    for i, j, a, b in _taps(height):
        pairs = zip(wide[i], wide[j], strict=True)
        drawn.append(bytes([(p * a + q * b) * 255 // full for p, q in pairs]))
    return drawn


def draw_scene(number: int, digits: Sequence[Digit]) -> tuple[list[bytes], list[Placed]]:
    """Return the rows of a scene of some of the digits, and those in it as they stand there."""
    rng = Random(number)  # noqa: S311 - meant to be repeated, not to keep a secret
    canvas = _background(number, rng)
    placed: list[Placed] = []
    for _ in range(_between(rng, *DIGITS_PER_SCENE)):
        digit = digits[_between(rng, 0, len(digits) - 1)]
        height = _between(rng, *DIGIT_SIDES)
        width = height * _between(rng, 75, 100) // 100
        rows = draw_digit(digit, width=width, height=height)
        ink = _ink_box(digit.label, rows)
        ink_level = _between(rng, 150, 255)
        for _ in range(_PLACES_TRIED):
            x = _between(rng, 0, SCENE_SIDE - width)
            y = _between(rng, 0, SCENE_SIDE - height)
            box = Box(ink.label, ink.left + x, ink.top + y, ink.right + x, ink.bottom + y)
            if all(box.overlap(other.box) <= _OVERLAP_ALLOWED for other in placed):
                _paint(canvas, rows, x=x, y=y, level=ink_level)
                placed.append(Placed(box, rows, x, y))
                break
    return [bytes(row) for row in canvas], placed


def encode_png(rows: Sequence[bytes]) -> bytes:
    """Return a grey 8-bit PNG (W3C PNG, third edition) of the rows, stored without compression."""
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 0, 0, 0, 0)
    raw = b"".join(b"\0" + row for row in rows)
    parts = [_chunk(b"IHDR", header), _chunk(b"IDAT", _stored(raw)), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _taps(size: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield for each target pixel its two source pixels and their weights, of 2 * size in all."""
    for target in range(size):
        # Centres of pixels are aligned; position in units of 1 / (2 * size) source pixels.
        position = (2 * target + 1) * SOURCE_SIDE - size
        first, weight = divmod(position, 2 * size)
        low = max(0, first)
        high = min(SOURCE_SIDE - 1, first + 1)
        yield low, high, 2 * size - weight, weight


def _background(number: int, rng: Random) -> list[bytearray]:
    """Return a dark canvas that brightens evenly from top to bottom, with noise."""
    noise = hashlib.shake_128(b"scene %d" % number).digest(SCENE_SIDE * SCENE_SIDE)
    top, bottom, depth = _between(rng, 0, 60), _between(rng, 0, 60), _between(rng, 4, 24)
    rows = []
    for y in range(SCENE_SIDE):
        levels = _noise_levels(top + (bottom - top) * y // SCENE_SIDE, depth)
        rows.append(bytearray(noise[y * SCENE_SIDE : (y + 1) * SCENE_SIDE].translate(levels)))
    return rows


@cache
def _noise_levels(base: int, depth: int) -> bytes:
    """Return the grey level of each value of a noise byte: from the base, up to depth above it."""
    return bytes([base + value * depth // 256 for value in range(256)])


def _ink_box(label: int, rows: Sequence[bytes]) -> Box:
    lines = [y for y, row in enumerate(rows) if max(row) >= _INK_THRESHOLD]
    columns = [
        x for x, column in enumerate(zip(*rows, strict=True)) if max(column) >= _INK_THRESHOLD
    ]
    return Box(label, columns[0], lines[0], columns[-1] + 1, lines[-1] + 1)


def _paint(canvas: list[bytearray], rows: Sequence[bytes], *, x: int, y: int, level: int) -> None:
    """Lay a digit on the canvas in ink of a grey level, its pixels being how much ink covers."""
    for line, row in enumerate(rows, start=y):
        under = canvas[line][x : x + len(row)]
        mixed = [(b * (255 - ink) + level * ink) // 255 for b, ink in zip(under, row, strict=True)]
        canvas[line][x : x + len(row)] = bytes(mixed)


def _between(rng: Random, low: int, high: int) -> int:
    # randint may draw differently in another version of Python; random() may not.
    return low + int(rng.random() * (high - low + 1))


def _stored(raw: bytes) -> bytes:
    """Return a zlib stream (RFC 1950) of stored blocks (RFC 1951, 3.2.4)."""
    blocks = [raw[i : i + 0xFFFF] for i in range(0, len(raw), 0xFFFF)]
    stream = bytearray(b"\x78\x01")
    for i, block in enumerate(blocks):
        stream += struct.pack("<BHH", i == len(blocks) - 1, len(block), len(block) ^ 0xFFFF) + block
    return bytes(stream) + struct.pack(">I", zlib.adler32(raw))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )
