"""Reading the data.yaml of a YOLO data set as text only: no value in it is ever acted upon."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from adapters.data.description import DatasetError, Problem
from adapters.data.files import error, natural_key, relative_name, warning
from adapters.data.roots import is_path, printable

YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
MAX_YAML_BYTES = 256 * 1024  # a thousand names take 20 kB; the parser takes seconds for a megabyte
MAX_CLASSES = 10_000
_NOTHING = ("", "~", "null", "Null", "NULL")  # what YAML takes for no value
SPLIT_KEYS = {"train": "train", "val": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class YoloYaml:
    """What a data.yaml says, checked for form; its paths are still a user's text."""

    path: Path
    names: tuple[str, ...]
    root: str  # 'path' in the file; empty: the folder of the file
    splits: dict[str, tuple[str, ...]]  # train, val, test: folders or .txt lists
    keypoints: tuple[int, int] | None  # number and dimensions, of a pose data set
    flip: tuple[int, ...]
    keypoint_names: tuple[str, ...]
    problems: tuple[Problem, ...]


def find_yaml(path: Path) -> Path:
    """Return the data.yaml of a data set given as its folder or as the file itself.

    It lies in the folder or, where there is none, in one of the folders in it. Raises DatasetError
    where there is none or where several could be meant.
    """
    if path.suffix.lower() in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise DatasetError(f"'{printable(path.name)}' is not a file")
    if not path.is_dir():
        raise DatasetError(f"'{printable(str(path))}' is neither a folder nor a .yaml file")
    for name in YAML_NAMES:
        if (path / name).is_file():
            return path / name
    found = sorted(
        entry
        for entry in path.iterdir()
        if entry.suffix.lower() in (".yaml", ".yml")
        and not entry.name.startswith(".")  # of tools, and what a Mac writes beside each file
        and entry.is_file()
    )
    found = found or sorted(
        file for name in YAML_NAMES for file in path.glob(f"*/{name}") if file.is_file()
    )
    if len(found) == 1:
        return found[0]
    if not found:
        raise DatasetError(f"no data.yaml in '{printable(str(path))}'")
    listed = ", ".join(relative_name(entry, path) for entry in found[:5])
    raise DatasetError(f"several .yaml files, none named data.yaml: {listed}; name the one meant")


def read_yaml(path: Path, *, base: Path) -> YoloYaml:
    """Read a data.yaml. Raises DatasetError where its form is wrong."""
    shown = relative_name(path, base)
    content = _load(path, shown)
    problems: list[Problem] = []
    if "download" in content:
        message = f"'download' in '{shown}' is never run; the images must be there already"
        problems.append(warning("download_ignored", message, file=shown))
    names = _names(content, shown, problems)
    keypoints = _keypoints(content, shown)
    return YoloYaml(
        path=path,
        names=names,
        root=_text(content.get("path", ""), key="path", shown=shown),
        splits=_splits(content, shown),
        keypoints=keypoints,
        flip=_flip(content, shown, keypoints),
        keypoint_names=_keypoint_names(content, shown, keypoints, problems),
        problems=tuple(problems),
    )


def looks_like_yolo(path: Path) -> bool:
    """Tell whether a .yaml file describes a data set; a data.yaml always means to."""
    try:
        content = _load(path, path.name)
    except DatasetError:
        return path.name in YAML_NAMES
    return bool({"names", "nc"} & content.keys()) and bool(SPLIT_KEYS.keys() & content.keys())


def _load(path: Path, shown: str) -> dict[str, Any]:
    text = _read_text(path, shown)
    try:
        # BaseLoader is the safest there is: it makes text, lists and mappings and nothing else, so
        # a class named 'no' stays 'no', and no date, number or tag of a user is ever interpreted.
        content = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506
    except yaml.MarkedYAMLError as failure:
        mark = failure.problem_mark or failure.context_mark
        where = f" in line {mark.line + 1}" if mark else ""
        reason = printable(str(failure.problem))
        raise DatasetError(f"'{shown}' is not YAML{where}: {reason}") from None
    except yaml.YAMLError as failure:
        raise DatasetError(f"'{shown}' is not YAML: {printable(str(failure))}") from None
    except RecursionError:
        raise DatasetError(f"'{shown}' is nested too deeply to be a data set's YAML") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise DatasetError(f"'{shown}' must be a mapping with 'train', 'val' and 'names'")
    return {key: value for key, value in content.items() if value not in _NOTHING}


def _read_text(path: Path, shown: str) -> str:
    try:
        # Non-blocking and checked after opening: a pipe put there since would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise DatasetError(f"'{shown}' is not a file")
            content = file.read(MAX_YAML_BYTES + 1)
    except OSError as failure:
        raise DatasetError(f"'{shown}' cannot be read: {failure.strerror}") from failure
    if len(content) > MAX_YAML_BYTES:
        raise DatasetError(f"'{shown}' is larger than {MAX_YAML_BYTES // 1024} kB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DatasetError(f"'{shown}' is not UTF-8 text") from None


def _names(content: dict[str, Any], shown: str, problems: list[Problem]) -> tuple[str, ...]:
    count = _class_count(content, shown)
    given = content.get("names", "")
    if given == "":
        if count is None:
            raise DatasetError(f"'{shown}' lacks 'names', the list of the classes")
        return tuple(f"class_{i}" for i in range(count))
    names = _names_by_id(given, shown) if isinstance(given, dict) else given
    if not isinstance(names, list) or not names:
        raise DatasetError(f"'names' in '{shown}' must be a list or a mapping from id to name")
    if len(names) > MAX_CLASSES:
        raise DatasetError(f"'names' in '{shown}' has more than {MAX_CLASSES} classes")
    if not all(isinstance(name, str) for name in names):
        raise DatasetError(f"'names' in '{shown}' must hold one text a class")
    if count is not None and count != len(names):
        message = f"'nc' in '{shown}' is {count} but there are {len(names)} names"
        problems.append(error("names_differ_from_nc", message, file=shown))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        message = f"'names' in '{shown}' has '{printable(twice)}' more than once"
        problems.append(warning("class_named_twice", message, file=shown))
    return tuple(printable(name) for name in names)


def _names_by_id(given: dict[Any, Any], shown: str) -> list[Any]:
    keys = sorted((key for key in given if isinstance(key, str)), key=natural_key)
    if keys[:MAX_CLASSES] != [str(i) for i in range(min(len(given), MAX_CLASSES))]:
        raise DatasetError(f"'names' in '{shown}' must be numbered 0, 1, 2, … without a gap")
    return [given[key] for key in keys]


def _class_count(content: dict[str, Any], shown: str) -> int | None:
    given = content.get("nc", "")
    if given == "":
        return None
    if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) <= 5:
        count = int(given)
        if 1 <= count <= MAX_CLASSES:
            return count
    raise DatasetError(f"'nc' in '{shown}' must be a whole number from 1 to {MAX_CLASSES}")


def _splits(content: dict[str, Any], shown: str) -> dict[str, tuple[str, ...]]:
    splits: dict[str, tuple[str, ...]] = {}
    for key, split in SPLIT_KEYS.items():
        given = content.get(key, "")
        if given in ("", []) or split in splits:
            continue
        parts = given if isinstance(given, list) else [given]
        splits[split] = tuple(_text(part, key=key, shown=shown) for part in parts)
    return splits


def _keypoints(content: dict[str, Any], shown: str) -> tuple[int, int] | None:
    given = content.get("kpt_shape", "")
    if given == "":
        return None
    if isinstance(given, list) and len(given) == 2:
        number, dimensions = (
            int(part) if isinstance(part, str) and part.isdecimal() and len(part) < 5 else 0
            for part in given
        )
        if number >= 1 and dimensions in (2, 3):
            return number, dimensions
    raise DatasetError(f"'kpt_shape' in '{shown}' must be [number of points, 2 or 3]")


def _flip(
    content: dict[str, Any], shown: str, keypoints: tuple[int, int] | None
) -> tuple[int, ...]:
    given = content.get("flip_idx", "")
    if given in ("", []) or keypoints is None:
        return ()
    numbers = [
        int(part) if isinstance(part, str) and part.isdecimal() and len(part) < 5 else -1
        for part in (given if isinstance(given, list) else ())
    ]
    if sorted(numbers) != list(range(keypoints[0])):
        raise DatasetError(
            f"'flip_idx' in '{shown}' must name each of the {keypoints[0]} points once, from 0"
        )
    return tuple(numbers)


def _keypoint_names(
    content: dict[str, Any],
    shown: str,
    keypoints: tuple[int, int] | None,
    problems: list[Problem],
) -> tuple[str, ...]:
    given = content.get("kpt_names", "")
    if given in ("", []) or keypoints is None:
        return ()
    if isinstance(given, dict):  # a list a class; all classes have the same points
        given = next(iter(given.values()), "")
    if (
        isinstance(given, list)
        and len(given) == keypoints[0]
        and all(isinstance(name, str) for name in given)
    ):
        return tuple(printable(name) for name in given)
    message = f"'kpt_names' in '{shown}' must be a list of {keypoints[0]} names; it is passed over"
    problems.append(warning("keypoint_names", message, file=shown))
    return ()


def _text(value: Any, *, key: str, shown: str) -> str:
    if not isinstance(value, str) or not is_path(value):
        raise DatasetError(f"'{key}' in '{shown}' must be a path or a list of paths")
    return value
