"""Fault tests train with the quick framework, which is installed as a package of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters import catalog, frameworks
from tests.faults.invariants import check
from tests.faults.site import PLUGIN, Site, site
from tests.services import RedisService


@pytest.fixture
def there(tmp_path: Path, redis_service: RedisService) -> Iterator[Site]:
    """A site with one recorder, of which the invariants are looked at in the end."""
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with site(tmp_path, database_url=url, redis=redis_service) as there:
        there.first_recorder = there.recorder()
        yield there
        check(there)


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
