"""What a page shows of a data set: some images with their annotations, and numbers."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adapters.contract import DatasetFormat, TaskType
from adapters.data.apart import preview_apart
from adapters.data.content import Annotation, Object
from adapters.data.describe import describe
from adapters.data.description import DatasetError
from adapters.data.preview import LONGEST_SIDE, MAX_OBJECTS, MAX_POINTS, preview
from adapters.data.statistics import CLASSES_LISTED, Statistics
from tests.shapes import SIDE, compose
from tests.unit.data_sets import make_imagefolder, make_panoptic, make_yolo, write_image


def picture(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


@pytest.mark.parametrize(
    ("format", "task", "filled"),
    [
        (DatasetFormat.IMAGEFOLDER, TaskType.IMAGE_CLASSIFICATION, None),
        (DatasetFormat.YOLO, TaskType.OBJECT_DETECTION, "box"),
        (DatasetFormat.YOLO, TaskType.ORIENTED_DETECTION, "corners"),
        (DatasetFormat.COCO, TaskType.INSTANCE_SEGMENTATION, "polygons"),
        (DatasetFormat.COCO, TaskType.POSE_ESTIMATION, "keypoints"),
        (DatasetFormat.MASKS, TaskType.SEMANTIC_SEGMENTATION, None),
    ],
)
def test_images_are_shown_with_all_that_is_annotated(tmp_path: Path, format, task, filled):
    compose(tmp_path, format=format, task_type=task, train=9, val=3)
    shown = preview(tmp_path, format=format, split="train", limit=4)
    assert len(shown) == 4
    assert json.loads(json.dumps(shown)) == shown
    for image in shown:
        assert (tmp_path / image["file"]).is_file()
        assert (image["width"], image["height"], image["problems"]) == (SIDE, SIDE, [])
        assert picture(image["thumbnail"]).size == (SIDE, SIDE)
        assert image["classes"]
        assert (image["mask"] is not None) == (format == DatasetFormat.MASKS)
        assert bool(image["objects"]) == (filled is not None)
        for thing in image["objects"]:
            assert thing[filled]
            assert all(0 <= value <= 1 for value in thing["box"])


def test_a_process_apart_shows_the_same(tmp_path: Path):
    make_panoptic(tmp_path)
    asked = {"format": DatasetFormat.COCO, "split": "val", "limit": 2, "seed": 7}
    assert preview_apart(tmp_path, **asked) == preview(tmp_path, **asked)


def test_the_images_are_spread_over_the_classes_and_another_seed_shows_others(tmp_path: Path):
    make_imagefolder(tmp_path, classes=("a", "b", "c"), images=2)
    for i in range(30):
        write_image(tmp_path / "train" / "a" / f"x{i}.png")
    asked = {"format": DatasetFormat.IMAGEFOLDER, "limit": 6}
    first = preview(tmp_path, **asked)
    assert sorted(image["classes"][0] for image in first) == [0, 0, 1, 1, 2, 2]
    assert preview(tmp_path, **asked) == first
    assert preview(tmp_path, **asked, seed=1) != first


def test_a_mask_is_a_palette_that_is_transparent_where_no_class_is(tmp_path: Path):
    make_panoptic(tmp_path)
    image = preview(tmp_path, format=DatasetFormat.COCO, limit=1)[0]
    mask = picture(image["mask"])
    assert mask.mode == "P"
    assert set(np.unique(np.asarray(mask))) == {0, 1}
    assert mask.info["transparency"]


def test_a_large_turned_image_is_shown_small_and_upright(tmp_path: Path):
    make_imagefolder(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in (tmp_path / "val").rglob("*.png"):
        path.unlink()
        Image.new("RGB", (1000, 500)).save(path.with_suffix(".jpg"), exif=exif)
    image = preview(tmp_path, format=DatasetFormat.IMAGEFOLDER, split="val", limit=1)[0]
    assert (image["width"], image["height"]) == (500, 1000)
    assert picture(image["thumbnail"]).size == (LONGEST_SIDE // 2, LONGEST_SIDE)


def test_what_cannot_be_read_is_shown_as_a_sentence(tmp_path: Path):
    make_yolo(tmp_path, images=1)
    (tmp_path / "images" / "train" / "0.png").write_bytes(b"not an image")
    (tmp_path / "labels" / "train" / "0.txt").write_text("9 0.5 0.5 0.1 0.1\n")
    image = preview(tmp_path, format=DatasetFormat.YOLO)[0]
    assert (image["thumbnail"], image["width"], image["mask"]) == (None, None, None)
    assert len(image["problems"]) == 2
    assert "0x" not in str(image["problems"])


def test_of_many_objects_the_largest_are_shown(tmp_path: Path):
    make_yolo(tmp_path, images=1)
    lines = [f"0 0.5 0.5 {0.1 + i / 1000:.3f} 0.1" for i in range(300)]
    (tmp_path / "labels" / "train" / "0.txt").write_text("\n".join(lines))
    objects = preview(tmp_path, format=DatasetFormat.YOLO)[0]["objects"]
    assert len(objects) == MAX_OBJECTS
    assert objects[0]["box"][2] - objects[0]["box"][0] == pytest.approx(0.399)


def test_an_outline_of_very_many_points_is_thinned_and_too_many_are_left_out(tmp_path: Path):
    make_yolo(tmp_path, images=1)
    angles = np.linspace(0, 2 * np.pi, 1000, endpoint=False)
    for split in ("train", "val"):
        circle = np.stack([0.5 + 0.4 * np.cos(angles), 0.5 + 0.4 * np.sin(angles)], axis=1)
        lines = [
            "0 " + " ".join(f"{value:.5f}" for value in (circle * (1 - i / 1000)).reshape(-1))
            for i in range(120)
        ]
        (tmp_path / "labels" / split / "0.txt").write_text("\n".join(lines))
    objects = preview(tmp_path, format=DatasetFormat.YOLO)[0]["objects"]
    assert {len(polygon) for thing in objects for polygon in thing["polygons"]} == {2 * 200}
    assert len(objects) == MAX_POINTS // 201


def test_a_split_that_is_not_there_is_refused(tmp_path: Path):
    make_imagefolder(tmp_path)
    with pytest.raises(DatasetError, match="no split 'test'; it has train, val"):
        preview(tmp_path, format=DatasetFormat.IMAGEFOLDER, split="test")


def test_statistics_count_what_is_there(tmp_path: Path):
    make_yolo(tmp_path, images=4, line="0 0.5 0.5 0.25 0.25\n0 0.2 0.2 0.1 0.4")
    (tmp_path / "labels" / "val" / "0.txt").write_text("")
    write_image(tmp_path / "images" / "train" / "0.png", size=(48, 24))
    found = describe(tmp_path).statistics
    assert found["classes"] == {
        "train": {"images": [4], "objects": [8]},
        "val": {"images": [3], "objects": [6]},
    }
    assert found["images_without_objects"] == {"train": 0, "val": 1}
    assert found["width"]["edges"] == pytest.approx(np.linspace(24, 48, 21))
    assert found["width"]["counts"] == [7, *[0] * 18, 1]
    assert found["objects_per_image"] == {"edges": [0, 1, 2, 3], "counts": [1, 0, 7]}
    assert sum(found["box_size"]["counts"]) == 14
    assert found["box_size"]["edges"][0] == pytest.approx(0.2)
    assert found["box_size"]["edges"][-1] == pytest.approx(0.25)
    assert found["classes_left_out"] == 0


def test_a_histogram_of_one_value_spans_nothing_that_is_not_there(tmp_path: Path):
    found = describe(make_yolo(tmp_path, images=4)).statistics
    assert found["box_size"] == {"edges": [0.25, 0.25], "counts": [8]}
    assert found["width"] == {"edges": [24, 25], "counts": [8]}


def test_statistics_of_nothing_and_of_many_classes_are_small():
    counted = Statistics(num_classes=5000, splits=("train", "val"), with_objects=True)
    empty = counted.result()
    assert empty["width"] == {"edges": [], "counts": []}
    thing = Object(class_id=4999, box=(0, 0, 1, 1))
    counted.add("val", Annotation("", objects=(thing,), classes=(4999,)), size=None)
    found = counted.result()
    assert len(found["classes"]["val"]["images"]) == CLASSES_LISTED
    assert found["classes_left_out"] == 4000
    assert len(json.dumps(found)) < 40_000


def test_images_of_classes_have_no_statistics_of_objects(tmp_path: Path):
    found = describe(make_imagefolder(tmp_path)).statistics
    assert found["classes"]["train"] == {"images": [3, 3], "objects": None}
    assert found["objects_per_image"] is found["box_size"] is None
