"""Numbers with their nouns."""

from __future__ import annotations

import pytest

from modelyard.counting import counted


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 classes"), (1, "1 class"), (2, "2 classes"), (1200, "1,200 classes")],
)
def test_one_is_told_in_the_singular_and_thousands_are_parted(number: int, text: str) -> None:
    assert counted(number, "class", "classes") == text
    assert counted(number, "job").endswith("job" if number == 1 else "jobs")
