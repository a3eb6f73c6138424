"""The training adapters and the contract between them and the queue.

Importing this package imports no training library; :func:`get_adapter` does.
"""

from __future__ import annotations

import importlib
import importlib.util
from importlib.metadata import EntryPoint, entry_points

from adapters.contract import Adapter, UnknownFramework

ENTRY_POINT_GROUP = "modelyard.adapters"

# framework: (module and class of its adapter, the library that must be importable)
BUILT_IN = {
    "timm": ("adapters.timm_adapter:TimmAdapter", "timm"),
    "ultralytics": ("adapters.ultralytics_adapter:UltralyticsAdapter", "ultralytics"),
}


def known_frameworks() -> list[str]:
    """Return every framework a job may name, built in or offered by an installed package."""
    return sorted({*BUILT_IN, *_plugins()})


def installed_frameworks() -> list[str]:
    """Return the frameworks that this machine can train, found without importing them."""
    built_in = {name for name, (_, lib) in BUILT_IN.items() if importlib.util.find_spec(lib)}
    return sorted({*built_in, *_plugins()})


def get_adapter(framework: str) -> Adapter:
    """Return the adapter of a framework, importing its library.

    Raises UnknownFramework, which lists the known ones.
    """
    return _load_class(framework)()


def adapter_module(framework: str) -> str:
    """Return the module that a warm template preloads for a framework."""
    return _target(framework).partition(":")[0]


def _load_class(framework: str) -> type[Adapter]:
    module, _, name = _target(framework).partition(":")
    return getattr(importlib.import_module(module), name)


def _target(framework: str) -> str:
    if framework in BUILT_IN:
        return BUILT_IN[framework][0]
    plugins = _plugins()
    if framework in plugins:
        return plugins[framework].value
    known = ", ".join(known_frameworks())
    raise UnknownFramework(f"unknown framework '{framework}'; known are: {known}")


def _plugins() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name in BUILT_IN or point.name in found:
            raise UnknownFramework(
                f"framework '{point.name}' is offered twice, again by '{point.value}'; "
                "uninstall one of the packages"
            )
        found[point.name] = point
    return found
