"""A description tells what a data set holds, and each fault with its file and its line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from adapters.contract import DatasetFormat, TaskType
from adapters.data.apart import describe_apart
from adapters.data.describe import describe
from adapters.data.description import DatasetError, Problem, Severity
from adapters.data.problems import PROBLEMS_KEPT, ProblemList
from adapters.data.roots import OutsideRoots
from tests.shapes import compose
from tests.unit.data_sets import (
    codes,
    make_imagefolder,
    make_panoptic,
    make_yolo,
    write_image,
    write_yaml,
)


def test_an_image_folder_is_described(tmp_path: Path):
    found = describe(make_imagefolder(tmp_path))
    assert (found.format, found.task_type) == (
        DatasetFormat.IMAGEFOLDER,
        TaskType.IMAGE_CLASSIFICATION,
    )
    assert (found.classes, found.splits, found.num_images) == (
        ("cat", "dog"),
        {"train": 6, "val": 6},
        12,
    )
    assert found.valid
    assert found.problems == ()


def test_a_yolo_data_set_is_described(tmp_path: Path):
    found = describe(make_yolo(tmp_path))
    assert (found.format, found.task_type) == (DatasetFormat.YOLO, TaskType.OBJECT_DETECTION)
    assert (found.classes, found.splits) == (("cat",), {"train": 3, "val": 3})
    assert found.problems == ()


def truncated(path: Path) -> None:
    write_image(path, size=(64, 64))
    path.write_bytes(path.read_bytes()[:-4000])


def truncated_jpeg(path: Path) -> None:
    write_image(path.with_suffix(".jpg"), size=(200, 200))
    content = path.with_suffix(".jpg").read_bytes()
    path.with_suffix(".jpg").unlink()
    path.write_bytes(content[: len(content) // 2])


def bomb(path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(path)


@pytest.mark.parametrize(
    ("plant", "code", "severity"),
    [
        (lambda path: path.write_bytes(b""), "unreadable_image", "error"),
        (lambda path: path.write_bytes(b"GIF89a, not really"), "unreadable_image", "error"),
        (lambda path: path.write_text("<svg/>"), "unreadable_image", "error"),
        (lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n"), "unreadable_image", "error"),
        (truncated, "unreadable_image", "error"),
        (truncated_jpeg, "unreadable_image", "error"),
        (bomb, "image_too_large", "error"),
        (lambda path: Image.new("L", (8, 8)).save(path, "JPEG"), "wrong_extension", "warning"),
    ],
    ids=["empty", "broken gif", "svg", "eps", "truncated", "truncated jpeg", "bomb", "extension"],
)
def test_a_faulty_image_is_named(tmp_path: Path, plant, code: str, severity: str):
    make_imagefolder(tmp_path)
    plant(tmp_path / "val" / "dog" / "1.png")
    found = describe(tmp_path)
    assert [(p.code, p.severity, p.file) for p in found.problems] == [
        (code, severity, "val/dog/1.png")
    ]
    assert found.valid == (severity == "warning")
    assert "0x" not in found.problems[0].message


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("1 0.5 0.5 0.2 0.2", "label_out_of_range"),
        ("-1 0.5 0.5 0.2 0.2", "label_out_of_range"),
        ("1e300 0.5 0.5 0.2 0.2", "label_out_of_range"),
        ("0.5 0.5 0.5 0.2 0.2", "label_not_a_number"),
        ("cat 0.5 0.5 0.2 0.2", "label_not_a_number"),
        ("0 0.5 nan 0.2 0.2", "label_not_a_number"),
        ("0 0.5 inf 0.2 0.2", "label_not_a_number"),
        ("0 0.5 0_5 0.2 0.2", "label_not_a_number"),
        ("0 0.5 0.5 0.2", "label_columns"),
        ("0 0.5 0.5 0.2 0.2 0.9", "label_columns"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.5", "label_columns"),  # a polygon among boxes
        ("0,0.5,0.5,0.2,0.2", "label_columns"),
        ("0 0.5 0.5 0.2 0", "box_without_area"),
        ("0 0.5 0.5 -0.2 0.2", "box_without_area"),
        ("0 0.95 0.5 0.2 0.2", "box_outside"),
        ("0 80 80 32 32", "box_outside"),  # in pixels
    ],
)
def test_a_faulty_label_is_an_error_with_its_line(tmp_path: Path, line: str, code: str):
    make_yolo(tmp_path)
    label = tmp_path / "labels" / "train" / "1.txt"
    label.write_text(f"0 0.5 0.5 0.2 0.2\r\n\r\n{line}\r\n0 0.4 0.4 0.1 0.1\r\n")
    found = describe(tmp_path)
    assert [(p.code, p.severity, p.file, p.line) for p in found.problems] == [
        (code, Severity.ERROR, "labels/train/1.txt", 3)
    ]
    assert "line 3 of 'labels/train/1.txt'" in found.problems[0].message


@pytest.mark.parametrize(
    "line", ["0 0.1 0.1 0.2 0.2", "0 0.9 0.9 0.2 0.2", "0 .5 .5 1 1", "0.0 .5 .5 1 1"]
)
def test_a_box_that_touches_the_edge_is_right(tmp_path: Path, line: str):
    assert describe(make_yolo(tmp_path, line=line)).problems == ()


def test_a_label_said_twice_is_a_warning(tmp_path: Path):
    make_yolo(tmp_path, line="0 .5 .5 .2 .2\n0 0.50 0.5 0.2 0.2")
    found = describe(tmp_path)
    assert {(p.code, p.line) for p in found.problems} == {("duplicate_label", 2)}
    assert found.valid


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x01", b"0 \x00 0 0 0"])
def test_a_label_that_is_no_text_is_an_error(tmp_path: Path, content: bytes):
    make_yolo(tmp_path)
    (tmp_path / "labels" / "val" / "0.txt").write_bytes(content)
    found = describe(tmp_path)
    assert [p.file for p in found.problems if p.severity == Severity.ERROR] == ["labels/val/0.txt"]


def test_an_image_without_label_and_a_label_without_image_are_warnings(tmp_path: Path):
    make_yolo(tmp_path)
    (tmp_path / "labels" / "train" / "2.txt").rename(tmp_path / "labels" / "train" / "7.txt")
    (tmp_path / "labels" / "train" / "classes.txt").write_text("cat\n")
    found = describe(tmp_path)
    assert [(p.code, p.file) for p in found.problems] == [
        ("image_without_label", "images/train/2.png"),
        ("label_without_image", "labels/train/7.txt"),
    ]
    assert found.valid


def test_a_split_without_any_object_is_an_error(tmp_path: Path):
    make_yolo(tmp_path)
    shutil.rmtree(tmp_path / "labels" / "train")
    assert "no_labels" in codes(describe(tmp_path))


def test_a_class_without_objects_and_an_image_too_small_are_warnings(tmp_path: Path):
    make_yolo(tmp_path)
    write_yaml(tmp_path, "names: [cat, dog]\n")
    write_image(tmp_path / "images" / "train" / "1.png", size=(8, 30))
    found = describe(tmp_path)
    assert sorted(codes(found)) == ["class_without_objects", "image_too_small"]
    assert found.valid


@pytest.mark.parametrize(
    ("line", "extra", "task", "expected"),
    [
        ("0 .1 .1 .5 .1 .5 .5", "", TaskType.INSTANCE_SEGMENTATION, []),
        ("0 .1 .1 .5 .1 .5 1.5", "", TaskType.INSTANCE_SEGMENTATION, ["polygon_outside"]),
        ("0 .1 .1 .5 .1 .9 .1", "", TaskType.INSTANCE_SEGMENTATION, ["box_without_area"]),
        ("0 .1 .1 .5 .1 .5 .1", "", TaskType.INSTANCE_SEGMENTATION, ["polygon_too_short"]),
        ("0 .1 .1 .5 .1 .5 .5", "", TaskType.OBJECT_DETECTION, []),
        ("0 .5 .5 .2 .2", "", TaskType.INSTANCE_SEGMENTATION, ["polygon_too_short"]),
        ("0 .5 .5 .2 .2 .3", "", TaskType.INSTANCE_SEGMENTATION, ["label_columns"]),
        ("0 .1 .1 .5 .1 .5 .5", "", TaskType.SEMANTIC_SEGMENTATION, []),
        ("0 .5 .5 .2 .2", "", TaskType.IMAGE_CLASSIFICATION, []),
        ("0 .1 .1 .5 .1 .5 .5 .1 .5", "", TaskType.ORIENTED_DETECTION, []),
        ("0 .1 .1 .5 .1 .5 .5", "", TaskType.ORIENTED_DETECTION, ["label_columns"]),
        ("0 .5 .5 .2 .2 .5 .5 2", "kpt_shape: [1, 3]", TaskType.POSE_ESTIMATION, []),
        (
            "0 .5 .5 .2 .2 .5 5 2",
            "kpt_shape: [1, 3]",
            TaskType.POSE_ESTIMATION,
            ["keypoint_outside"],
        ),
        ("0 .5 .5 .2 .2 .5 .5", "kpt_shape: [1, 3]", TaskType.POSE_ESTIMATION, ["label_columns"]),
        (
            "0 .5 .5 .2 .2 .5 .5 3",
            "kpt_shape: [1, 3]",
            TaskType.POSE_ESTIMATION,
            ["keypoint_visibility"],
        ),
    ],
)
def test_labels_are_checked_for_the_task(
    tmp_path: Path, line: str, extra: str, task: TaskType, expected: list[str]
):
    make_yolo(tmp_path)
    (tmp_path / "labels" / "train" / "0.txt").write_text(line)
    for path in tmp_path.glob("labels/*/*.txt"):
        if not expected:
            path.write_text(line)
    write_yaml(tmp_path, f"names: [cat]\n{extra}\n")
    found = [
        p for p in describe(tmp_path, task_type=task).problems if p.file == "labels/train/0.txt"
    ]
    assert codes(found) == expected


@pytest.mark.parametrize(
    ("make", "task"),
    [
        (make_imagefolder, TaskType.OBJECT_DETECTION),
        (make_yolo, TaskType.POSE_ESTIMATION),  # without kpt_shape
        (make_yolo, TaskType.SEMANTIC_SEGMENTATION),  # of boxes
        (make_panoptic, TaskType.POSE_ESTIMATION),
    ],
)
def test_a_task_that_the_format_cannot_do_is_refused(tmp_path: Path, make, task: TaskType):
    with pytest.raises(DatasetError):
        describe(make(tmp_path), task_type=task)


def test_the_wrong_format_is_refused(tmp_path: Path):
    make_imagefolder(tmp_path)
    with pytest.raises(DatasetError, match=r"no data\.yaml"):
        describe(tmp_path, format=DatasetFormat.YOLO)
    with pytest.raises(DatasetError, match="no annotations"):
        describe(tmp_path, format=DatasetFormat.COCO)
    with pytest.raises(DatasetError, match="no folder 'images'"):
        describe(tmp_path, format=DatasetFormat.MASKS)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["images/a.png", "labels/a.txt"], r"no data\.yaml"),
        (["annotations/instances.json", "train/a.jpg"], "is not JSON"),
        (["images/a.png", "masks/a.png"], r"classes\.txt"),
        (["images/a.png", "labels/a.txt", "notes.json"], r"no data\.yaml"),  # Label Studio's YOLO
        (["train/images/a.png", "train/labels/a.txt"], r"no data\.yaml"),
        (["obj.names", "obj_train_data/a.png"], "Darknet"),
        (["JPEGImages/a.png", "Annotations/a.xml"], "Pascal VOC"),
        (["images/a.png", "annotations/a.png"], "layout that is not known"),
        (["train/images/a.png", "train/masks/a.png"], "layout that is not known"),
        (["notes.md"], "no class folders"),
        ([], "no class folders"),
    ],
)
def test_what_cannot_be_told_is_refused_with_what_would_help(
    tmp_path: Path, names: list[str], reason: str
):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    with pytest.raises(DatasetError, match=reason):
        describe(tmp_path)


def test_an_image_folder_with_some_other_yaml_is_an_image_folder(tmp_path: Path):
    make_imagefolder(tmp_path)
    (tmp_path / "notes.yaml").write_text("camera: front\n")
    assert describe(tmp_path).format == DatasetFormat.IMAGEFOLDER


def test_the_fingerprint_follows_the_content_and_not_the_place(tmp_path: Path):
    make_yolo(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    first = describe(tmp_path / "one", workers=1).fingerprint
    assert describe(tmp_path / "two", workers=3).fingerprint == first

    label = tmp_path / "two" / "labels" / "val" / "0.txt"
    before = label.read_text()
    label.write_text("0 0.5 0.5 0.25 0.3\n")
    assert describe(tmp_path / "two").fingerprint != first
    label.write_text(before)
    assert describe(tmp_path / "two").fingerprint == first
    (tmp_path / "two" / "images" / "val" / "0.png").rename(tmp_path / "two/images/val/x.png")
    assert describe(tmp_path / "two").fingerprint != first


def test_the_fingerprint_knows_whether_an_image_may_have_several_labels(tmp_path: Path):
    """A labels.csv that says what the folders say makes another task of the same images."""
    make_imagefolder(tmp_path)
    of_folders = describe(tmp_path)
    for split in ("train", "val"):
        rows = [f"{name}/{i}.png,{name}" for name in ("cat", "dog") for i in range(3)]
        (tmp_path / split / "labels.csv").write_text("\n".join(["file_name,labels", *rows]))
    of_lists = describe(tmp_path)
    assert of_lists.valid
    assert (of_lists.multi_label, of_folders.multi_label) == (True, False)
    assert of_lists.fingerprint != of_folders.fingerprint


def test_what_lies_outside_is_neither_opened_nor_told(tmp_path: Path):
    folder = make_yolo(tmp_path / "set")
    (tmp_path / "secret").write_text("a password\n")
    label = folder / "labels" / "val" / "0.txt"
    label.unlink()
    label.symlink_to(tmp_path / "secret")
    shutil.move(folder / "labels" / "train", tmp_path / "train")
    (folder / "labels" / "train").symlink_to(tmp_path / "train")
    (tmp_path / "train" / "private.txt").write_text("")
    found = describe(folder)
    assert codes(found).count("link_outside") == 4
    assert not any("password" in p.message or "private" in p.message for p in found.problems)


def test_of_many_problems_the_first_are_kept_and_the_rest_counted(tmp_path: Path):
    make_yolo(tmp_path)
    bad_line = "7 0.5 0.5 0.2 0.2\n"
    for i in range(12):
        write_image(tmp_path / "images" / "train" / f"n{i}.png")
        (tmp_path / "labels" / "train" / f"n{i}.txt").write_text(bad_line * 40)
    found = describe(tmp_path)
    assert len(found.problems) == PROBLEMS_KEPT + 1
    assert "280 errors more" in found.problems[-1].message


def test_errors_are_kept_before_any_number_of_warnings():
    warnings = [Problem(Severity.WARNING, "w", f"{i}") for i in range(PROBLEMS_KEPT + 50)]
    found = ProblemList([*warnings, Problem(Severity.ERROR, "e", "x")]).result()
    assert codes(found) == ["e", *["w"] * (PROBLEMS_KEPT - 1), "more_problems"]
    assert found[-1].severity == Severity.WARNING
    assert "51 warnings" in found[-1].message


def test_a_fault_of_every_image_hides_none_of_another_kind():
    many = [Problem(Severity.WARNING, "many", f"{i}") for i in range(PROBLEMS_KEPT * 3)]
    found = ProblemList([*many, Problem(Severity.WARNING, "rare", "x")]).result()
    assert codes(found) == [*["many"] * (PROBLEMS_KEPT - 1), "rare", "more_problems"]


def test_of_many_problems_in_an_annotation_file_none_is_forgotten_in_the_count(tmp_path: Path):
    compose(
        tmp_path,
        format=DatasetFormat.COCO,
        task_type=TaskType.OBJECT_DETECTION,
        train=3,
        val=3,
    )
    file = tmp_path / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"] += [{"id": 1000 + i, "image_id": 1} for i in range(700)]
    file.write_text(json.dumps(content))
    found = describe(tmp_path)
    assert codes(found).count("annotation_field") == PROBLEMS_KEPT
    assert "and 500 errors more" in found.problems[-1].message


def test_apart_gives_the_same_description(tmp_path: Path):
    make_yolo(tmp_path)
    (tmp_path / "labels" / "train" / "1.txt").write_text("5 고 0 0 0\n")
    assert describe_apart(tmp_path) == describe(tmp_path)


def test_apart_gives_the_same_refusals(tmp_path: Path):
    folder = make_yolo(tmp_path / "set")
    with pytest.raises(DatasetError, match="lacks 'kpt_shape'"):
        describe_apart(folder, task_type=TaskType.POSE_ESTIMATION)
    write_yaml(folder, splits="train: /etc\nval: images/val\n")
    with pytest.raises(OutsideRoots, match="leads out"):
        describe_apart(folder)


def test_apart_gives_up_what_takes_too_long(tmp_path: Path):
    with pytest.raises(DatasetError, match="more than"):
        describe_apart(make_yolo(tmp_path), timeout_seconds=0.01)


def test_apart_runs_no_module_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yaml.py").write_text("raise SystemExit('a module of the working folder ran')")
    assert describe_apart(make_yolo(tmp_path / "set")).valid


def test_apart_tells_how_far_it_is(tmp_path: Path):
    told: list[tuple[int, int]] = []
    describe_apart(make_yolo(tmp_path), progress=lambda done, total: told.append((done, total)))
    assert told
    assert all(0 < done <= total == 6 for done, total in told)


def test_describing_imports_no_training_library():
    code = (
        "import sys, adapters.data.describe; "
        "assert not {'torch', 'cv2', 'timm', 'ultralytics'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path.cwd())


def test_asking_a_process_apart_imports_no_decoder():
    code = (
        "import sys, adapters.data.apart; assert not {'PIL', 'numpy', 'yaml'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path.cwd())
