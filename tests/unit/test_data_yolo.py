"""YOLO data sets: every way to write a data.yaml that is meant well, and none that is not."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest

from adapters.contract import DatasetFormat, TaskType
from adapters.data import reading, yolo
from adapters.data.describe import describe
from adapters.data.description import DatasetError
from adapters.data.roots import OutsideRoots
from adapters.data.yolo_content import YoloContent
from tests.unit.data_sets import codes, make_yolo, write_image, write_yaml


def read(path: Path, roots: Sequence[Path] = ()) -> yolo.YoloData:
    content = reading.read(
        path, format=DatasetFormat.YOLO, task_type=TaskType.OBJECT_DETECTION, roots=roots
    )
    assert isinstance(content, YoloContent)
    return content.data


def test_a_data_set_is_read_from_its_folder_or_its_yaml(tmp_path: Path):
    make_yolo(tmp_path)
    data = read(tmp_path)
    assert data == read(tmp_path / "data.yaml")
    assert (data.names, data.task_type) == (("cat",), TaskType.OBJECT_DETECTION)
    assert [image.name for image in data.splits["train"]] == ["0.png", "1.png", "2.png"]
    assert data.find_label(data.splits["val"][1]) == tmp_path / "labels" / "val" / "1.txt"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [a, b]", ("a", "b")),
        ("names: {1: b, 0: a}", ("a", "b")),
        ("names:\n  0: no\n  1: 1e3", ("no", "1e3")),  # as written, not as YAML 1.1 means it
        ("names: ['고양이', \"\\U0001F600\"]", ("고양이", "😀")),
        ("nc: 3", ("class_0", "class_1", "class_2")),
        ("nc: 2\nnames: [a, b]", ("a", "b")),
    ],
)
def test_classes_are_a_list_a_mapping_or_a_number(tmp_path: Path, text: str, names: tuple):
    make_yolo(tmp_path)
    write_yaml(tmp_path, text)
    assert read(tmp_path).names == names


@pytest.mark.parametrize(
    "splits",
    [
        "path: .\ntrain: images/train\nval: images/val\n",
        "path: ../datasets/coco8\ntrain: images/train\nval: images/val\n",
        "path: images\ntrain: train\nval: val\n",
        "train: ../images/train\nval: ../images/val\n",  # as Roboflow exports it
        "train: [images/train]\nvalidation: [images/val]\n",
        "train: train.txt\nval: val.txt\n",
        "train: ./images/train/\nval: images//val\n",
        "train: images/train\nval: images/val\ntest: ~\nnc: null\ndownload:\n",
    ],
)
def test_splits_are_found_however_they_are_written(tmp_path: Path, splits: str):
    make_yolo(tmp_path)
    (tmp_path / "train.txt").write_text("".join(f"./images/train/{i}.png\r\n" for i in range(3)))
    (tmp_path / "val.txt").write_text("\ufeff" + "".join(f"images/val/{i}.png\n" for i in range(3)))
    write_yaml(tmp_path, splits=splits)
    data = read(tmp_path)
    assert {split: len(images) for split, images in data.splits.items()} == {"train": 3, "val": 3}
    assert all(data.find_label(image) for images in data.splits.values() for image in images)
    assert data.problems == ()


def test_absolute_splits_work_inside_the_data_set(tmp_path: Path):
    make_yolo(tmp_path)
    places = f"path: {tmp_path}\ntrain: {tmp_path}/images/train\nval: images/val\n"
    write_yaml(tmp_path, splits=places)
    assert len(read(tmp_path).splits["train"]) == 3


@pytest.mark.parametrize(
    "splits",
    [
        "path: ..\ntrain: images/train\nval: images/val\n",
        "path: {folder}\ntrain: images/train\nval: images/val\n",
        "train: ../images/train\nval: ../images/val\n",
        "train: [../images/train]\nval: {folder}/images/val\n",
        "train: ../train.txt\nval: ../images/val\n",
    ],
)
def test_images_may_lie_above_the_yaml_in_the_folder_that_is_registered(
    tmp_path: Path, splits: str
):
    make_yolo(tmp_path)
    (tmp_path / "train.txt").write_text("".join(f"./images/train/{i}.png\n" for i in range(3)))
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "cfg").mkdir()
    write_yaml(tmp_path / "cfg", splits=splits.format(folder=tmp_path))
    data = read(tmp_path)
    assert {split: len(images) for split, images in data.splits.items()} == {"train": 3, "val": 3}
    assert all(data.find_label(image) for images in data.splits.values() for image in images)
    with pytest.raises(DatasetError):  # registered alone, it leads out
        read(tmp_path / "cfg" / "data.yaml")


@pytest.mark.parametrize(
    "splits",
    [
        "path: /etc\ntrain: .\nval: .\n",
        "path: /absent\ntrain: .\nval: .\n",
        "train: /etc\nval: images/val\n",
        "train: ../../..\nval: images/val\n",
        "train: [images/train, ../elsewhere]\nval: images/val\n",
        "train: out\nval: images/val\n",
        "train: images/train\nval: ../elsewhere/list.txt\n",
    ],
)
def test_splits_that_lead_out_of_the_data_set_are_refused(tmp_path: Path, splits: str):
    folder = make_yolo(tmp_path / "set")
    make_yolo(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "list.txt").write_text("./images/val/0.png")
    (folder / "out").symlink_to(tmp_path / "elsewhere")
    write_yaml(folder, splits=splits)
    with pytest.raises(OutsideRoots, match="leads out"):
        yolo.scan(folder)


@pytest.mark.parametrize("test", ["../test/images", "test/images", "test.txt"])
def test_an_export_may_name_a_test_split_that_it_has_not(tmp_path: Path, test: str):
    make_yolo(tmp_path)
    write_yaml(tmp_path, splits=f"train: images/train\nval: images/val\ntest: {test}\n")
    data = read(tmp_path)
    assert set(data.splits) == {"train", "val"}
    assert [(p.severity, p.code, p.file) for p in data.problems] == [
        ("warning", "split_not_found", "data.yaml")
    ]


def test_a_mac_may_have_taken_the_letters_of_names_apart(tmp_path: Path):
    """Images and lists of one composition and labels of the other are the same names."""
    make_yolo(tmp_path)
    apart = unicodedata.normalize("NFD", "고양이 é.png")
    for kind, name in (("images", apart), ("labels", "고양이 é.png")):
        for old in (tmp_path / kind).rglob("0.*"):
            old.rename(old.with_name(name).with_suffix(old.suffix))
    for kind in ("images", "labels"):
        (tmp_path / kind / "val").rename(tmp_path / kind / "검증")
    folder = unicodedata.normalize("NFD", "검증")
    write_yaml(tmp_path, splits=f"train: train.txt\nval: images/{folder}\n")
    (tmp_path / "train.txt").write_text("images/train/고양이 é.png\nimages/train/1.png\n")
    found = describe(tmp_path)
    assert found.problems == ()
    assert found.splits == {"train": 2, "val": 3}


def test_a_path_that_leads_out_is_refused_with_what_would_be_right(tmp_path: Path):
    make_yolo(tmp_path)
    write_yaml(tmp_path, splits="path: /content/cats\ntrain: images/train\nval: images/val\n")
    with pytest.raises(OutsideRoots, match="leave out 'path' where the images lie beside"):
        yolo.scan(tmp_path)


def test_splits_may_lie_in_another_allowed_root(tmp_path: Path):
    folder = make_yolo(tmp_path / "set")
    make_yolo(tmp_path / "elsewhere")
    write_yaml(folder, splits="train: ../elsewhere/images/train\nval: images/val\n")
    assert len(read(folder, roots=[tmp_path]).splits["train"]) == 3


def test_a_list_that_names_what_is_outside_or_absent_tells_the_line(tmp_path: Path):
    folder = make_yolo(tmp_path / "set")
    outside = write_image(tmp_path / "secret.png")
    (folder / "linked.png").symlink_to(outside)
    lines = ["images/train/0.png", "", "images/train/9.png", "../secret.png", str(outside)]
    (folder / "train.txt").write_text("\n".join([*lines, "linked.png", "data.yaml", "a\0b"]))
    write_yaml(folder, splits="train: train.txt\nval: images/val\n")
    data = yolo.scan(folder)
    assert [(p.code, p.file, p.line) for p in data.problems] == [
        ("image_not_found", "train.txt", 3),
        ("link_outside", "train.txt", 4),
        ("link_outside", "train.txt", 5),
        ("link_outside", "train.txt", 6),
        ("image_not_found", "train.txt", 7),
        ("image_not_found", "train.txt", 8),
    ]
    assert data.splits["train"] == [folder / "images" / "train" / "0.png"]
    with pytest.raises(DatasetError, match=r"line 3 of 'train\.txt'"):
        read(folder)


def test_a_label_that_is_a_link_out_of_the_data_set_is_an_error(tmp_path: Path):
    folder = make_yolo(tmp_path / "set")
    (tmp_path / "secret.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    label = folder / "labels" / "val" / "2.txt"
    label.unlink()
    label.symlink_to(tmp_path / "secret.txt")
    data = yolo.scan(folder)
    assert [(p.code, p.file) for p in data.problems] == [("link_outside", "labels/val/2.txt")]
    assert data.find_label(folder / "images" / "val" / "2.png") is None


def test_a_yaml_that_is_a_link_out_of_the_data_set_is_refused(tmp_path: Path):
    folder = make_yolo(tmp_path / "set")
    (folder / "data.yaml").rename(tmp_path / "data.yaml")
    (folder / "data.yaml").symlink_to(tmp_path / "data.yaml")
    with pytest.raises(OutsideRoots):
        read(folder)


def test_download_is_warned_of_and_never_run(tmp_path: Path):
    make_yolo(tmp_path)
    touched = tmp_path / "touched"
    write_yaml(tmp_path, f"names: [cat]\ndownload: |\n  open('{touched}', 'w')\n")
    data = read(tmp_path)
    assert codes(data.problems) == ["download_ignored"]
    assert not touched.exists()


def test_a_tag_that_would_run_code_is_only_text(tmp_path: Path):
    make_yolo(tmp_path)
    touched = tmp_path / "touched"
    write_yaml(tmp_path, f"names: !!python/object/apply:os.system ['touch {touched}']\n")
    assert read(tmp_path).names == (f"touch {touched}",)
    assert not touched.exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("names: [a", "line"),
        ("names: []\n", "list or a mapping"),
        ("names: {0: a, 2: b}\n", "without a gap"),
        ("names: [[a], b]\n", "one text a class"),
        ("names: cat\n", "list or a mapping"),
        ("nc: two\n", "'nc'"),
        ("nc: -1\n", "'nc'"),
        ("nc: 99999999999\n", "'nc'"),
        ("", "lacks 'names'"),
        ("names: [a]\npath: [x]\n", "'path'"),
        ('names: [a]\npath: "\\uD800"\n', "'path'"),
        ("names: [a]\nkpt_shape: [17]\n", "'kpt_shape'"),
        ("- a\n- b\n", "YAML|mapping"),
        ("x: " + "[" * 5000, "nested|YAML"),
        ("x: " + "a" * 300_000, "larger than"),
        ("names: [a]\n? [b]\n: c\n", "YAML"),
        ("a: &a [x]\nb: *c\n", "YAML"),
    ],
)
def test_a_yaml_of_the_wrong_form_is_refused_with_the_reason(
    tmp_path: Path, text: str, reason: str
):
    make_yolo(tmp_path)
    write_yaml(tmp_path, text)
    with pytest.raises(DatasetError, match=reason):
        yolo.scan(tmp_path)


def test_a_yaml_that_is_no_text_or_no_file_is_refused(tmp_path: Path):
    make_yolo(tmp_path)
    (tmp_path / "data.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match="UTF-8"):
        yolo.scan(tmp_path)
    (tmp_path / "data.yaml").unlink()
    os.mkfifo(tmp_path / "data.yaml")
    with pytest.raises(DatasetError):
        yolo.scan(tmp_path)


def test_several_yamls_are_refused_unless_one_is_data_yaml(tmp_path: Path):
    make_yolo(tmp_path)
    (tmp_path / "data.yaml").rename(tmp_path / "pets.yaml")
    assert read(tmp_path).names == ("cat",)
    for tools in (".pre-commit-config.yaml", "._pets.yaml"):
        (tmp_path / tools).write_bytes(b"\0")
    assert read(tmp_path).names == ("cat",)
    (tmp_path / "other.yaml").write_text("x: 1")
    with pytest.raises(DatasetError, match=r"other\.yaml, pets\.yaml"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("text", "splits", "expected"),
    [
        ("names: [a, a]\n", None, "class_named_twice"),
        ("nc: 3\nnames: [a]\n", None, "names_differ_from_nc"),
        ("names: [a]\n", "train: images/train\nval: images/absent\n", "split_not_found"),
        ("names: [a]\n", "train: images/train\nval: images\n", "splits_overlap"),
        ("names: [a]\n", "val: images/val\n", "no_train_split"),
        ("names: [a]\n", "train: data.yaml\nval: images/val\n", "split_not_found"),
        ("names: [a]\n", "train: images/train\nval: images/train\n", "splits_overlap"),
    ],
)
def test_a_yaml_that_can_be_read_but_is_wrong_has_problems(
    tmp_path: Path, text: str, splits: str | None, expected: str
):
    make_yolo(tmp_path)
    write_yaml(tmp_path, text, splits=splits)
    assert expected in codes(yolo.scan(tmp_path).problems)


def test_labels_lie_beside_images_where_no_folder_is_named_images(tmp_path: Path):
    for split in ("train", "val"):
        write_image(tmp_path / split / "0.png")
        (tmp_path / split / "0.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    write_yaml(tmp_path, splits="train: train\nval: val\n")
    data = read(tmp_path)
    assert data.find_label(tmp_path / "val" / "0.png") == tmp_path / "val" / "0.txt"


def test_a_folder_images_above_the_data_set_does_not_move_its_labels(tmp_path: Path):
    folder = tmp_path / "images" / "set"
    write_image(folder / "train" / "0.png")
    write_yaml(folder, splits="train: train\nval: train\n")
    data = read(folder)
    assert data.label(folder / "train" / "0.png") == folder / "train" / "0.txt"


@pytest.mark.parametrize(
    ("line", "extra", "task"),
    [
        ("0 .5 .5 .2 .2", "", TaskType.OBJECT_DETECTION),
        ("0 .1 .1 .5 .1 .5 .5", "", TaskType.INSTANCE_SEGMENTATION),
        ("0 .5 .5 .2 .2 .5 .5 2", "kpt_shape: [1, 3]\n", TaskType.POSE_ESTIMATION),
    ],
)
def test_the_task_is_told_from_the_labels(tmp_path: Path, line: str, extra: str, task: TaskType):
    make_yolo(tmp_path, line=line)
    write_yaml(tmp_path, f"names: [cat]\n{extra}")
    assert read(tmp_path).task_type == task
