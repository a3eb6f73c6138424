"""Describing a data set in a process of its own.

A server cannot afford :func:`adapters.data.describe.describe` in its own process: it opens files
that strangers made with decoders written in C, and it keeps the cores busy, which stops every
other request of a process whose threads are greenlets. Here a decoder that crashes, hangs or
takes all memory is a DatasetError, and while the child works the caller only waits on a pipe.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters.contract import DatasetFormat, TaskType
from adapters.data.describe import describe
from adapters.data.description import DatasetError, Description, Problem, Severity
from adapters.data.roots import OutsideRoots

_MEMORY_BYTES = 8 * 1024**3
_TIMEOUT_SECONDS = 1800.0


def describe_apart(
    path: Path,
    *,
    format: DatasetFormat | None = None,
    task_type: TaskType | None = None,
    roots: Sequence[Path] = (),
    workers: int | None = None,
    timeout_seconds: float = _TIMEOUT_SECONDS,
) -> Description:
    """Do what describe() does, in a child process that reads and checks and ends."""
    question = {
        "path": os.fspath(path),
        "format": format,
        "task_type": task_type,
        "roots": [os.fspath(root) for root in roots],
        "workers": workers,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "adapters.data.apart"],
            input=json.dumps(question).encode(),
            capture_output=True,
            env=_environment(),
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as failure:
        message = f"checking '{path}' took more than {timeout_seconds:g} s and was given up"
        raise DatasetError(message) from failure
    try:
        answer = json.loads(done.stdout)
    except ValueError as failure:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise DatasetError(
            f"checking '{path}' broke off with exit status {done.returncode}: {' '.join(last)}"
        ) from failure
    if "error" in answer:
        raise (OutsideRoots if answer["outside"] else DatasetError)(answer["error"])
    return _from_json(answer["description"])


def main() -> None:
    """Answer the question on standard input on standard output, both JSON."""
    _limit_memory()
    question = json.load(sys.stdin)
    try:
        description = describe(
            Path(question["path"]),
            format=DatasetFormat(question["format"]) if question["format"] else None,
            task_type=TaskType(question["task_type"]) if question["task_type"] else None,
            roots=[Path(root) for root in question["roots"]],
            workers=question["workers"],
        )
        answer: dict[str, Any] = {"description": _to_json(description)}
    except DatasetError as error:
        answer = {"error": str(error), "outside": isinstance(error, OutsideRoots)}
    json.dump(answer, sys.stdout)


def _environment() -> dict[str, str]:
    """Return the least that Python needs: no password of the server reaches the child."""
    project = Path(__file__).resolve().parents[2]
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "PYTHONPATH": os.fspath(project), "PYTHONUTF8": "1"}


def _limit_memory() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(_MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _to_json(description: Description) -> dict[str, Any]:
    values = dataclasses.asdict(description)
    return {**values, "path": os.fspath(description.path)}


def _from_json(values: Mapping[str, Any]) -> Description:
    problems = tuple(
        Problem(**{**problem, "severity": Severity(problem["severity"])})
        for problem in values["problems"]
    )
    return Description(
        path=Path(values["path"]),
        format=DatasetFormat(values["format"]),
        task_type=TaskType(values["task_type"]),
        classes=tuple(values["classes"]),
        splits=values["splits"],
        problems=problems,
        fingerprint=values["fingerprint"],
    )


if __name__ == "__main__":
    main()
