"""Image folders are read the same way each time, and faults are named."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path

import pytest

from adapters.contract import DatasetFormat, TaskType
from adapters.data import imagefolder, reading
from adapters.data.content import Content
from adapters.data.description import DatasetError
from tests.unit.data_sets import codes, make_imagefolder, write_image


def read(path: Path) -> Content:
    return reading.read(
        path, format=DatasetFormat.IMAGEFOLDER, task_type=TaskType.IMAGE_CLASSIFICATION
    )


def test_classes_are_in_natural_order_and_ids_follow_them(tmp_path: Path):
    make_imagefolder(tmp_path, classes=("10", "2", "b", "a"))
    data = read(tmp_path)
    assert data.classes == ("2", "10", "a", "b")
    assert {(s.image.parent.name, s.classes) for s in data.splits["train"]} == {
        ("2", (0,)),
        ("10", (1,)),
        ("a", (2,)),
        ("b", (3,)),
    }
    assert [sample.image.name for sample in data.splits["val"]] == ["0.png", "1.png", "2.png"] * 4


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_validation_has_several_names(tmp_path: Path, name: str):
    make_imagefolder(tmp_path, splits=("train", name, "test"))
    assert list(read(tmp_path).splits) == ["train", "val", "test"]


def test_training_and_testing_are_splits_and_no_classes(tmp_path: Path):
    make_imagefolder(tmp_path, splits=("Training", "testing"), images=5)
    data = read(tmp_path)
    assert data.classes == ("cat", "dog")
    assert {split: len(images) for split, images in data.splits.items()} == {
        "train": 8,
        "val": 2,
        "test": 10,
    }


def test_folders_that_are_splits_by_their_names_are_not_taken_for_classes(tmp_path: Path):
    make_imagefolder(tmp_path, splits=("training_set", "test_set"))
    with pytest.raises(DatasetError, match="'test_set' and 'training_set' seem to be splits"):
        read(tmp_path)


def test_a_folder_around_the_classes_is_named(tmp_path: Path):
    make_imagefolder(tmp_path / "pets", splits=("",))
    with pytest.raises(DatasetError, match="name their folder instead"):
        read(tmp_path)
    assert read(tmp_path / "pets").classes == ("cat", "dog")


def test_where_no_image_can_be_read_each_reason_is_told(tmp_path: Path):
    make_imagefolder(tmp_path / "set", splits=())
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "labels.csv").write_text("file_name,labels\nimgs\\0.png,cat\n")
    found = imagefolder.scan(tmp_path / "set").problems
    assert ("image_not_found", "labels.csv", 2) in [(p.code, p.file, p.line) for p in found]
    for split in ("train", "val"):
        make_imagefolder(tmp_path / "elsewhere", splits=(split,))
        (tmp_path / "linked").mkdir(exist_ok=True)
        (tmp_path / "linked" / split).symlink_to(tmp_path / "elsewhere" / split)
    assert codes(imagefolder.scan(tmp_path / "linked").problems)[:2] == ["link_outside"] * 2


def test_names_with_spaces_korean_letters_and_emoji_are_read(tmp_path: Path):
    names = ("고양이", "my dog", "🐟", "ünïcode")
    make_imagefolder(tmp_path / "데이터 😀", classes=names)
    assert set(read(tmp_path / "데이터 😀").classes) == set(names)


def test_a_class_named_by_a_mac_is_the_class_named_by_linux(tmp_path: Path):
    make_imagefolder(tmp_path, splits=("train",), classes=("고양이", "dog"))
    decomposed = unicodedata.normalize("NFD", "고양이")
    make_imagefolder(tmp_path, splits=("val",), classes=(decomposed, "dog"))
    data = read(tmp_path)
    assert data.classes == ("dog", "고양이")
    assert data.problems == ()


def test_images_may_lie_deeper_and_litter_is_passed_over(tmp_path: Path):
    make_imagefolder(tmp_path)
    write_image(tmp_path / "train" / "cat" / "2024" / "may" / "x.PNG")
    for litter in (".DS_Store", "train/Thumbs.db", "train/cat/._0.png"):
        (tmp_path / litter).write_bytes(b"litter")
    for folder in ("__MACOSX", "lost+found", "train/@eaDir", "$RECYCLE.BIN"):
        (tmp_path / folder).mkdir()
    write_image(tmp_path / "train" / "cat" / "@eaDir" / "0.png" / "preview.jpg")
    data = read(tmp_path)
    assert len(data.splits["train"]) == 7
    assert data.problems == ()


def test_an_empty_class_folder_is_an_error_that_names_it(tmp_path: Path):
    make_imagefolder(tmp_path)
    (tmp_path / "val" / "bird").mkdir()
    problems = [p for p in imagefolder.scan(tmp_path).problems if p.code == "empty_class"]
    assert [(p.severity, p.file) for p in problems] == [("error", "val/bird")]
    with pytest.raises(DatasetError, match="'val/bird' holds no image"):
        read(tmp_path)


def test_a_class_missing_in_train_is_an_error_and_in_val_a_warning(tmp_path: Path):
    make_imagefolder(tmp_path)
    make_imagefolder(tmp_path, splits=("train",), classes=("bird",))
    make_imagefolder(tmp_path, splits=("val",), classes=("fish",))
    problems = imagefolder.scan(tmp_path).problems
    assert [(p.severity, p.code) for p in problems] == [
        ("error", "missing_class_in_split"),
        ("warning", "missing_class_in_split"),
    ]
    assert "'fish'" in problems[0].message
    assert "'bird'" in problems[1].message


@pytest.mark.parametrize(("empty", "code"), [("val", "no_val_split"), ("train", "no_train_split")])
def test_an_empty_split_is_an_error(tmp_path: Path, empty: str, code: str):
    make_imagefolder(tmp_path)
    shutil.rmtree(tmp_path / empty)
    (tmp_path / empty).mkdir()
    assert code in codes(imagefolder.scan(tmp_path).problems)


def test_a_single_class_is_an_error(tmp_path: Path):
    make_imagefolder(tmp_path, classes=("cat",))
    assert codes(imagefolder.scan(tmp_path).problems) == ["single_class"]


def test_what_belongs_nowhere_is_warned_of_and_passed_over(tmp_path: Path):
    make_imagefolder(tmp_path)
    (tmp_path / "train" / "cat" / "notes.docx").write_bytes(b"x")
    (tmp_path / "README.md").write_text("x")
    write_image(tmp_path / "train" / "stray.png")
    write_image(tmp_path / "extra" / "y.png")
    data = read(tmp_path)
    assert sorted((p.code, p.file) for p in data.problems) == [
        ("image_without_class", "train/stray.png"),
        ("unknown_file", "README.md"),
        ("unknown_file", "train/cat/notes.docx"),
        ("unknown_folder", "extra"),
    ]
    assert len(data.splits["train"]) == 6


def test_an_image_of_a_form_that_is_not_read_is_told_of_as_such(tmp_path: Path):
    make_imagefolder(tmp_path)
    (tmp_path / "train" / "cat" / "phone.HEIC").write_bytes(b"x")
    (problem,) = read(tmp_path).problems
    assert (problem.severity, problem.code) == ("warning", "unknown_file")
    assert "save it as JPEG or PNG" in problem.message


def test_two_folders_of_one_split_are_an_error(tmp_path: Path):
    make_imagefolder(tmp_path, splits=("train", "val", "valid"))
    assert codes(imagefolder.scan(tmp_path).problems) == ["split_twice"]


def test_links_inside_are_followed_and_links_that_lead_out_are_errors(tmp_path: Path):
    outside = write_image(tmp_path / "elsewhere" / "secret.png")
    folder = make_imagefolder(tmp_path / "set")
    (folder / "train" / "cat" / "inside.png").symlink_to(folder / "train" / "dog" / "0.png")
    assert len(read(folder).splits["train"]) == 7

    (folder / "train" / "cat" / "out.png").symlink_to(outside)
    (folder / "val" / "bird").symlink_to(outside.parent)
    (folder / "val" / "dog" / "gone.png").symlink_to(folder / "absent.png")
    problems = imagefolder.scan(folder).problems
    assert sorted((p.code, p.file) for p in problems) == [
        ("broken_link", "val/dog/gone.png"),
        ("link_outside", "train/cat/out.png"),
        ("link_outside", "val/bird"),
    ]
    assert not any("elsewhere" in p.message for p in problems)
    with pytest.raises(DatasetError):
        read(folder)

    (folder / "val" / "dog" / "gone.png").unlink()
    allowed = imagefolder.scan(folder, roots=[outside.parent])
    assert codes(allowed.problems) == ["missing_class_in_split"]  # bird is only in val


def test_a_loop_of_links_ends(tmp_path: Path):
    make_imagefolder(tmp_path)
    (tmp_path / "train" / "cat" / "again").symlink_to(tmp_path / "train" / "cat")
    (tmp_path / "val" / "cat" / "up").symlink_to(tmp_path)
    data = imagefolder.scan(tmp_path)
    assert len(data.splits["train"]) == 6


def test_a_pipe_named_like_an_image_is_an_error_and_not_a_wait(tmp_path: Path):
    make_imagefolder(tmp_path)
    os.mkfifo(tmp_path / "train" / "cat" / "pipe.png")
    assert codes(imagefolder.scan(tmp_path).problems) == ["not_a_file"]


def test_a_name_that_is_no_text_is_read_and_shown_escaped(tmp_path: Path):
    make_imagefolder(tmp_path, classes=("cat", os.fsdecode(b"caf\xe9")))
    assert read(tmp_path).classes == ("caf\\udce9", "cat")


@pytest.mark.parametrize("present", ["nothing", "empty", "file", "classes_without_images"])
def test_what_is_no_image_folder_is_refused(tmp_path: Path, present: str):
    path = tmp_path / "set"
    if present == "empty":
        path.mkdir()
    elif present == "file":
        path.write_text("x")
    elif present == "classes_without_images":
        (path / "train").mkdir(parents=True)
    with pytest.raises(DatasetError):
        read(path)
