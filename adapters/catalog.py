"""The models that a job may name, read from data so that no training library is needed.

``catalog_data/<framework>.json`` is made by ``make catalog``; a framework that an installed
package offers brings its models in its description.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from adapters.frameworks import all_frameworks

DATA = Path(__file__).parent / "catalog_data"


@dataclass(frozen=True)
class ModelEntry:
    """A model that the installed version of a framework can train."""

    framework: str
    name: str
    task_types: tuple[str, ...]
    params_m: float  # millions of parameters, with the model's own number of classes
    input_size: int  # side in pixels
    pretrained: bool  # whether its authors publish weights


def models(framework: str | None = None) -> tuple[ModelEntry, ...]:
    """Return the models of a framework, or of all, in the order of their names."""
    if framework is not None:
        return tuple(_by_name(framework).values())
    return tuple(entry for name in sorted(all_frameworks()) for entry in _by_name(name).values())


def find_model(framework: str, name: str) -> ModelEntry | None:
    """Return a model by its exact name, or None where the framework has no such model."""
    return _by_name(framework).get(name)


def catalog_version(framework: str) -> str | None:
    """Return the library's version that a packaged catalog was made from; None: it has none."""
    path = DATA / f"{framework}.json"
    return _read(framework)["version"] if framework in all_frameworks() and path.exists() else None


@cache
def _by_name(framework: str) -> dict[str, ModelEntry]:
    info = all_frameworks().get(framework)
    if info is None:
        return {}
    if info.models:
        return {entry.name: entry for entry in sorted(info.models, key=lambda e: e.name)}
    raw = _read(framework)
    return {
        name: ModelEntry(
            framework=framework,
            name=name,
            task_types=tuple(raw["task_types"][tasks]),
            params_m=params_m,
            input_size=input_size,
            pretrained=bool(pretrained),
        )
        for name, tasks, params_m, input_size, pretrained in raw["models"]
    }


def _read(framework: str) -> dict[str, Any]:
    """Return the packaged catalog of a known framework; an empty one where there is none."""
    path = DATA / f"{framework}.json"
    if not path.exists():
        return {"version": None, "task_types": [], "models": []}
    raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return raw
