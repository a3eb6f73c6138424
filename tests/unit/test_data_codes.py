"""Every code that a finding may have stands in the documentation, with its severity."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import adapters.data
from tests.unit.test_data_broken import FAULTS

DOCS = Path(__file__).parents[2] / "docs" / "datasets.md"
ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \|", re.MULTILINE)
OF_SPLITS = {"no_{}_split": ("no_train_split", "no_val_split")}
# Functions that make a finding, and the place of the code among their arguments.
MAKERS = {
    "error": 0,
    "warning": 0,
    "_BadLine": 0,
    "_error": 0,
    "_find": 1,
    "_found": 1,
    "Problem": 1,
}


def documented() -> list[tuple[str, str]]:
    section = DOCS.read_text("utf-8").split("## What is told")[1]
    return ROW.findall(section)


def codes_in_the_source() -> set[str]:
    found: set[str] = set()
    for file in Path(adapters.data.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            found.update(codes_of(node))
    return found


def codes_of(node: ast.AST) -> Iterator[str]:
    values: list[ast.expr] = []
    if isinstance(node, ast.Call):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        place = MAKERS.get(name)
        if place is not None and len(node.args) > place:
            values.append(node.args[place])
        values += [keyword.value for keyword in node.keywords if keyword.arg == "code"]
    elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "code":
        values.append(node.value)
    elif isinstance(node, ast.FunctionDef):
        defaults = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        values += [value for argument, value in defaults if argument.arg == "code" and value]
    for value in values:
        if isinstance(value, ast.IfExp):
            yield from (part.value for part in (value.body, value.orelse))  # type: ignore[attr-defined]
        elif isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield value.value
        elif isinstance(value, ast.JoinedStr):
            parts = [getattr(part, "value", "{}") for part in value.values]
            yield from OF_SPLITS["".join(p if isinstance(p, str) else "{}" for p in parts)]


def test_the_table_of_the_documentation_has_every_code_and_no_other():
    assert {code for code, _ in documented()} == codes_in_the_source()


def test_the_table_of_the_documentation_is_sorted_and_tells_the_severity():
    rows = documented()
    assert [code for code, _ in rows] == sorted(code for code, _ in rows)
    severities = dict(rows)
    for fault in FAULTS:
        assert fault.severity in severities[fault.code]


def test_nearly_every_code_has_a_data_set_with_that_fault():
    planted = {fault.code for fault in FAULTS}
    assert codes_in_the_source() - planted == {
        "more_problems",  # see test_data_describe
        "unreadable_folder",  # root may list any
    }
