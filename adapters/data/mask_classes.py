"""Reading the names of the classes of a data set of masks: classes.txt, or else classes.json."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters.data.description import DatasetError, Problem
from adapters.data.drawing import MAX_MASK_CLASSES
from adapters.data.files import natural_key, warning
from adapters.data.images import FileUnreadable, read_limited
from adapters.data.roots import is_inside, printable

CLASS_FILES = ("classes.txt", "classes.json")
_MAX_BYTES = 256 * 1024


def read_class_names(
    base: Path, *, allowed: Sequence[str]
) -> tuple[tuple[str, ...], list[Problem]]:
    """Return the names in the order of their ids, and what is odd about them.

    Raises DatasetError where there are none, or not one for each id.
    """
    file = class_file(base)
    name = file.name
    if not is_inside(os.path.realpath(file), allowed):
        raise DatasetError(f"'{name}' is a link that leads out of the data set's folder")
    text = _text(file, name)
    names = text.splitlines() if name.endswith(".txt") else _names_of_json(text, name)
    return _checked([printable(given.strip()) for given in names], name)


def class_file(base: Path) -> Path:
    """Return the file that names the classes. Raises DatasetError where there is none."""
    for name in CLASS_FILES:
        if (base / name).is_file():
            return base / name
    listed = " or ".join(f"'{name}'" for name in CLASS_FILES)
    raise DatasetError(f"no {listed} in '{printable(str(base))}' names the classes")


def _checked(names: list[str], file: str) -> tuple[tuple[str, ...], list[Problem]]:
    while names and not names[-1]:
        names.pop()
    if not names or len(names) > MAX_MASK_CLASSES:
        raise DatasetError(f"'{file}' must name 1 to {MAX_MASK_CLASSES} classes")
    problems = []
    for number, name in enumerate(names):
        if not name:
            raise DatasetError(
                f"line {number + 1} of '{file}' is empty: class {number} has no name"
            )
        if name in names[:number]:
            where = number + 1 if file.endswith(".txt") else None
            message = f"'{file}' has '{name}' more than once"
            problems.append(warning("class_named_twice", message, file=file, line=where))
    return tuple(names), problems


def _text(file: Path, shown: str) -> str:
    try:
        return read_limited(file, limit=_MAX_BYTES).decode("utf-8-sig")
    except FileUnreadable as failure:
        raise DatasetError(f"'{shown}' cannot be read: {failure}") from failure
    except UnicodeDecodeError:
        raise DatasetError(f"'{shown}' is not UTF-8 text") from None


def _names_of_json(text: str, shown: str) -> list[str]:
    try:
        given: Any = json.loads(text)
    except json.JSONDecodeError as failure:
        raise DatasetError(
            f"line {failure.lineno} of '{shown}' is not JSON: {failure.msg}"
        ) from None
    except (RecursionError, ValueError):
        raise DatasetError(f"'{shown}' is not JSON of class names") from None
    if isinstance(given, Mapping):
        keys = sorted(given, key=natural_key)
        if keys != [str(i) for i in range(len(keys))]:
            raise DatasetError(f"the ids in '{shown}' must be 0, 1, 2, … without a gap")
        given = [given[key] for key in keys]
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise DatasetError(f"'{shown}' must be a list of names, or a mapping from id to name")
    return given
