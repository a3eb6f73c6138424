"""Make the list of models of a framework: ``python -m adapters.catalog_build timm``.

Run it when a framework's version changes, on a machine that has it. The result is data of the
repository, so a web host can list models that it could not train.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from adapters.catalog import DATA, ModelEntry

# framework: (module with catalog_entries(), names of the distribution that has the library)
BUILDERS = {
    "timm": ("adapters.timm_training.catalog", ("timm",)),
    "ultralytics": (
        "adapters.ultralytics_catalog",
        ("ultralytics", "ultralytics-opencv-headless"),
    ),
}


def build(framework: str) -> Path:
    """Build a framework's catalog from the installed library and return the file."""
    module, distributions = BUILDERS[framework]
    entries = list(importlib.import_module(module).catalog_entries())
    path = DATA / f"{framework}.json"
    write_catalog(entries, version=_installed(distributions), path=path)
    return path


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


def _installed(distributions: Sequence[str]) -> str:
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    raise SystemExit(f"none of {', '.join(distributions)} is installed")


def main() -> None:
    """Build the catalog that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("framework", choices=sorted(BUILDERS))
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    path = build(parser.parse_args().framework)
    logging.getLogger(__name__).warning("%s is written", path)


if __name__ == "__main__":
    main()
