"""What workers say of their models, and what a job's wait says of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters import framework_version, installed_frameworks
from adapters.catalog import catalog_version, models
from adapters.frameworks import FRAMEWORKS
from tests.api import serve
from tests.factories import make_job
from webapp.extensions import db
from webapp.models import JobStatus
from webapp.services import broker
from webapp.services.waiting import waits
from workers import inventory
from workers.inventory import Inventory
from workers.template import Template


class Library:
    """Stands for a template whose timm has other models than the catalog says."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def ask(self, function: Callable[..., Any], *args: Any, seconds: float) -> list[str]:
        assert function is inventory.library_names
        return self.names


@pytest.mark.parametrize("framework", sorted(set(FRAMEWORKS) & set(installed_frameworks())))
def test_each_catalog_is_made_from_the_installed_version(framework: str) -> None:
    assert catalog_version(framework) == framework_version(framework), "run: make catalog"


def test_a_worker_whose_library_is_the_catalogs_has_all_of_it(tmp_path: Path) -> None:
    there = Inventory(["timm"], template=Library([]), weights=tmp_path)  # type: ignore[arg-type]
    there._ask()
    told = there.describe()["timm"]
    assert (told["models"], told["missing"], told["new"]) == (len(models("timm")), [], [])
    assert told["version"] == framework_version("timm")


def test_a_worker_with_another_version_tells_which_names_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [entry.name for entry in models("timm") if entry.name != "resnet18"]
    library = Library([*names, "resnet_of_tomorrow"])
    monkeypatch.setattr(inventory, "catalog_version", lambda framework: "0.0.1")
    there = Inventory(["timm"], template=library, weights=tmp_path)  # type: ignore[arg-type]
    assert there.describe()["timm"]["missing"] == []  # nothing is said before it is known
    there._ask()
    told = there.describe()["timm"]
    assert (told["missing"], told["new"]) == (["resnet18"], ["resnet_of_tomorrow"])


def test_cached_weights_are_told_by_their_models_names(tmp_path: Path) -> None:
    (tmp_path / "timm").mkdir()
    for name in ("resnet18.safetensors", "vit.a_b.bin", "notes.txt"):
        (tmp_path / "timm" / name).touch()
    there = Inventory(["timm"], template=Library([]), weights=tmp_path)  # type: ignore[arg-type]
    assert there.describe()["timm"]["weights"] == ["resnet18", "vit.a_b"]


def test_the_template_answers_from_a_process_of_its_own() -> None:
    template = Template([])
    pid = template.ask(os.getpid, seconds=240)
    assert isinstance(pid, int)
    assert pid != os.getpid()


def test_a_job_waits_for_a_worker_that_has_its_model_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = {
        "name": "w1", "frameworks": ["timm"], "versions": {"timm": "0.9.1"}, "slots": 1, "busy": 0,
        "status": "online", "gpu": [], "models": {"timm": {"missing": ["resnet18"]}},
    }  # fmt: skip
    monkeypatch.setattr(broker, "workers", lambda: [worker])
    with (
        serve(tmp_path, TRAINING_EXECUTION_MODE="celery", REDIS_URL="redis://127.0.0.1:1/0") as api,
        api.app.app_context(),
    ):
        job = make_job(model_name="resnet18", status=JobStatus.QUEUED)
        reason = waits([job])[job.id].reason
        assert reason == "No worker has the model resnet18: w1 has timm 0.9.1"
        other = make_job(model_name="resnet34", status=JobStatus.QUEUED, priority=9)
        assert waits([other])[other.id].reason == "A worker is about to take it"
        db.session.rollback()
