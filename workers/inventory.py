"""The models and weights that this host really has, where they differ from the packaged catalog."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters import framework_version
from adapters.catalog import catalog_version, models
from adapters.frameworks import framework_info
from workers.template import Template

logger = logging.getLogger(__name__)

_NAMES_SECONDS = 300.0  # the template imports frameworks first
_MOST_NAMES = 300  # of each list: it goes to Redis every few seconds


class Inventory:
    """Knows what the frameworks of a worker can train.

    Where a framework has the version that its catalog was made from, that is the catalog. Else
    a process forked from the template, which has the library, is asked once for its names; until
    it answers, nothing is said to be missing.
    """

    def __init__(self, frameworks: Sequence[str], *, template: Template, weights: Path) -> None:
        self._frameworks = list(frameworks)
        self._template = template
        self._weights = weights
        self._names: dict[str, frozenset[str]] = {}

    def start(self) -> None:
        """Ask for what has to be asked for, on a side thread."""
        threading.Thread(target=self._ask, name="inventory", daemon=True).start()

    def describe(self) -> dict[str, Any]:
        """Return by framework: version, number of models, names that differ, cached weights."""
        return {name: self._describe(name) for name in self._frameworks}

    def _describe(self, framework: str) -> dict[str, Any]:
        catalog = {entry.name for entry in models(framework)}
        names = self._names.get(framework, catalog)
        return {
            "version": framework_version(framework),
            "models": len(names),
            "missing": sorted(catalog - names)[:_MOST_NAMES],
            "new": sorted(names - catalog)[:_MOST_NAMES],
            "weights": cached_weights(self._weights, framework)[:_MOST_NAMES],
        }

    def _ask(self) -> None:
        for framework in self._frameworks:
            if not framework_info(framework).catalog:
                continue  # a plug-in's models are what its description says
            if framework_version(framework) == catalog_version(framework):
                continue
            try:
                answer = self._template.ask(library_names, framework, seconds=_NAMES_SECONDS)
                self._names[framework] = frozenset(answer)
            except (OSError, EOFError, TimeoutError) as error:
                logger.warning("what %s has is not known: %s", framework, error)


def library_names(framework: str) -> list[str]:
    """Return the names of the models that the installed library has, importing it."""
    from adapters.catalog_build import model_names

    return model_names(framework)


def cached_weights(weights: Path, framework: str) -> list[str]:
    """Return the models whose published weights lie on this host."""
    suffixes = framework_info(framework).weights_suffixes
    try:
        files = [path.name for path in (weights / framework).iterdir()]
    except OSError:
        return []
    return sorted(
        {
            name.removesuffix(suffix)
            for name in files
            for suffix in suffixes
            if name.endswith(suffix)
        }
    )
