"""Reading the label files of a YOLO data set, line by line, with all that is wrong with them.

A line is a class and numbers in fractions of the image: a box 'x y width height', a polygon
'x1 y1 x2 y2 x3 y3 …', four corners (oriented boxes), or a box and keypoints. What is an error here
is what makes Ultralytics leave out the whole image with a line in its log.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.contract import TaskType
from adapters.data.content import Annotation, Box, Object
from adapters.data.description import Problem
from adapters.data.files import error, relative_name, warning
from adapters.data.images import FileUnreadable, read_limited
from adapters.data.roots import printable

MAX_LABEL_BYTES = 8 * 1024 * 1024
_PROBLEMS_A_FILE = 50
_TOLERANCE = 0.01  # of the image; rounding puts the edge of a box just outside


@dataclass(frozen=True)
class LabelRules:
    """What the labels of a data set must agree with."""

    num_classes: int
    task_type: TaskType  # what the lines are made for, which is not always what they are read for
    keypoints: tuple[int, int] | None = None  # number and dimensions


class _BadLine(Exception):
    """A line is wrong: a code, and a message as the end of a sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def check_label(path: Path, *, base: Path, rules: LabelRules) -> Annotation:
    """Read a label file. Problems name the file relative to ``base`` and the line."""
    name = relative_name(path, base)
    try:
        content = read_limited(path, limit=MAX_LABEL_BYTES)
        lines = content.decode("utf-8-sig").split("\n")
    except FileUnreadable as failure:
        message = f"'{name}' cannot be read: {failure}"
        return Annotation("", problems=(error("unreadable_label", message, file=name),))
    except UnicodeDecodeError:
        message = f"'{name}' is not text"
        return Annotation("", problems=(error("unreadable_label", message, file=name),))
    objects, problems = _check_lines(lines, name, rules)
    return Annotation(
        hashlib.sha256(content).hexdigest(),
        objects=tuple(objects),
        classes=tuple(sorted({thing.class_id for thing in objects})),
        problems=tuple(problems),
    )


def _check_lines(
    lines: Sequence[str], name: str, rules: LabelRules
) -> tuple[list[Object], list[Problem]]:
    objects: list[Object] = []
    problems: list[Problem] = []
    seen: dict[tuple[float, ...], int] = {}
    width: int | None = None  # columns of the first line: boxes and polygons do not mix
    for number, line in enumerate(lines, start=1):
        tokens = line.split()
        if not tokens:
            continue
        width = width or len(tokens)
        try:
            values = _check_line(tokens, rules, polygons=width >= 7)
        except _BadLine as bad:
            message = f"line {number} of '{name}': {bad}"
            problems.append(error(bad.code, message, file=name, line=number))
            if len(problems) >= _PROBLEMS_A_FILE:
                break
            continue
        first = seen.setdefault(values, number)
        if first == number:
            objects.append(_object(values, rules))
        else:
            message = f"line {number} of '{name}' says the same as line {first}; it counts once"
            problems.append(warning("duplicate_label", message, file=name, line=number))
    return objects, problems


def _check_line(tokens: Sequence[str], rules: LabelRules, *, polygons: bool) -> tuple[float, ...]:
    """Return the numbers of a line. Raises _BadLine."""
    _check_columns(len(tokens), rules, polygons=polygons)
    values = tuple(_number(token) for token in tokens)
    _check_class(values[0], tokens[0], rules.num_classes)
    numbers = values[1:]
    if _is_outline(values, rules):
        _check_polygon(numbers)
        return values
    _check_box(*numbers[:4])
    if rules.keypoints:
        dimensions = rules.keypoints[1]
        for i in range(4, len(numbers), dimensions):
            _check_inside(numbers[i : i + 2], code="keypoint_outside", what="keypoint")
            if dimensions == 3 and numbers[i + 2] not in (0, 1, 2):
                raise _BadLine(
                    "keypoint_visibility",
                    f"a keypoint's visibility is {numbers[i + 2]:g}, and must be 0 (not there), "
                    "1 (hidden) or 2 (seen)",
                )
    return values


def _is_outline(values: Sequence[float], rules: LabelRules) -> bool:
    oriented = rules.task_type == TaskType.ORIENTED_DETECTION
    return oriented or (len(values) > 5 and not rules.keypoints)


def _object(values: Sequence[float], rules: LabelRules) -> Object:
    """Return what a line that was found right says, with nothing outside the image."""
    class_id, numbers = int(values[0]), values[1:]
    if _is_outline(values, rules):
        points = tuple(min(1.0, max(0.0, value)) for value in numbers)
        xs, ys = points[0::2], points[1::2]
        return Object(
            class_id=class_id,
            box=(min(xs), min(ys), max(xs), max(ys)),
            polygons=(points,),
            corners=points if rules.task_type == TaskType.ORIENTED_DETECTION else (),
        )
    keypoints: list[tuple[float, float, int]] = []
    if rules.keypoints:
        dimensions = rules.keypoints[1]
        for i in range(4, len(numbers), dimensions):
            x, y = (min(1.0, max(0.0, value)) for value in numbers[i : i + 2])
            # Without a visibility, a point in the corner is how one that is not there is written.
            seen = int(numbers[i + 2]) if dimensions == 3 else 2 * ((x, y) != (0, 0))
            keypoints.append((x, y, seen))
    return Object(class_id=class_id, box=_clipped(*numbers[:4]), keypoints=tuple(keypoints))


def _clipped(x: float, y: float, width: float, height: float) -> Box:
    return (
        max(0.0, x - width / 2),
        max(0.0, y - height / 2),
        min(1.0, x + width / 2),
        min(1.0, y + height / 2),
    )


def _check_columns(count: int, rules: LabelRules, *, polygons: bool) -> None:
    if rules.keypoints:
        number, dimensions = rules.keypoints
        fits = count == 5 + number * dimensions
        right = f"{5 + number * dimensions} (a class, a box and {number} keypoints)"
    elif rules.task_type == TaskType.ORIENTED_DETECTION:
        fits, right = count == 9, "9 (a class and four corners)"
    elif polygons or rules.task_type == TaskType.INSTANCE_SEGMENTATION:
        if count in (3, 5):
            raise _BadLine(
                "polygon_too_short",
                f"a polygon of {(count - 1) // 2} points, where three or more are needed"
                + (" (a box cannot stand among polygons)" if count == 5 else ""),
            )
        fits = count >= 7 and count % 2 == 1
        right = "7, 9, 11, … (a class and a polygon of three or more points)"
    else:
        fits, right = count == 5, "5 (class, x, y, width, height)"
    if not fits:
        raise _BadLine("label_columns", f"{count} columns, where {right} would be right")


def _number(token: str) -> float:
    try:
        # float() also takes '1_0', which other readers do not.
        value = math.nan if "_" in token else float(token)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _BadLine("label_not_a_number", f"'{printable(token[:40])}' is not a number")
    return value


def _check_class(value: float, token: str, num_classes: int) -> None:
    if value != int(value):
        raise _BadLine("label_not_a_number", f"class '{printable(token)}' is not a whole number")
    if not 0 <= value < num_classes:
        raise _BadLine(
            "label_out_of_range",
            f"class {printable(token[:40])}, but the classes are 0 to {num_classes - 1}",
        )


def _check_box(x: float, y: float, width: float, height: float) -> None:
    if width <= 0 or height <= 0:
        raise _BadLine("box_without_area", f"a box of {width:g} × {height:g} has no area")
    edges = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    if min(edges) < -_TOLERANCE or max(edges) > 1 + _TOLERANCE:
        raise _BadLine(
            "box_outside",
            f"the box from ({edges[0]:.3g}, {edges[1]:.3g}) to ({edges[2]:.3g}, {edges[3]:.3g}) "
            "leaves the image, which is from 0 to 1",
        )


def _check_polygon(numbers: Sequence[float]) -> None:
    _check_inside(numbers, code="polygon_outside", what="polygon")
    if len(set(zip(numbers[0::2], numbers[1::2], strict=True))) < 3:
        raise _BadLine("polygon_too_short", "a polygon with fewer than three different points")
    if min(max(axis) - min(axis) for axis in (numbers[0::2], numbers[1::2])) <= 0:
        raise _BadLine("box_without_area", "a polygon that is a line or a point has no area")


def _check_inside(numbers: Sequence[float], *, code: str, what: str) -> None:
    if min(numbers) < -_TOLERANCE or max(numbers) > 1 + _TOLERANCE:
        raise _BadLine(code, f"a {what} leaves the image, which is from 0 to 1")
