"""The form of a framework's hyperparameters, made from the JSON Schema that clients are served."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters.frameworks import FrameworkInfo

_KINDS = {"number": "number", "integer": "integer", "boolean": "boolean", "string": "text"}


@dataclass(frozen=True)
class HyperparameterField:
    """One input. Left empty, the default holds and nothing is sent."""

    name: str
    kind: str  # number, integer, boolean, choice, text; loose: JSON, or else a text
    default: str
    description: str
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    tasks: tuple[str, ...] = ()  # that have it; empty: all

    @property
    def range(self) -> str:
        """The values allowed, in words."""
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        if self.low is not None:
            return f"at least {self.low:g}"
        return f"at most {self.high:g}" if self.high is not None else ""


@dataclass(frozen=True)
class Group:
    title: str
    fields: tuple[HyperparameterField, ...]


def groups(info: FrameworkInfo) -> list[Group]:
    """Return a framework's hyperparameters in the groups and in the order of its schema.

    ``groups`` in the schema names each group by its first field; without it, all are one.
    """
    schema = info.hyperparameters.model_json_schema()
    titles: Mapping[str, str] = schema.get("groups", {})
    found: list[tuple[str, list[HyperparameterField]]] = []
    for name, described in schema.get("properties", {}).items():
        if name in titles or not found:
            found.append((titles.get(name, "Hyperparameters"), []))
        found[-1][1].append(_field(name, described, schema.get("$defs", {})))
    return [Group(title, tuple(fields)) for title, fields in found]


def _field(
    name: str, described: Mapping[str, Any], definitions: Mapping[str, Any]
) -> HyperparameterField:
    options = [_resolved(o, definitions) for o in described.get("anyOf", [described])]
    options = [option for option in options if option.get("type") != "null"]
    option = options[0] if len(options) == 1 else {}
    kind = "choice" if "enum" in option else _KINDS.get(option.get("type", ""), "loose")
    return HyperparameterField(
        name=name,
        kind=kind,
        default=_shown(described.get("default")),
        description=described.get("description", ""),
        choices=tuple(map(_shown, option.get("enum", ()))),
        low=option.get("minimum", option.get("exclusiveMinimum")),
        high=option.get("maximum", option.get("exclusiveMaximum")),
        tasks=tuple(described.get("task_types", ())),
    )


def _resolved(option: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    name = option.get("$ref", "").removeprefix("#/$defs/")
    return definitions.get(name, option)


def _shown(value: Any) -> str:
    """Return a value as a person would type it; what has no default is left to the framework."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value)
