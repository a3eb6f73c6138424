"""How much files take, how much room there is, and how both read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelyard.disk import Room, readable, room, tree_bytes


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (16_000, "16 kB"),
        (999_500, "1 MB"),
        (1_234_567, "1.23 MB"),
        (5 * 10**9, "5 GB"),
        (12_345_678_901_234, "12.3 TB"),
        (10**16, "10,000 TB"),
    ],
)
def test_a_size_reads_as_in_the_settings(size: int, text: str) -> None:
    assert readable(size) == text


def test_a_folder_takes_what_its_files_take_and_links_nothing(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"x" * 1000)
    (tmp_path / "other").write_bytes(b"x" * 70)
    (tmp_path / "a" / "linked").symlink_to(tmp_path / "other")
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    assert tree_bytes(tmp_path / "a") == 1000
    assert tree_bytes(tmp_path / "other") == 70
    assert tree_bytes(tmp_path / "a" / "linked") == 0
    assert tree_bytes(tmp_path / "none") == 0


def test_the_room_for_a_folder_that_is_not_there_is_that_of_the_one_above(tmp_path: Path) -> None:
    found = room(tmp_path / "not" / "there")
    assert found is not None
    assert found.total == os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize


@pytest.mark.parametrize(
    ("free", "low"), [(9 * 10**9, True), (49 * 10**9, True), (51 * 10**9, False)]
)
def test_a_volume_is_low_below_a_twentieth_or_ten_gigabytes(free: int, low: bool) -> None:
    assert Room(volume=1, total=10**12, free=free).low == low
    assert Room(volume=1, total=10**10, free=free).low == (free < 10**10)
