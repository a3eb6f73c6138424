"""Fault tests train with the quick framework, which is installed as a package of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from adapters import catalog, frameworks
from tests.faults.site import PLUGIN


@pytest.fixture(autouse=True)
def _quick_framework(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(PLUGIN))
    _look_again()
    yield
    monkeypatch.undo()
    _look_again()


def _look_again() -> None:
    """Forget which frameworks there are, and the queues that were made for them."""
    frameworks._plugins.cache_clear()
    catalog._by_name.cache_clear()
    sys.modules.pop("celeryconfig", None)
