"""Reading the fields of COCO's images, categories and annotations, each looked at before use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapters.data.images import MAX_IMAGE_PIXELS
from adapters.data.roots import is_path, printable

MAX_KEYPOINTS = 1000
MAX_POLYGON_VALUES = 200_000
MAX_NAME = 200  # characters, of a category or a keypoint
MAX_FILE_NAME = 1000
_LARGEST_ID = 2**62

Id = int | str  # COCO's own are numbers; those of panoptic sets are also texts


class BadField(Exception):
    """A field is wrong: a code, and a message as the end of a sentence."""

    def __init__(self, message: str, *, code: str = "annotation_field") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class ImageEntry:
    id: Id
    file_name: str
    width: int
    height: int


@dataclass(frozen=True)
class Category:
    id: int
    name: str
    keypoints: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()  # 0-based


@dataclass(frozen=True, slots=True)
class Rle:
    """An outline as runs of pixels."""

    height: int
    width: int
    counts: str | tuple[int, ...]


def read_image(entry: Any) -> ImageEntry:
    """Return an element of 'images'. Raises BadField."""
    name = read_file_name(entry)
    width, height = (_size(_member(entry, field), field) for field in ("width", "height"))
    if width * height > MAX_IMAGE_PIXELS:
        raise BadField(
            f"{width} × {height} pixels are more than {MAX_IMAGE_PIXELS // 10**6} million"
        )
    return ImageEntry(read_id(entry, "id"), name, width, height)


def read_file_name(entry: Any) -> str:
    """Return the name of a file, which may lead anywhere. Raises BadField."""
    name = _member(entry, "file_name")
    if not isinstance(name, str) or not name.strip() or not is_path(name):
        raise BadField("'file_name' must be the name of a file")
    if len(name) > MAX_FILE_NAME:
        raise BadField(f"'file_name' has more than {MAX_FILE_NAME} characters")
    return name


def read_category(entry: Any) -> Category:
    """Return an element of 'categories'. Raises BadField."""
    id = _member(entry, "id")
    if not _is_whole(id) or not 0 <= id < _LARGEST_ID:
        raise BadField("'id' must be a whole number from 0")
    name = _member(entry, "name")
    if not isinstance(name, str) or not 0 < len(name.strip()) <= MAX_NAME:
        raise BadField(f"'name' must be a text of at most {MAX_NAME} characters")
    keypoints = entry.get("keypoints") or []
    if (
        not isinstance(keypoints, list)
        or len(keypoints) > MAX_KEYPOINTS
        or not all(isinstance(point, str) and len(point) <= MAX_NAME for point in keypoints)
    ):
        raise BadField(f"'keypoints' must be a list of at most {MAX_KEYPOINTS} names")
    return Category(id, printable(name), tuple(printable(point) for point in keypoints))


def read_skeleton(entry: Any, points: int) -> tuple[tuple[int, int], ...]:
    """Return the lines between a category's keypoints, from 0. Raises BadField."""
    given = entry.get("skeleton") or []
    if not points:
        return ()
    pairs: list[Any] = given if isinstance(given, list) else [None]
    for pair in pairs:
        whole = isinstance(pair, list) and len(pair) == 2 and all(map(_is_whole, pair))
        if not whole or not all(1 <= point <= points for point in pair):
            raise BadField(
                f"'skeleton' must be pairs of points from 1 to {points}; its lines are not drawn",
                code="skeleton_ignored",
            )
    return tuple((first - 1, second - 1) for first, second in pairs)


def read_id(entry: Any, field: str) -> Id:
    """Return an id, a whole number or a text. Raises BadField."""
    id = _member(entry, field)
    if _is_whole(id) and abs(id) < _LARGEST_ID:
        return int(id)
    if isinstance(id, str) and 0 < len(id) <= 200:
        return printable(id)
    raise BadField(f"'{field}' must be a whole number")


def read_category_id(entry: Any) -> int:
    """Return the id of an annotation's category. Raises BadField."""
    category = _member(entry, "category_id")
    if not _is_whole(category) or abs(category) >= _LARGEST_ID:
        raise BadField("'category_id' must be a whole number")
    return int(category)


def read_box(entry: Any) -> tuple[float, ...] | None:
    """Return x, y, width and height in pixels, or None without a box. Raises BadField."""
    given = entry.get("bbox")
    if given is None or given == []:
        return None
    if not isinstance(given, list) or len(given) != 4 or not is_numbers(given):
        raise BadField("'bbox' must be four numbers: x, y, width, height")
    return tuple(float(value) for value in given)


def read_outline(entry: Any) -> list[Sequence[float]] | Rle | None:
    """Return polygons in pixels, x1 y1 x2 y2 …, or runs, or None. Raises BadField."""
    given = entry.get("segmentation")
    if given is None or given == []:
        return None
    if isinstance(given, dict):
        return _rle(given)
    if not isinstance(given, list):
        raise BadField("'segmentation' must be a list of polygons, or 'counts' and 'size'")
    polygons = [given] if is_numbers(given) else given  # some tools leave out the outer list
    polygons = [polygon for polygon in polygons if polygon != []]  # and some write [[]] for none
    for polygon in polygons:
        if not isinstance(polygon, list) or not is_numbers(polygon) or len(polygon) % 2:
            raise BadField("a polygon of 'segmentation' must be a list of pairs of numbers")
        if len(polygon) > MAX_POLYGON_VALUES:
            raise BadField(f"a polygon has more than {MAX_POLYGON_VALUES // 2} points")
    return polygons


def _rle(given: dict[str, Any]) -> Rle:
    size = given.get("size")
    if not isinstance(size, list) or len(size) != 2:
        raise BadField("'size' of a segmentation must be [height, width]", code="bad_rle")
    height, width = (_size(side, "size") for side in size)
    counts = given.get("counts")
    if isinstance(counts, str) and counts.isascii():
        return Rle(height, width, counts)
    if isinstance(counts, list) and all(_is_whole(run) and 0 <= run < 2**40 for run in counts):
        return Rle(height, width, tuple(counts))
    raise BadField("'counts' of a segmentation must be a text or whole numbers", code="bad_rle")


def read_keypoints(entry: Any) -> list[float]:
    """Return x, y, visibility of each point, in pixels. Raises BadField."""
    given = entry.get("keypoints") or []
    if not isinstance(given, list) or not is_numbers(given):
        raise BadField("'keypoints' must be a list of numbers")
    return given


def check_keypoints(given: Sequence[float], points: int) -> None:
    """Raise BadField where an annotation's keypoints are not those of its category."""
    if len(given) != 3 * points:
        raise BadField(
            f"'keypoints' has {len(given)} numbers, where its category's {points} points make "
            f"{3 * points}",
            code="keypoint_count",
        )
    if not all(visibility in (0, 1, 2) for visibility in given[2::3]):
        raise BadField("a keypoint's visibility must be 0, 1 or 2", code="keypoint_visibility")


def is_numbers(values: Sequence[Any]) -> bool:
    """Tell whether a list holds finite numbers and nothing else."""
    try:
        return all(type(v) in (int, float) for v in values) and math.isfinite(sum(values))
    except OverflowError:  # a whole number that no float holds
        return False


def _member(entry: Any, field: str) -> Any:
    if not isinstance(entry, dict):
        raise BadField("it must be an object with fields")
    if field not in entry:
        raise BadField(f"'{field}' is missing")
    return entry[field]


def _size(value: Any, field: str) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not _is_whole(value) or not 1 <= value <= MAX_IMAGE_PIXELS:
        raise BadField(f"'{field}' must be a whole number of pixels above 0")
    return int(value)


def _is_whole(value: Any) -> bool:
    return type(value) is int
