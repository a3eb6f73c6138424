"""Frameworks that installed packages offer, the broken ones among them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapters import (
    adapter_module,
    catalog,
    framework_version,
    frameworks,
    get_adapter,
    installed_frameworks,
    known_frameworks,
)
from adapters.contract import UnknownFramework
from adapters.frameworks import FRAMEWORKS, all_frameworks, broken_plugins, framework_info
from adapters.weights import weights_file_name

INFO = """
from pydantic import BaseModel
from adapters.catalog import ModelEntry
from adapters.contract import DatasetFormat, TaskType
from adapters.frameworks import FrameworkInfo
class Nothing(BaseModel):
    pass
TASK = TaskType.IMAGE_CLASSIFICATION
INFO = FrameworkInfo(
    name="guess", title="Guess", licence="MIT", task_types=(TASK,),
    formats={TASK: (DatasetFormat.IMAGEFOLDER,)}, optimizers=("luck",), hyperparameters=Nothing,
    models=(ModelEntry("guess", "wild", (str(TASK),), 0.1, 32, False),),
)
class GuessAdapter:
    framework = "guess"
"""
GOOD = {
    "modelyard.adapters": "guess = guesses:GuessAdapter",
    "modelyard.frameworks": "guess = guesses:INFO",
}

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put packages on the path as an installer would: modules, metadata, entry points."""
    caches = (frameworks._plugins, catalog._by_name)
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name: str, *, points: dict[str, str] = GOOD, code: str = INFO) -> None:
        info = tmp_path / f"{name.replace('-', '_')}-2.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.5\n")
        groups = "\n".join(f"[{group}]\n{point}" for group, point in points.items())
        (info / "entry_points.txt").write_text(groups)
        (tmp_path / "guesses.py").write_text(code)
        importlib.invalidate_caches()
        sys.modules.pop("guesses", None)
        for cache in caches:
            cache.cache_clear()

    yield make
    monkeypatch.undo()
    for cache in caches:
        cache.cache_clear()
    sys.modules.pop("guesses", None)


def test_a_framework_of_an_installed_package_is_like_one_that_is_built_in(install: Install) -> None:
    assert "guess" not in known_frameworks()
    install("modelyard-guess")
    assert set(known_frameworks()) == {*FRAMEWORKS, "guess"}
    assert "guess" in installed_frameworks()
    assert framework_version("guess") == "2.5"
    assert adapter_module("guess") == "guesses"
    assert get_adapter("guess").framework == "guess"
    assert [entry.name for entry in catalog.models("guess")] == ["wild"]
    assert catalog.find_model("guess", "wild") in catalog.models()
    assert weights_file_name("guess", "wild") == "guess/wild.safetensors"
    assert broken_plugins() == {}


@pytest.mark.parametrize(
    ("points", "code", "said"),
    [
        (GOOD, "import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        (GOOD, "raise SystemError('early')", "SystemError: early"),
        (GOOD, "INFO = 5", "is no FrameworkInfo"),
        (GOOD, INFO.replace("=Nothing", "=BaseModel"), "subclass of BaseModel"),
        (GOOD, INFO.replace('name="guess"', 'name="hunch"'), "calls it 'hunch'"),
        ({"modelyard.adapters": "guess = guesses:A"}, INFO, "in the group 'modelyard.frameworks'"),
        ({"modelyard.frameworks": "guess = guesses:INFO"}, INFO, "group 'modelyard.adapters'"),
        (
            {group: point.replace("guess =", "Guess! =") for group, point in GOOD.items()},
            INFO,
            "lower-case letters",
        ),
        (
            {group: point.replace("guess =", "timm =") for group, point in GOOD.items()},
            INFO,
            "modelyard-guess offers it, and it is built in",
        ),
    ],
)
def test_a_broken_one_is_told_by_name_and_the_others_are_there(
    install: Install,
    points: dict[str, str],
    code: str,
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    install("modelyard-guess", points=points, code=code)
    assert set(all_frameworks()) == set(FRAMEWORKS)
    [(name, reason)] = broken_plugins().items()
    assert said in reason
    assert name in caplog.text
    assert said in caplog.text
    if name not in FRAMEWORKS:
        with pytest.raises(UnknownFramework, match="cannot be used"):
            framework_info(name)


def test_two_packages_that_offer_the_same_are_both_named(install: Install) -> None:
    install("modelyard-guess")
    install("other-guess")
    assert "modelyard-guess and other-guess both offer it" in broken_plugins()["guess"]
