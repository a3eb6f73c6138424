"""Each format is read into the same content, whatever its files are named and however they lie."""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_api

from adapters.contract import DatasetFormat, TaskType
from adapters.data.content import IGNORED, Content, Object
from adapters.data.describe import describe
from adapters.data.description import DatasetError
from adapters.data.reading import read
from adapters.data.rle import decode_rle
from adapters.images import open_rgb
from tests.shapes import CLASSES, SIDE, compose
from tests.unit.data_sets import PIXELS, make_panoptic, write_image, write_json

COCO, YOLO, MASKS, FOLDER = (
    DatasetFormat.COCO,
    DatasetFormat.YOLO,
    DatasetFormat.MASKS,
    DatasetFormat.IMAGEFOLDER,
)
DETECT, OUTLINE, POSE, SEGMENT, CLASSIFY = (
    TaskType.OBJECT_DETECTION,
    TaskType.INSTANCE_SEGMENTATION,
    TaskType.POSE_ESTIMATION,
    TaskType.SEMANTIC_SEGMENTATION,
    TaskType.IMAGE_CLASSIFICATION,
)
STRANGE = "my 고양이 😀"


def made(folder: Path, format: DatasetFormat, task: TaskType, read_for: TaskType | None = None):
    compose(folder, format=format, task_type=task, train=6, val=3)
    return read(folder, format=format, task_type=read_for or task)


def by_name(content: Content, split: str) -> dict[str, list[Object]]:
    return {s.image.name: content.objects(s) for s in content.splits[split]}


def numbers(thing: Object) -> list[float]:
    points = [value for polygon in thing.polygons for value in polygon]
    keypoints = [value for point in thing.keypoints for value in point]
    return [thing.class_id, *thing.box, *points, *keypoints]


@pytest.mark.parametrize("task", [DETECT, OUTLINE, POSE])
def test_a_coco_set_and_the_same_set_as_yolo_have_the_same_objects(tmp_path: Path, task: TaskType):
    coco, yolo = (made(tmp_path / f, f, task) for f in (COCO, YOLO))
    assert coco.classes == yolo.classes == CLASSES
    for split in ("train", "val"):
        one, other = by_name(coco, split), by_name(yolo, split)
        assert one.keys() == other.keys()
        for name, things in one.items():
            assert len(things) == len(other[name]) > 0
            for a, b in zip(things, other[name], strict=True):
                # The composed COCO poses have outlines, too, for which YOLO's have no place.
                same = numbers(a) if task != POSE else [*numbers(a)[:5], *numbers(a)[-9:]]
                assert same == pytest.approx(numbers(b), abs=2e-6)


@pytest.mark.parametrize("format", [COCO, YOLO])
def test_outlines_become_masks_with_a_background_of_their_own(tmp_path: Path, format):
    content = made(tmp_path / "a", format, OUTLINE, read_for=SEGMENT)
    truth = made(tmp_path / "b", MASKS, SEGMENT)
    assert content.classes == (*CLASSES, "background")
    for sample, drawn in zip(content.splits["val"], truth.splits["val"], strict=True):
        mask, expected = content.mask(sample), truth.mask(drawn)
        # There the background is class 0; edges are drawn by another rule.
        assert (mask == (expected.astype(int) - 1) % 4).mean() > 0.95


@pytest.mark.parametrize("format", [COCO, YOLO])
def test_the_classes_of_an_images_objects_are_its_labels(tmp_path: Path, format):
    content = made(tmp_path, format, DETECT, read_for=CLASSIFY)
    assert content.multi_label
    for sample in content.splits["train"]:
        assert sample.classes == tuple(sorted({t.class_id for t in content.objects(sample)}))


@pytest.mark.parametrize(
    ("format", "task", "served"),
    [
        (FOLDER, CLASSIFY, (CLASSIFY,)),
        (YOLO, DETECT, (DETECT, CLASSIFY)),
        (YOLO, OUTLINE, (OUTLINE, DETECT, SEGMENT, CLASSIFY)),
        (YOLO, POSE, (POSE, DETECT, CLASSIFY)),
        (
            YOLO,
            TaskType.ORIENTED_DETECTION,
            (TaskType.ORIENTED_DETECTION, OUTLINE, DETECT, SEGMENT, CLASSIFY),
        ),
        (COCO, DETECT, (DETECT, CLASSIFY)),
        (COCO, OUTLINE, (OUTLINE, DETECT, SEGMENT, CLASSIFY)),
        (COCO, POSE, (POSE, OUTLINE, DETECT, SEGMENT, CLASSIFY)),
        (MASKS, SEGMENT, (SEGMENT,)),
    ],
)
def test_a_set_serves_these_tasks_and_no_others(tmp_path: Path, format, task, served):
    compose(tmp_path, format=format, task_type=task, train=6, val=3)
    assert describe(tmp_path).task_types == served
    for other in TaskType:
        if other in served:
            assert read(tmp_path, format=format, task_type=other).task_type == other
        else:
            with pytest.raises(DatasetError):
                read(tmp_path, format=format, task_type=other)


@pytest.mark.parametrize(
    ("format", "task"), [(FOLDER, CLASSIFY), (YOLO, DETECT), (COCO, OUTLINE), (MASKS, SEGMENT)]
)
def test_names_with_spaces_korean_letters_and_emoji_are_read(tmp_path: Path, format, task):
    folder = compose(tmp_path / STRANGE, format=format, task_type=task, train=6, val=3)
    for path in sorted(folder.rglob("train00*")):
        path.rename(path.with_name(path.name.replace("train", STRANGE)))
    for file in (*folder.rglob("*.json"), *folder.rglob("*.txt"), *folder.rglob("*.yaml")):
        text = file.read_text("utf-8").replace("disc", STRANGE)
        file.write_text(text.replace("train0", f"{STRANGE}0"), "utf-8")
    if format == FOLDER:
        for split in ("train", "val"):
            (folder / split / "disc").rename(folder / split / STRANGE)
    found = describe(folder)
    assert found.problems == ()
    assert STRANGE in found.classes
    assert found.splits == {"train": 6, "val": 3}


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("kind", ["coco", "panoptic", "masks", "labels.csv"])
def test_files_and_what_names_them_may_be_of_different_compositions(
    tmp_path: Path, kind: str, form: Literal["NFC", "NFD"]
):
    """A Mac takes letters such as Korean ones apart in names of files, and others do not."""
    if kind == "coco":
        compose(tmp_path, format=COCO, task_type=DETECT, train=6, val=3)
    elif kind == "masks":
        compose(tmp_path, format=MASKS, task_type=SEGMENT, train=6, val=3)
    elif kind == "panoptic":
        make_panoptic(tmp_path)
    else:
        compose(tmp_path, format=FOLDER, task_type=CLASSIFY, multi_label=True, train=6, val=3)
    other = "NFD" if form == "NFC" else "NFC"
    for path in sorted(tmp_path.rglob("*.png")):
        of_mask = path.parent.parent.name == "masks"
        name = unicodedata.normalize(other if of_mask else form, f"고양이 é {path.name}")
        path.rename(path.with_name(name))
    named = unicodedata.normalize(other, "고양이 é ")
    for file in (*tmp_path.rglob("*.json"), *tmp_path.rglob("*.csv")):
        text = re.sub(r"(\w+\.png)", rf"{named}\1", file.read_text("utf-8"))
        file.write_text(text, "utf-8")
    found = describe(tmp_path)
    assert found.problems == ()
    assert found.num_images == (6 if kind == "panoptic" else 9)


# --- COCO ---------------------------------------------------------------------------------------


def roboflow(folder: Path) -> None:
    for split, name in (("train", "train"), ("val", "valid")):
        (folder / split).rename(folder / name)
        source = folder / "annotations" / f"instances_{split}.json"
        source.rename(folder / name / "_annotations.coco.json")
    (folder / "annotations").rmdir()


def original(folder: Path) -> None:
    for split in ("train", "val"):
        (folder / split).rename(folder / f"{split}2017")
        source = folder / "annotations" / f"instances_{split}.json"
        source.rename(folder / "annotations" / f"instances_{split}2017.json")
    (folder / "annotations" / "captions_train2017.json").write_text("not read")


def below_images(folder: Path) -> None:
    for split in ("train", "val"):
        (folder / "images").mkdir(exist_ok=True)
        (folder / split).rename(folder / "images" / split)


def in_sub_folders(folder: Path) -> None:
    for split in ("train", "val"):
        file = folder / "annotations" / f"instances_{split}.json"
        content = json.loads(file.read_text())
        for image in content["images"]:
            image["file_name"] = f"a/{image['file_name']}"
        file.write_text(json.dumps(content))
        (folder / "images" / split).mkdir(parents=True)
        (folder / split).rename(folder / "images" / split / "a")


def one_file(folder: Path) -> None:
    shutil.rmtree(folder / "val")
    (folder / "train").rename(folder / "images")
    (folder / "annotations" / "instances_train.json").rename(folder / "labels.json")
    shutil.rmtree(folder / "annotations")


@pytest.mark.parametrize("layout", [original, roboflow, below_images, in_sub_folders, one_file])
def test_the_usual_layouts_of_coco_are_found(tmp_path: Path, layout):
    compose(tmp_path, format=COCO, task_type=OUTLINE, train=6, val=3)
    layout(tmp_path)
    found = describe(tmp_path)
    assert (found.format, found.problems) == (COCO, ())
    assert set(found.splits) == {"train", "val"}
    assert found.num_images == (6 if layout is one_file else 9)
    assert (found.split_rule is not None) == (layout is one_file)


def test_a_subset_that_is_no_split_may_name_its_folder_of_images(tmp_path: Path):
    """CVAT exports a task so: its one subset is called 'default'."""
    compose(tmp_path, format=COCO, task_type=OUTLINE, train=24, val=3)
    one_file(tmp_path)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "labels.json").rename(tmp_path / "annotations" / "instances_default.json")
    (tmp_path / "images").rename(tmp_path / "default")
    (tmp_path / "images").mkdir()
    (tmp_path / "default").rename(tmp_path / "images" / "default")
    found = describe(tmp_path)
    assert (found.format, found.problems, found.num_images) == (COCO, (), 24)
    assert found.split_rule is not None


def test_other_json_files_beside_the_annotations_are_passed_over(tmp_path: Path):
    compose(tmp_path, format=COCO, task_type=OUTLINE, train=6, val=3)
    one_file(tmp_path)
    (tmp_path / "class_names.json").write_text('["square", "triangle", "disc"]')
    (tmp_path / "info.json").write_text('{"version": 1}')
    assert describe(tmp_path).num_images == 6


def test_a_json_file_of_names_makes_no_coco_set_of_an_image_folder(tmp_path: Path):
    compose(tmp_path, format=FOLDER, task_type=CLASSIFY, train=6, val=3)
    (tmp_path / "no_annotations.json").write_text('["square"]')
    assert describe(tmp_path).format == FOLDER


def test_a_coco_set_may_be_named_by_its_one_file(tmp_path: Path):
    compose(tmp_path, format=COCO, task_type=OUTLINE, train=6, val=3)
    one_file(tmp_path)
    assert describe(tmp_path / "labels.json").num_images == 6


def test_where_there_are_several_kinds_of_files_the_task_chooses(tmp_path: Path):
    compose(tmp_path, format=COCO, task_type=POSE, train=6, val=3)
    for split in ("train", "val"):
        poses = tmp_path / "annotations" / f"person_keypoints_{split}.json"
        content = json.loads(poses.read_text())
        for annotation in content["annotations"]:
            del annotation["keypoints"]
        for category in content["categories"]:
            del category["keypoints"], category["skeleton"]
        poses.with_name(f"instances_{split}.json").write_text(json.dumps(content))
    assert describe(tmp_path).task_type == OUTLINE
    assert POSE in describe(tmp_path).task_types
    content = read(tmp_path, format=COCO, task_type=POSE)
    assert content.keypoints is not None
    assert content.keypoints.skeleton == ((0, 1), (1, 2))
    assert content.objects(content.splits["train"][0])[0].keypoints


def test_runs_of_pixels_crowds_and_boxes_without_outline_are_read(tmp_path: Path):
    drawn = np.zeros((PIXELS, PIXELS), dtype=np.uint8)
    drawn[4:10, 2:20] = 1
    packed = coco_api.encode(np.asfortranarray(drawn))["counts"].decode()
    columns = drawn.T.reshape(-1)
    edges = np.flatnonzero(np.diff(columns)) + 1
    runs = np.diff([0, *edges, len(columns)]).tolist()
    size = [PIXELS, PIXELS]
    for split in ("train", "val"):
        write_image(tmp_path / split / "0.png")
        (tmp_path / "annotations").mkdir(exist_ok=True)
        write_json(
            tmp_path / "annotations" / f"instances_{split}.json",
            {
                "images": [{"id": 5, "file_name": "0.png", "width": PIXELS, "height": PIXELS}],
                "annotations": [
                    {"id": 1, "image_id": 5, "category_id": 3, "iscrowd": 1,
                     "bbox": [2, 4, 18, 6], "segmentation": {"size": size, "counts": packed}},
                    {"id": 2, "image_id": 5, "category_id": 3,
                     "segmentation": {"size": size, "counts": runs}},
                    {"id": 3, "image_id": 5, "category_id": 4, "bbox": [0, 18, 24, 6]},
                ],
                "categories": [{"id": 3, "name": "sea"}, {"id": 4, "name": "boat"}],
            },
        )  # fmt: skip
    content = read(tmp_path, format=COCO, task_type=SEGMENT)
    sample = content.splits["train"][0]
    crowd, single, box = content.objects(sample)
    assert (crowd.crowd, single.crowd) == (True, False)
    for thing in (crowd, single):
        assert thing.box == pytest.approx((2 / 24, 4 / 24, 20 / 24, 10 / 24))
        assert (thing.mask == drawn).all()
    assert box.polygons == ()
    mask = content.mask(sample)
    assert content.classes == ("sea", "boat", "background")
    assert (mask[4:10, 2:20] == 0).all()
    assert (mask[19:] == IGNORED).all()  # what of the box is the boat is not known
    assert (mask[11:17] == 2).all()
    outlined = read(tmp_path, format=COCO, task_type=OUTLINE)
    assert len(outlined.objects(outlined.splits["train"][0])) == 2


@pytest.mark.parametrize("seed", range(30))
def test_runs_are_decoded_as_the_coco_api_does(seed: int):
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 70, 2))
    mask = (rng.random((height, width)) < rng.random()).astype(np.uint8)
    packed = coco_api.encode(np.asfortranarray(mask))["counts"].decode()
    assert (decode_rle(packed, height=height, width=width) == mask).all()


@pytest.mark.parametrize("counts", ["", "0", "zzzz", "\x00", "oooooooooooo", [1], [-1, 5], [4, 4]])
def test_runs_that_do_not_fill_the_image_are_refused(counts):
    with pytest.raises(ValueError):
        decode_rle(counts, height=2, width=2)


def test_points_are_mirrored_by_their_names(tmp_path: Path):
    compose(tmp_path, format=COCO, task_type=POSE, train=6, val=3)
    for file in (tmp_path / "annotations").iterdir():
        text = file.read_text()
        file.write_text(text.replace('["a", "b", "c"]', '["nose", "left_eye", "right_eye"]'))
    found = describe(tmp_path)
    assert found.keypoints is not None
    assert found.keypoints.names == ("nose", "left_eye", "right_eye")
    assert found.keypoints.flip == (0, 2, 1)


def test_a_panoptic_set_tells_the_class_of_each_pixel(tmp_path: Path):
    make_panoptic(tmp_path)
    content = read(tmp_path, format=COCO, task_type=SEGMENT)
    assert content.classes == ("sky", "ground")
    mask = content.mask(content.splits["val"][0])
    assert (mask[: PIXELS // 2] == 0).all()
    assert (mask[PIXELS // 2 :] == 1).all()
    labelled = read(tmp_path, format=COCO, task_type=CLASSIFY)
    assert labelled.splits["train"][0].classes == (0, 1)
    with pytest.raises(DatasetError):
        read(tmp_path, format=COCO, task_type=DETECT)


def test_more_classes_than_a_mask_can_tell_are_refused_or_not_offered(tmp_path: Path):
    make_panoptic(tmp_path / "segments")
    compose(tmp_path / "outlines", format=COCO, task_type=OUTLINE, train=3, val=3)
    for file in tmp_path.rglob("*.json"):
        content = json.loads(file.read_text())
        content["categories"] += [{"id": 1000 + i, "name": f"c{i}"} for i in range(300)]
        file.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="more than 255 categories"):
        describe(tmp_path / "segments")
    assert SEGMENT not in describe(tmp_path / "outlines").task_types


def test_pixels_of_no_segment_are_ignored(tmp_path: Path):
    make_panoptic(tmp_path)
    png = tmp_path / "annotations" / "panoptic_train" / "0.png"
    image = Image.open(png).convert("RGB")
    image.paste((0, 0, 0), (0, 0, 5, 5))
    image.save(png)
    content = read(tmp_path, format=COCO, task_type=SEGMENT)
    mask = content.mask(content.splits["train"][0])
    assert (mask[:5, :5] == IGNORED).all()
    assert (mask == IGNORED).sum() == 25
    assert describe(tmp_path).problems == ()


def test_segments_of_any_form_are_told_pixel_by_pixel(tmp_path: Path):
    make_panoptic(tmp_path)
    rng = np.random.default_rng(1)
    ids = rng.choice([0, 1000, 70_000], size=(PIXELS, PIXELS), p=[0.1, 0.6, 0.3])
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65_536], axis=-1).astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / "annotations" / "panoptic_train" / "0.png")
    content = read(tmp_path, format=COCO, task_type=SEGMENT)
    classes = {0: IGNORED, 1000: 0, 70_000: 1}
    expected = [[classes[int(id)] for id in row] for row in ids]
    assert content.mask(content.splits["train"][0]).tolist() == expected


# --- masks and labels.csv -----------------------------------------------------------------------


def test_a_palettes_numbers_are_the_ids_and_255_is_ignored(tmp_path: Path):
    compose(tmp_path, format=MASKS, task_type=SEGMENT, train=6, val=3)
    mask = Image.new("P", (SIDE, SIDE), 2)
    mask.putpalette([200, 10, 10] * 256)
    mask.paste(255, (0, 0, SIDE, 8))
    mask.save(tmp_path / "masks" / "train" / "train000.png")
    content = read(tmp_path, format=MASKS, task_type=SEGMENT)
    pixels = content.mask(content.splits["train"][0])
    assert set(np.unique(pixels)) == {2, IGNORED}
    assert describe(tmp_path).problems == ()


def test_masks_without_split_folders_and_classes_as_json_are_read(tmp_path: Path):
    compose(tmp_path, format=MASKS, task_type=SEGMENT, train=10, val=3)
    for kind in ("images", "masks"):
        shutil.rmtree(tmp_path / kind / "val")
        for path in (tmp_path / kind / "train").iterdir():
            path.rename(tmp_path / kind / path.name)
        (tmp_path / kind / "train").rmdir()
    (tmp_path / "classes.txt").unlink()
    names = {str(i): name for i, name in enumerate(("background", *CLASSES))}
    (tmp_path / "classes.json").write_text(json.dumps(names))
    found = describe(tmp_path)
    assert found.problems == ()
    assert found.splits == {"train": 8, "val": 2}
    assert found.classes == ("background", *CLASSES)


def test_an_image_may_have_several_labels_or_none(tmp_path: Path):
    for i in range(8):
        write_image(tmp_path / "sea" / f"{i}.png")
    rows = [f"sea/{i}.png,{labels}" for i, labels in enumerate(["a|b", "b", "", "a"] * 2)]
    (tmp_path / "labels.csv").write_text("file_name,labels\n" + "\n".join(rows))
    found = describe(tmp_path)
    assert found.problems == ()
    assert (found.format, found.multi_label, found.classes) == (FOLDER, True, ("a", "b"))
    content = read(tmp_path, format=FOLDER, task_type=CLASSIFY)
    classes = {s.image.name: s.classes for found in content.splits.values() for s in found}
    assert classes["0.png"] == (0, 1)
    assert classes["2.png"] == ()


def test_an_image_that_is_turned_is_measured_as_it_is_shown(tmp_path: Path):
    compose(tmp_path, format=YOLO, task_type=OUTLINE, train=6, val=3)
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images" / "train" / "train000.png").unlink()
    Image.new("RGB", (40, 20)).save(tmp_path / "images" / "train" / "train000.jpg", exif=exif)
    content = read(tmp_path, format=YOLO, task_type=SEGMENT)
    assert content.mask(content.splits["train"][0]).shape == (40, 20)


def test_of_sixteen_bits_the_upper_eight_are_kept(tmp_path: Path):
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    Image.fromarray(values).save(tmp_path / "deep.png")
    for image in (open_rgb(tmp_path / "deep.png"), open_rgb((tmp_path / "deep.png").read_bytes())):
        assert image.mode == "RGB"
        assert (np.asarray(image)[..., 1] == values >> 8).all()
