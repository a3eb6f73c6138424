"""The models that a job may name, and where their weights lie."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from adapters.catalog import DATA, ModelEntry, find_model, models
from adapters.catalog_build import write_catalog
from adapters.weights import find_weights, weights_file_name


def test_a_model_is_found_by_its_exact_name() -> None:
    entry = find_model("timm", "resnet18")
    assert entry == ModelEntry(
        framework="timm",
        name="resnet18",
        task_types=("image_classification",),
        params_m=11.69,
        input_size=224,
        pretrained=True,
    )


@pytest.mark.parametrize(
    ("framework", "name"),
    [
        ("timm", "resnet"),
        ("timm", "hf-hub:timm/resnet18"),
        ("timm", "../resnet18"),
        ("timm", ""),
        ("keras", "resnet18"),
        ("../catalog_data/timm", "resnet18"),
    ],
)
def test_a_model_that_is_not_there_is_not_found(framework: str, name: str) -> None:
    assert find_model(framework, name) is None


def test_all_frameworks_together_are_the_sum_of_each() -> None:
    each = [entry for path in sorted(DATA.glob("*.json")) for entry in models(path.stem)]
    assert list(models()) == each
    assert models("keras") == ()


def test_every_model_of_timm_is_one_that_timm_has() -> None:
    names = {entry.name for entry in models("timm")}
    assert len(names) > 1300
    assert names <= set(timm.list_models())


def test_the_catalog_agrees_with_the_library() -> None:
    for name in ("test_resnet", "mobilenetv3_small_100", "vit_tiny_patch16_224"):
        entry = find_model("timm", name)
        assert entry is not None
        with torch.device("meta"):
            model = timm.create_model(name)
        assert entry.params_m == round(sum(p.numel() for p in model.parameters()) / 1e6, 2)
        assert entry.input_size == model.pretrained_cfg["input_size"][-1]


def test_the_catalogs_are_small_and_one_model_a_line() -> None:
    for path in DATA.glob("*.json"):
        assert path.stat().st_size < 300_000
        assert len(path.read_text().splitlines()) == len(models(path.stem)) + 6


def test_a_written_catalog_is_the_same_for_the_same_models(tmp_path: Path) -> None:
    entries = list(models("timm"))[:5]
    write_catalog(entries, version="1", path=tmp_path / "a.json")
    write_catalog(entries[::-1], version="1", path=tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_weights_lie_in_one_folder_a_framework() -> None:
    assert weights_file_name("timm", "resnet18") == "timm/resnet18.safetensors"
    assert weights_file_name("ultralytics", "yolo11n") == "ultralytics/yolo11n.pt"
    assert weights_file_name("ultralytics", "yolo11n.pt") == "ultralytics/yolo11n.pt"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin"])
def test_weights_are_found_under_their_names(tmp_path: Path, suffix: str) -> None:
    assert find_weights(tmp_path, "timm", "resnet18.a1_in1k") is None
    file = tmp_path / "timm" / f"resnet18.a1_in1k{suffix}"
    file.parent.mkdir()
    file.touch()
    assert find_weights(tmp_path, "timm", "resnet18.a1_in1k") == file
    assert find_weights(tmp_path, "timm", "resnet18") is None


@pytest.mark.parametrize("name", ["../secret", "a/b", "", ".hidden", "/etc/passwd", "a\0b"])
def test_a_name_that_is_a_path_names_no_weights(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.safetensors").touch()
    assert find_weights(tmp_path, "timm", name) is None
    with pytest.raises(ValueError, match="cannot name weights"):
        weights_file_name("timm", name)
