"""Make the lists of models: ``make catalog``, or ``python -m adapters.catalog_build timm``.

Run it when a framework's version changes, on a machine that has it. The result is data of the
repository, so a web host can list models that it could not train.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from adapters import framework_version, installed_frameworks
from adapters.catalog import DATA, ModelEntry
from adapters.frameworks import FRAMEWORKS, framework_info


def build(framework: str) -> Path:
    """Build a framework's catalog from the installed library and return the file."""
    version = framework_version(framework)
    if version is None:
        raise SystemExit(f"{framework} is not installed here")
    path = DATA / f"{framework}.json"
    write_catalog(installed_models(framework), version=version, path=path)
    return path


def installed_models(framework: str) -> list[ModelEntry]:
    """Return what the installed library of a framework can train, importing it."""
    module = importlib.import_module(framework_info(framework).catalog)
    return list(module.catalog_entries())


def model_names(framework: str) -> list[str]:
    """Return the names that the installed library of a framework has, without building models."""
    names: list[str] = importlib.import_module(framework_info(framework).catalog).model_names()
    return names


def write_catalog(entries: Sequence[ModelEntry], *, version: str, path: Path) -> None:
    """Write a catalog, one model a line, so that a new version's changes can be read."""
    task_types = sorted({entry.task_types for entry in entries})
    rows = ",\n".join(
        json.dumps(
            [e.name, task_types.index(e.task_types), e.params_m, e.input_size, int(e.pretrained)]
        )
        for e in sorted(entries, key=lambda e: e.name)
    )
    head = f'"version": {json.dumps(version)},\n"task_types": {json.dumps(task_types)},\n'
    path.write_text(f'{{\n{head}"models": [\n{rows}\n]\n}}\n', encoding="utf-8")


def main() -> None:
    """Build the catalogs that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("framework", nargs="*", help="default: all that are installed here")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    here = [name for name in installed_frameworks() if name in FRAMEWORKS]
    for framework in parser.parse_args().framework or here:
        logging.getLogger(__name__).warning("%s is written", build(framework))


if __name__ == "__main__":
    main()
