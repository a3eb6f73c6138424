"""The models that a job may name, read from data so that no training library is needed.

``catalog_data/<framework>.json`` is made by ``python -m adapters.catalog_build <framework>``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

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
    frameworks = sorted(path.stem for path in DATA.glob("*.json"))
    return tuple(entry for name in frameworks for entry in _by_name(name).values())


def find_model(framework: str, name: str) -> ModelEntry | None:
    """Return a model by its exact name, or None where the framework has no such model."""
    return _by_name(framework).get(name)


@cache
def _by_name(framework: str) -> dict[str, ModelEntry]:
    known = {path.stem: path for path in DATA.glob("*.json")}
    if framework not in known:
        return {}
    raw = json.loads(known[framework].read_text(encoding="utf-8"))
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
