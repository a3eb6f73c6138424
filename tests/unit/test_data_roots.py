"""No path that a user names leads out of the allowed folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.data.description import DatasetError
from adapters.data.roots import OutsideRoots, printable, resolve_inside


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "pets").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    return tmp_path / "root"


def test_a_folder_below_a_root_is_found_by_absolute_and_by_relative_path(root: Path):
    assert resolve_inside(root / "pets", [root]) == root / "pets"
    assert resolve_inside("pets", [root]) == root / "pets"
    assert resolve_inside(str(root), [root]) == root


@pytest.mark.parametrize("path", ["../secret", "pets/../../secret", "pets/../pets", ".."])
def test_two_dots_are_refused_wherever_they_lead(root: Path, path: str):
    with pytest.raises(OutsideRoots, match=r"contains '\.\.'"):
        resolve_inside(path, [root])
    with pytest.raises(OutsideRoots):
        resolve_inside(f"{root}/{path}", [root])


def test_an_absolute_path_outside_is_refused_alike_whether_or_not_it_exists(root: Path):
    with pytest.raises(OutsideRoots) as there:
        resolve_inside(root.parent / "secret", [root])
    with pytest.raises(OutsideRoots) as not_there:
        resolve_inside(root.parent / "absent", [root])
    assert str(there.value).replace("secret", "absent") == str(not_there.value)


def test_a_folder_whose_name_only_begins_like_the_root_is_outside(root: Path):
    (root.parent / "root2").mkdir()
    with pytest.raises(OutsideRoots):
        resolve_inside(root.parent / "root2", [root])


def test_a_link_that_leads_out_is_refused_and_one_between_roots_is_not(root: Path):
    (root / "out").symlink_to(root.parent / "secret")
    with pytest.raises(OutsideRoots):
        resolve_inside("out", [root])
    assert resolve_inside("out", [root, root.parent / "secret"]) == root.parent / "secret"


def test_a_root_that_is_itself_a_link_works(root: Path):
    (root.parent / "alias").symlink_to(root)
    assert resolve_inside("pets", [root.parent / "alias"]) == root / "pets"


def test_a_relative_path_that_two_roots_have_is_refused_as_unclear(root: Path):
    (root.parent / "secret" / "pets").mkdir()
    with pytest.raises(DatasetError, match="2 of the allowed"):
        resolve_inside("pets", [root, root.parent / "secret"])


@pytest.mark.parametrize("path", ["", "  ", "a\0b", "\ud800", "absent", "x" * 5000])
def test_what_is_no_path_or_is_not_there_is_refused(root: Path, path: str):
    with pytest.raises(DatasetError):
        resolve_inside(path, [root])


def test_a_loop_of_links_is_refused(root: Path):
    (root / "a").symlink_to(root / "b")
    (root / "b").symlink_to(root / "a")
    with pytest.raises(DatasetError):
        resolve_inside("a", [root])


def test_without_roots_nothing_is_inside(root: Path):
    with pytest.raises(OutsideRoots, match="none is set"):
        resolve_inside(root, [])


def test_a_name_that_is_no_text_is_shown_escaped():
    assert printable("caf\udce9\n고양이😀") == "caf\\udce9\\n고양이😀"
