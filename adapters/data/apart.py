"""Describing a data set, and showing some of it, in a process of its own.

A server cannot afford :func:`adapters.data.describe.describe` in its own process: it opens files
that strangers made with decoders written in C, and it keeps the cores busy, which stops every
other request of a process whose threads are greenlets. Here a decoder that crashes, hangs or
takes all memory is a DatasetError, and while the child works the caller only waits on a pipe.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters.contract import DatasetFormat, TaskType
from adapters.data.child import Progress, Teller, ask, question, say
from adapters.data.content import Keypoints, SplitRule
from adapters.data.description import DatasetError, Description, Problem, Severity
from adapters.data.roots import OutsideRoots, printable

_MEMORY_BYTES = 8 * 1024**3
_TIMEOUT_SECONDS = 1800.0
_PREVIEW_TIMEOUT_SECONDS = 120.0


def describe_apart(
    path: Path,
    *,
    format: DatasetFormat | None = None,
    task_type: TaskType | None = None,
    split_rule: SplitRule | None = None,
    roots: Sequence[Path] = (),
    workers: int | None = None,
    timeout_seconds: float = _TIMEOUT_SECONDS,
    progress: Progress | None = None,
) -> Description:
    """Do what describe() does, in a child process that reads and checks and ends.

    ``progress`` is called with images done and in all, a few times a second.
    """
    answer = _ask(
        {
            "do": "describe",
            **_place(path, format, task_type, split_rule, roots),
            "workers": workers,
        },
        doing=f"checking '{printable(str(path))}'",
        timeout_seconds=timeout_seconds,
        progress=progress,
    )
    return _from_json(answer["description"])


def preview_apart(
    path: Path,
    *,
    format: DatasetFormat,
    task_type: TaskType | None = None,
    split: str = "train",
    limit: int = 12,
    seed: int = 0,
    split_rule: SplitRule | None = None,
    roots: Sequence[Path] = (),
    timeout_seconds: float = _PREVIEW_TIMEOUT_SECONDS,
) -> list[dict[str, Any]]:
    """Do what preview() does, in a child process."""
    answer = _ask(
        {
            "do": "preview",
            **_place(path, format, task_type, split_rule, roots),
            "split": split,
            "limit": limit,
            "seed": seed,
        },
        doing=f"showing '{printable(str(path))}'",
        timeout_seconds=timeout_seconds,
    )
    shown: list[dict[str, Any]] = answer["preview"]
    return shown


def main() -> None:
    """Answer the question on standard input on standard output."""
    asked = question(memory_bytes=_MEMORY_BYTES)
    try:
        say(_answer(asked))
    except DatasetError as error:
        say({"error": str(error), "outside": isinstance(error, OutsideRoots)})


def _answer(asked: Mapping[str, Any]) -> dict[str, Any]:
    # Imported by the child only: a server needs no decoder and no numpy to ask.
    from adapters.data.describe import describe
    from adapters.data.preview import preview

    place: dict[str, Any] = {
        "path": Path(asked["path"]),
        "format": DatasetFormat(asked["format"]) if asked["format"] else None,
        "task_type": TaskType(asked["task_type"]) if asked["task_type"] else None,
        "split_rule": SplitRule(**asked["split_rule"]) if asked["split_rule"] else None,
        "roots": [Path(root) for root in asked["roots"]],
    }
    if asked["do"] == "preview":
        chosen = {name: asked[name] for name in ("split", "limit", "seed")}
        return {"preview": preview(**place, **chosen)}
    found = describe(**place, workers=asked["workers"], progress=Teller())
    return {"description": _to_json(found)}


def _ask(asked: Mapping[str, Any], **how: Any) -> dict[str, Any]:
    answer = ask("adapters.data.apart", asked, **how)
    if "error" in answer:
        raise (OutsideRoots if answer["outside"] else DatasetError)(answer["error"])
    return answer


def _place(
    path: Path,
    format: DatasetFormat | None,
    task_type: TaskType | None,
    split_rule: SplitRule | None,
    roots: Sequence[Path],
) -> dict[str, Any]:
    return {
        "path": os.fspath(path),
        "format": format,
        "task_type": task_type,
        "split_rule": dataclasses.asdict(split_rule) if split_rule else None,
        "roots": [os.fspath(root) for root in roots],
    }


def _to_json(description: Description) -> dict[str, Any]:
    values = dataclasses.asdict(description)
    return {**values, "path": os.fspath(description.path)}


def _from_json(values: Mapping[str, Any]) -> Description:
    problems = tuple(
        Problem(**{**problem, "severity": Severity(problem["severity"])})
        for problem in values["problems"]
    )
    return Description(
        **{
            **values,
            "path": Path(values["path"]),
            "format": DatasetFormat(values["format"]),
            "task_type": TaskType(values["task_type"]),
            "classes": tuple(values["classes"]),
            "problems": problems,
            "task_types": tuple(TaskType(task) for task in values["task_types"]),
            "keypoints": _keypoints(values["keypoints"]),
        }
    )


def _keypoints(values: Mapping[str, Any] | None) -> Keypoints | None:
    if values is None:
        return None
    return Keypoints(
        number=values["number"],
        dimensions=values["dimensions"],
        names=tuple(values["names"]),
        flip=tuple(values["flip"]),
        skeleton=tuple((first, second) for first, second in values["skeleton"]),
    )


if __name__ == "__main__":
    main()
