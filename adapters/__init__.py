"""The training adapters and the contract between them and the queue.

Importing this package imports no training library; :func:`get_adapter` does.
"""

from __future__ import annotations

import importlib
import importlib.util
from importlib.metadata import PackageNotFoundError, version

from adapters.contract import Adapter
from adapters.frameworks import FrameworkInfo, all_frameworks, framework_info


def known_frameworks() -> list[str]:
    """Return every framework a job may name, built in or offered by an installed package."""
    return sorted(all_frameworks())


def installed_frameworks() -> list[str]:
    """Return the frameworks that this machine can train, found without importing them."""
    return sorted(name for name, info in all_frameworks().items() if _is_installed(info))


def framework_version(framework: str) -> str | None:
    """Return the version of a framework's library, None where it is not installed."""
    for distribution in framework_info(framework).distributions:
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return None


def get_adapter(framework: str) -> Adapter:
    """Return the adapter of a framework, importing its library.

    Raises UnknownFramework, which lists the known ones.
    """
    module, _, name = framework_info(framework).adapter.partition(":")
    adapter: Adapter = getattr(importlib.import_module(module), name)()
    return adapter


def adapter_module(framework: str) -> str:
    """Return the module that a warm template preloads for a framework."""
    return framework_info(framework).adapter.partition(":")[0]


def _is_installed(info: FrameworkInfo) -> bool:
    return not info.library or importlib.util.find_spec(info.library) is not None
