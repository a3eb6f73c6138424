"""An application in this process, for each test anew, and somebody who has data in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api import Api, Person, serve


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with serve(tmp_path) as served:
        yield served


@pytest.fixture
def ada(api: Api) -> Person:
    """The owner of project 1, which has the data set 1: two classes, eight images to train on."""
    person = api.person("ada")
    assert person.project() == 1
    assert api.dataset(1) == 1
    return person
