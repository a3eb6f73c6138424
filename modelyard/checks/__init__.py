"""The checks of `modelyard doctor`, by subject. A check changes nothing that matters."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"  # Modelyard works, with less than it could have
    PROBLEM = "problem"  # something a person asked for will not work


@dataclass(frozen=True)
class Finding:
    name: str
    level: Level
    text: str  # what is there, or what is not
    remedy: str = ""  # what to do; empty where nothing needs to be done


def ok(name: str, text: str) -> Finding:
    return Finding(name, Level.OK, text)


def warning(name: str, text: str, *, remedy: str) -> Finding:
    return Finding(name, Level.WARNING, text, remedy)


def problem(name: str, text: str, *, remedy: str) -> Finding:
    return Finding(name, Level.PROBLEM, text, remedy)
