"""Images are held out by class, in an order that a seed gives and that a new file hardly moves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from adapters.contract import DatasetFormat, TaskType, TrainingJob
from adapters.data.content import Sample, SplitRule
from adapters.data.describe import describe
from adapters.data.imagefolder import scan
from adapters.data.reading import read, read_for
from adapters.data.split import hold_out
from tests.shapes import compose
from tests.unit.data_sets import make_imagefolder, make_yolo, write_image, write_yaml

BASE = Path("/data")


def samples(**counts: int) -> list[Sample]:
    return [
        Sample(BASE / name / f"{i}.png", classes=(label,))
        for label, (name, count) in enumerate(counts.items())
        for i in range(count)
    ]


def held(found: list[Sample], rule: SplitRule | None = None) -> set[Path]:
    return {s.image for s in hold_out(found, base=BASE, rule=rule or SplitRule())["val"]}


def test_the_same_share_of_each_class_is_held_out():
    splits = hold_out(samples(cat=50, dog=10, fish=5), base=BASE, rule=SplitRule())
    count = {split: Counter(s.classes[0] for s in found) for split, found in splits.items()}
    assert count == {"train": {0: 40, 1: 8, 2: 4}, "val": {0: 10, 1: 2, 2: 1}}


@pytest.mark.parametrize(("images", "expected"), [(1, 0), (2, 1), (3, 1), (9, 2)])
def test_a_small_class_keeps_an_image_in_train(images: int, expected: int):
    found = held(samples(cat=20, dog=images))
    assert len([image for image in found if image.parent.name == "dog"]) == expected


def test_classes_of_one_image_each_are_split_all_together():
    assert len(held(samples(**{f"c{i}": 1 for i in range(10)}))) == 2


def test_another_seed_holds_out_others_and_the_same_seed_the_same():
    found = samples(cat=100)
    assert held(found) == held(list(reversed(found)))
    assert held(found) != held(found, SplitRule(seed=1))
    assert len(held(found, SplitRule(val_share=0.5))) == 50


@pytest.mark.parametrize("number", range(20))
def test_a_new_file_moves_one_other_at_most(number: int):
    before = samples(cat=101)
    new = Sample(BASE / "cat" / f"new{number}.png", classes=(0,))
    moved = held(before) ^ held([*before, new])
    assert len(moved - {new.image}) <= 1


def test_an_image_of_several_classes_counts_for_the_rarest():
    common = [Sample(BASE / f"{i}.png", classes=(0,)) for i in range(40)]
    rare = [Sample(BASE / f"r{i}.png", classes=(0, 1)) for i in range(10)]
    assert sum(image.name.startswith("r") for image in held([*common, *rare])) == 2


def test_the_order_of_the_images_stays():
    splits = hold_out(samples(cat=30, dog=30), base=BASE, rule=SplitRule())
    for found in splits.values():
        order = [(s.classes, int(s.image.stem)) for s in found]
        assert order == sorted(order)


def test_an_image_folder_without_splits_is_split_the_same_way_each_time(tmp_path: Path):
    for name in ("cat", "dog"):
        for i in range(12):
            write_image(tmp_path / name / f"{i:02d}.png")
    content = scan(tmp_path, split_rule=SplitRule(seed=3))
    assert {split: len(found) for split, found in content.splits.items()} == {
        "train": 20,
        "val": 4,
    }
    assert content.split_rule == SplitRule(seed=3)
    assert scan(tmp_path, split_rule=SplitRule(seed=3)) == content
    assert scan(tmp_path, split_rule=SplitRule(seed=4)).splits != content.splits


def test_images_are_held_out_of_train_beside_a_test_split(tmp_path: Path):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            for i in range(5):
                write_image(tmp_path / split / name / f"{i}.png")
    found = describe(tmp_path)
    assert found.splits == {"train": 8, "val": 2, "test": 10}
    assert found.split_rule is not None
    assert "20 %" in found.split_rule
    assert "seed 0" in found.split_rule


def test_a_yaml_with_only_train_is_split_by_the_classes_in_its_labels(tmp_path: Path):
    make_yolo(tmp_path, images=10)
    for i in range(5):
        (tmp_path / "labels" / "train" / f"{i}.txt").write_text("1 0.5 0.5 0.1 0.1\n")
    write_yaml(tmp_path, "names: [cat, dog]\n", splits="train: images/train\n")
    content = read(tmp_path, format=DatasetFormat.YOLO, task_type=TaskType.OBJECT_DETECTION)
    count = Counter(thing.class_id for s in content.splits["val"] for thing in content.objects(s))
    assert count == {0: 1, 1: 1}
    assert len(content.splits["train"]) == 8


def test_a_job_carries_the_rule_to_where_it_is_trained(tmp_path: Path):
    make_imagefolder(tmp_path, splits=("train",), images=10)
    message = {
        "id": 1,
        "attempt": 1,
        "framework": "timm",
        "model_name": "resnet18",
        "task_type": "image_classification",
        "dataset_path": str(tmp_path),
        "dataset_format": "imagefolder",
        "epochs": 1,
        "batch_size": 4,
        "learning_rate": 0.1,
        "split_seed": 5,
        "val_share": 0.4,
    }
    content = read_for(TrainingJob.from_message(message))
    assert content.split_rule == SplitRule(seed=5, val_share=0.4)
    assert {split: len(found) for split, found in content.splits.items()} == {
        "train": 12,
        "val": 8,
    }


@pytest.mark.parametrize("format", [DatasetFormat.COCO, DatasetFormat.MASKS])
def test_the_fingerprint_knows_the_split(tmp_path: Path, format: DatasetFormat):
    task = TaskType.SEMANTIC_SEGMENTATION
    folder = compose(tmp_path, format=format, task_type=task, train=12, val=3)
    if format == DatasetFormat.COCO:
        (folder / "annotations" / "instances_val.json").unlink()
    else:
        for kind in ("images", "masks"):
            for path in (folder / kind / "val").iterdir():
                path.unlink()
            (folder / kind / "val").rmdir()
    found = [describe(folder, format=format, split_rule=SplitRule(seed=s)) for s in (0, 0, 1)]
    assert [set(d.splits) for d in found] == [{"train", "val"}] * 3
    assert found[0].valid
    assert found[0].fingerprint == found[1].fingerprint != found[2].fingerprint
