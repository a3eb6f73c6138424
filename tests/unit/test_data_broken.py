"""Data sets with one planted fault each: told with the right code, file and line, never a crash."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from adapters.contract import DatasetFormat, TaskType
from adapters.data.describe import describe
from adapters.data.description import DatasetError
from tests.shapes import SIDE, compose
from tests.unit.data_sets import colour_of, make_panoptic, write_image, write_json

FOLDER, YOLO, COCO, MASKS = (
    DatasetFormat.IMAGEFOLDER,
    DatasetFormat.YOLO,
    DatasetFormat.COCO,
    DatasetFormat.MASKS,
)
CLASSIFY, DETECT, OUTLINE, POSE, TURNED, SEGMENT = (
    TaskType.IMAGE_CLASSIFICATION,
    TaskType.OBJECT_DETECTION,
    TaskType.INSTANCE_SEGMENTATION,
    TaskType.POSE_ESTIMATION,
    TaskType.ORIENTED_DETECTION,
    TaskType.SEMANTIC_SEGMENTATION,
)
PANOPTIC = "panoptic"
MULTI_LABEL = "multi label"

Plant = Callable[[Path], Any]
ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Fault:
    """A fault, and what is told of it."""

    kind: str | tuple[DatasetFormat, TaskType]
    name: str
    plant: Plant
    severity: str
    code: str
    file: str | None = None
    line: int | None = None
    besides: tuple[str, ...] = ()  # codes of what follows from the fault


# --- planting -----------------------------------------------------------------------------------


def save(image: Image.Image, place: str, **options: Any) -> Plant:
    def plant(folder: Path) -> None:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / place, **options)

    return plant


def write(place: str, content: str | bytes) -> Plant:
    def plant(folder: Path) -> None:
        raw = content.encode() if isinstance(content, str) else content
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(raw)

    return plant


def append(place: str, text: str) -> Plant:
    def plant(folder: Path) -> None:
        with (folder / place).open("a", encoding="utf-8") as file:
            file.write(text)

    return plant


def remove(place: str) -> Plant:
    def plant(folder: Path) -> None:
        path = folder / place
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return plant


def copy(source: str, to: str) -> Plant:
    return lambda folder: shutil.copyfile(folder / source, folder / to)


def rename(source: str, to: str) -> Plant:
    return lambda folder: (folder / source).rename(folder / to)


def empty_folder(place: str) -> Plant:
    def plant(folder: Path) -> None:
        shutil.rmtree(folder / place, ignore_errors=True)
        (folder / place).mkdir(parents=True)

    return plant


def link_out(place: str) -> Plant:
    def plant(folder: Path) -> None:
        outside = write_image(folder.parent / "outside.png")
        (folder / place).unlink(missing_ok=True)
        (folder / place).symlink_to(outside)

    return plant


def cut(place: str, keep: float = 0.5) -> Plant:
    def plant(folder: Path) -> None:
        content = (folder / place).read_bytes()
        (folder / place).write_bytes(content[: int(len(content) * keep)])

    return plant


def both(*plants: Plant) -> Plant:
    def plant(folder: Path) -> None:
        for each in plants:
            each(folder)

    return plant


def in_json(change: Callable[[dict[str, Any]], Any], split: str = "train") -> Plant:
    """Change an annotation file, and write it with an element a line."""

    def plant(folder: Path) -> None:
        file = next((folder / "annotations").glob(f"*{split}.json"))
        content = json.loads(file.read_text())
        change(content)
        write_json(file, {key: content[key] for key in ("categories", "images", "annotations")})

    return plant


def annotation(**values: Any) -> Plant:
    """Change the first annotation of the training images, which is in the line FIRST then."""
    return in_json(lambda content: content["annotations"][0].update(values))


def without(section: str, field: str) -> Plant:
    return in_json(lambda content: content[section][0].pop(field))


def mask(
    place: str, mode: str = "L", colour: Any = 0, size: tuple[int, int] = (SIDE, SIDE)
) -> Plant:
    return save(Image.new(mode, size, colour), place)


NOISE = Image.effect_noise((40, 40), 80)
EXIF = Image.Exif()
EXIF[0x0112] = 6

IMAGE, OTHER = "val/square/val000.png", "train/square/train000.png"
JSON = "annotations/instances_train.json"
POSES = "annotations/person_keypoints_train.json"
SEGMENTS = "annotations/panoptic_train.json"
CSV = "train/labels.csv"
LABEL = "labels/train/train000.txt"
# An element a line: three categories from line 2 on, six images from line 6 on, then annotations.
CATEGORY, IMAGE_LINE, FIRST = 5, 6, 13  # of a fourth category, the first image and annotation
SEGMENT_LINE = 9  # of the first annotation of a panoptic set: two categories, three images

IMAGE_FAULTS = [
    Fault((FOLDER, CLASSIFY), *rest)
    for rest in [
        ("an empty file", write(IMAGE, b""), ERROR, "unreadable_image", IMAGE),
        ("a text", write(IMAGE, "not an image"), ERROR, "unreadable_image", IMAGE),
        ("a truncated PNG", cut(IMAGE), ERROR, "unreadable_image", IMAGE),
        (
            "a truncated JPEG",
            both(save(NOISE.resize((300, 300)), "train/disc/x.jpg"), cut("train/disc/x.jpg")),
            ERROR,
            "unreadable_image",
            "train/disc/x.jpg",
        ),
        ("an SVG", write(IMAGE, "<svg/>"), ERROR, "unreadable_image", IMAGE),
        (
            "too many pixels",
            save(Image.new("1", (9000, 9000)), IMAGE),
            ERROR,
            "image_too_large",
            IMAGE,
        ),
        ("a wrong ending", save(NOISE, IMAGE, format="JPEG"), WARNING, "wrong_extension", IMAGE),
        (
            "a turned image",
            save(NOISE, "train/disc/x.jpg", exif=EXIF),
            WARNING,
            "exif_rotation",
            "train/disc/x.jpg",
        ),
        ("16 bits", save(Image.new("I;16", (9, 9), 9999), IMAGE), WARNING, "sixteen_bit", IMAGE),
        (
            "CMYK",
            save(NOISE.convert("CMYK"), "val/disc/x.jpg"),
            WARNING,
            "cmyk",
            "val/disc/x.jpg",
        ),
        ("a palette", save(NOISE.convert("P"), IMAGE), WARNING, "palette", IMAGE),
        ("alpha", save(NOISE.convert("RGBA"), IMAGE), WARNING, "alpha", IMAGE),
        (
            "the same image in two splits",
            copy("train/square/train000.png", "val/square/copy.png"),
            WARNING,
            "leakage",
            "val/square/copy.png",
        ),
        ("a link that leads out", link_out(OTHER), ERROR, "link_outside", OTHER),
        (
            "a broken link",
            lambda folder: (folder / "val/disc/x.png").symlink_to("absent.png"),
            ERROR,
            "broken_link",
            "val/disc/x.png",
        ),
        (
            "a pipe",
            lambda folder: os.mkfifo(folder / "val/disc/x.png"),
            ERROR,
            "not_a_file",
            "val/disc/x.png",
        ),
    ]
]

FOLDER_FAULTS = [
    Fault((FOLDER, CLASSIFY), *rest)
    for rest in [
        ("an empty class", empty_folder("val/cat"), ERROR, "empty_class", "val/cat"),
        (
            "a class that is only in val",
            save(NOISE, "val/cat/x.png"),
            ERROR,
            "missing_class_in_split",
        ),
        (
            "a class that is only in train",
            save(NOISE, "train/cat/x.png"),
            WARNING,
            "missing_class_in_split",
        ),
        ("an empty val split", empty_folder("val"), ERROR, "no_val_split"),
        ("an empty train split", empty_folder("train"), ERROR, "no_train_split"),
        ("an empty test split", empty_folder("test"), WARNING, "empty_split"),
        (
            "a single class",
            both(*(remove(f"{s}/{c}") for s in ("train", "val") for c in ("disc", "triangle"))),
            ERROR,
            "single_class",
        ),
        (
            "an image in no class",
            save(NOISE, "train/x.png"),
            WARNING,
            "image_without_class",
            "train/x.png",
        ),
        ("a file of another kind", write("val/x.docx", ""), WARNING, "unknown_file", "val/x.docx"),
        ("a folder that is no split", empty_folder("vall"), WARNING, "unknown_folder", "vall"),
        ("a split twice", empty_folder("valid"), ERROR, "split_twice", "valid"),
    ]
]

CSV_FAULTS = [
    Fault(MULTI_LABEL, *rest)
    for rest in [
        ("three columns", append(CSV, "x.png,a,b\n"), ERROR, "label_columns", CSV, 8),
        ("an absent image", append(CSV, "x.png,disc\n"), ERROR, "image_not_found", CSV, 8),
        ("a way out", append(CSV, "../../../x.png,disc\n"), ERROR, "link_outside", CSV, 8),
        (
            "an image twice",
            append(CSV, "images/train000.png,disc\n"),
            ERROR,
            "image_listed_twice",
            CSV,
            8,
        ),
        (
            "a label without a name",
            both(save(NOISE, "train/images/x.png"), append(CSV, "images/x.png,disc||square\n")),
            ERROR,
            "label_without_name",
            CSV,
            8,
            ("image_without_label",),
        ),
        (
            "an image that is not listed",
            save(NOISE, "train/images/x.png"),
            WARNING,
            "image_without_label",
            "train/images/x.png",
        ),
        (
            "a labels.csv beside the splits",
            both(
                *(rename(f"{s}/labels.csv", "labels.csv") for s in ("val", "train")),
                *(rename(f"{s}/images", f"{s}/disc") for s in ("val", "train")),
            ),
            ERROR,
            "labels_csv_missing",
            "labels.csv",
            None,
            ("single_class",),
        ),
        (
            "a split without labels.csv",
            both(remove("val"), save(NOISE, "val/disc/x.png"), save(NOISE, "val/square/x.png")),
            ERROR,
            "labels_csv_missing",
            None,
            None,
            ("missing_class_in_split",),
        ),
    ]
]

LABEL_FAULTS = [
    Fault((YOLO, task), name, append(LABEL, f"\n{line}\n"), severity, code, LABEL, number)
    for task, name, line, severity, code, number in [
        (DETECT, "a class out of range", "3 .5 .5 .2 .2", ERROR, "label_out_of_range", 5),
        (DETECT, "a class below 0", "-1 .5 .5 .2 .2", ERROR, "label_out_of_range", 5),
        (DETECT, "a word", "cat .5 .5 .2 .2", ERROR, "label_not_a_number", 5),
        (DETECT, "not a number", "0 nan .5 .2 .2", ERROR, "label_not_a_number", 5),
        (DETECT, "four columns", "0 .5 .5 .2", ERROR, "label_columns", 5),
        (DETECT, "a box outside", "0 .95 .5 .2 .2", ERROR, "box_outside", 5),
        (DETECT, "a box in pixels", "0 30 30 12 12", ERROR, "box_outside", 5),
        (DETECT, "a box without area", "0 .5 .5 0 .2", ERROR, "box_without_area", 5),
        (DETECT, "a box twice", "0 .5 .5 .1 .1\n0 .5 .5 .1 .1", WARNING, "duplicate_label", 6),
        (OUTLINE, "two points", "0 .1 .1 .2 .2", ERROR, "polygon_too_short", 5),
        (OUTLINE, "one point thrice", "0 .1 .1 .1 .1 .1 .1", ERROR, "polygon_too_short", 5),
        (OUTLINE, "a polygon outside", "0 .1 .1 .2 .1 .2 1.2", ERROR, "polygon_outside", 5),
        (OUTLINE, "a polygon without area", "0 .1 .1 .2 .1 .3 .1", ERROR, "box_without_area", 5),
        (OUTLINE, "half a point", "0 .1 .1 .2 .1 .2 .2 .3", ERROR, "label_columns", 5),
        (TURNED, "three corners", "0 .1 .1 .2 .1 .2 .2", ERROR, "label_columns", 5),
        (POSE, "a point missing", "0 .5 .5 .2 .2 .5 .5 2", ERROR, "label_columns", 5),
        (
            POSE,
            "a keypoint outside",
            "0 .5 .5 .2 .2 .5 .5 2 .5 .5 2 .5 1.5 2",
            ERROR,
            "keypoint_outside",
            5,
        ),
        (
            POSE,
            "a visibility of 7",
            "0 .5 .5 .2 .2 .5 .5 2 .5 .5 2 .5 .5 7",
            ERROR,
            "keypoint_visibility",
            5,
        ),
    ]
]

YAML = "train: images/train\nval: images/val\nnames: [square, triangle, disc]\n"
YOLO_FAULTS = [
    Fault((YOLO, DETECT), *rest)
    for rest in [
        ("a label that is no text", write(LABEL, b"\xff\xfe\0"), ERROR, "unreadable_label", LABEL),
        (
            "an image without label",
            remove(LABEL),
            WARNING,
            "image_without_label",
            "images/train/train000.png",
        ),
        (
            "a label without image",
            write("labels/train/x.txt", "0 .5 .5 .1 .1"),
            WARNING,
            "label_without_image",
            "labels/train/x.txt",
        ),
        (
            "a label that leads out",
            link_out(LABEL),
            ERROR,
            "link_outside",
            LABEL,
            None,
            ("image_without_label",),
        ),
        (
            "labels elsewhere",
            rename("labels/train", "labels/training"),
            ERROR,
            "no_labels",
            None,
            None,
            ("image_without_label",),
        ),
        (
            "a class without objects",
            write("data.yaml", YAML.replace("disc", "disc, cat")),
            WARNING,
            "class_without_objects",
        ),
        (
            "a tiny image",
            save(NOISE.resize((8, 40)), "images/val/val000.png"),
            WARNING,
            "image_too_small",
            "images/val/val000.png",
        ),
        (
            "a number of classes that differs",
            append("data.yaml", "nc: 4\n"),
            ERROR,
            "names_differ_from_nc",
            "data.yaml",
        ),
        (
            "a class named twice",
            write("data.yaml", YAML.replace("disc", "square")),
            WARNING,
            "class_named_twice",
            "data.yaml",
        ),
        (
            "a split that is not there",
            write("data.yaml", YAML.replace("images/val", "images/vall")),
            ERROR,
            "split_not_found",
            "data.yaml",
            None,
            ("no_val_split",),
        ),
        (
            "no train split",
            write("data.yaml", YAML.replace("train: images/train\n", "")),
            ERROR,
            "no_train_split",
            "data.yaml",
        ),
        (
            "a test split that is not there",
            append("data.yaml", "test: ../test/images\n"),
            WARNING,
            "split_not_found",
            "data.yaml",
        ),
        (
            "a split that is part of another",
            write("data.yaml", YAML.replace("train: images/train", "train: images")),
            WARNING,
            "splits_overlap",
        ),
        (
            "a list with an absent image",
            both(
                write("data.yaml", YAML.replace("images/val", "val.txt")),
                write("val.txt", "".join(f"images/val/val{i:03d}.png\n" for i in range(4))),
            ),
            ERROR,
            "image_not_found",
            "val.txt",
            4,
        ),
        (
            "a list that leads out",
            both(
                write("data.yaml", YAML.replace("images/val", "val.txt")),
                write(
                    "val.txt",
                    "/etc/x.png\n" + "".join(f"images/val/val{i:03d}.png\n" for i in range(3)),
                ),
            ),
            ERROR,
            "link_outside",
            "val.txt",
            1,
        ),
        (
            "a download",
            append("data.yaml", "download: |\n  exit()\n"),
            WARNING,
            "download_ignored",
            "data.yaml",
        ),
    ]
] + [
    Fault(
        (YOLO, POSE),
        "too few names of keypoints",
        append("data.yaml", "kpt_names: [nose]\n"),
        WARNING,
        "keypoint_names",
        "data.yaml",
    )
]

COCO_FAULTS = [
    Fault((COCO, OUTLINE), *rest)
    for rest in [
        (
            "an object without the outline that others have",
            annotation(segmentation=[]),
            WARNING,
            "object_without_outline",
            JSON,
            FIRST,
        ),
        (
            "a category that is not there",
            annotation(category_id=7),
            ERROR,
            "label_out_of_range",
            JSON,
            FIRST,
        ),
        (
            "a category that is a text",
            annotation(category_id="10"),
            ERROR,
            "annotation_field",
            JSON,
            FIRST,
        ),
        (
            "an image that is not there",
            annotation(image_id=99),
            WARNING,
            "label_without_image",
            JSON,
            FIRST,
        ),
        (
            "no image at all",
            without("annotations", "image_id"),
            ERROR,
            "annotation_field",
            JSON,
            FIRST,
        ),
        (
            "a box of three numbers",
            annotation(bbox=[1, 2, 3]),
            ERROR,
            "annotation_field",
            JSON,
            FIRST,
        ),
        (
            "a box of no number",
            annotation(bbox=[1, 2, float("nan"), 3]),
            ERROR,
            "annotation_field",
            JSON,
            FIRST,
        ),
        (
            "a huge number",
            annotation(bbox=[1, 2, 10**400, 3]),
            ERROR,
            "annotation_field",
            JSON,
            FIRST,
        ),
        ("a box outside", annotation(bbox=[50, 50, 30, 10]), ERROR, "box_outside", JSON, FIRST),
        (
            "a box without area",
            annotation(bbox=[5, 5, 0, 10]),
            WARNING,
            "box_without_area",
            JSON,
            FIRST,
        ),
        (
            "a polygon of two points",
            annotation(segmentation=[[5, 5, 9, 9]]),
            WARNING,
            "polygon_too_short",
            JSON,
            FIRST,
        ),
        (
            "half a point",
            annotation(segmentation=[[5, 5, 9, 9, 5, 9, 1]]),
            ERROR,
            "annotation_field",
            JSON,
            FIRST,
        ),
        (
            "a polygon outside",
            annotation(segmentation=[[5, 5, 9, 9, 5, 99]]),
            ERROR,
            "polygon_outside",
            JSON,
            FIRST,
        ),
        (
            "an outline that is a text",
            annotation(segmentation="x"),
            ERROR,
            "annotation_field",
            JSON,
            FIRST,
        ),
        (
            "runs that are too short",
            annotation(segmentation={"size": [SIDE, SIDE], "counts": [5, 5]}),
            ERROR,
            "bad_rle",
            JSON,
            FIRST,
        ),
        (
            "packed runs that are nonsense",
            annotation(segmentation={"size": [SIDE, SIDE], "counts": "zzzz"}),
            ERROR,
            "bad_rle",
            JSON,
            FIRST,
        ),
        (
            "runs of another size",
            annotation(segmentation={"size": [9, 9], "counts": [80, 1]}),
            ERROR,
            "bad_rle",
            JSON,
            FIRST,
        ),
        (
            "runs without a size",
            annotation(segmentation={"counts": [80, 1]}),
            ERROR,
            "bad_rle",
            JSON,
            FIRST,
        ),
        (
            "an annotation twice",
            in_json(lambda c: c["annotations"].insert(1, {**c["annotations"][0], "id": 999})),
            WARNING,
            "duplicate_label",
            JSON,
            FIRST + 1,
        ),
        (
            "an annotation that is a number",
            in_json(lambda c: c["annotations"].insert(0, 7)),
            ERROR,
            "annotation_field",
            JSON,
            FIRST,
        ),
        (
            "an image without width",
            without("images", "width"),
            ERROR,
            "annotation_field",
            JSON,
            IMAGE_LINE,
            ("label_without_image", "image_without_label"),
        ),
        (
            "an image's name that is a number",
            in_json(lambda c: c["images"][0].update(file_name=7)),
            ERROR,
            "annotation_field",
            JSON,
            IMAGE_LINE,
            ("label_without_image", "image_without_label"),
        ),
        (
            "an image twice",
            in_json(lambda c: c["images"].append(c["images"][0])),
            ERROR,
            "image_listed_twice",
            JSON,
            IMAGE_LINE + 6,
        ),
        (
            "two images of one name",
            in_json(lambda c: c["images"].append({**c["images"][0], "id": 99})),
            ERROR,
            "image_listed_twice",
            JSON,
            IMAGE_LINE + 6,
        ),
        ("an absent image", remove("train/train000.png"), ERROR, "image_not_found", JSON, 1),
        (
            "an image that leads out",
            in_json(lambda c: c["images"][0].update(file_name="../../outside.png")),
            ERROR,
            "link_outside",
            JSON,
            IMAGE_LINE,
            ("image_without_label",),
        ),
        (
            "an image of another size",
            in_json(lambda c: c["images"][0].update(width=SIDE + 1)),
            ERROR,
            "image_size_differs",
            JSON,
            IMAGE_LINE,
        ),
        (
            "an image that no file names",
            save(NOISE, "train/x.png"),
            WARNING,
            "image_without_label",
            "train/x.png",
        ),
        (
            "a category without name",
            in_json(lambda c: c["categories"].append({"id": 7})),
            ERROR,
            "annotation_field",
            JSON,
            CATEGORY,
        ),
        (
            "a category of a very long name",
            in_json(lambda c: c["categories"].append({"id": 7, "name": "x" * 201})),
            ERROR,
            "annotation_field",
            JSON,
            CATEGORY,
        ),
        (
            "a category twice",
            in_json(lambda c: c["categories"].append(c["categories"][0])),
            ERROR,
            "category_twice",
            JSON,
            CATEGORY,
        ),
        (
            "categories that differ",
            in_json(lambda c: c["categories"][0].update(name="cat"), split="val"),
            ERROR,
            "categories_differ",
            "annotations/instances_val.json",
        ),
        (
            "two categories of one name",
            both(
                *(
                    in_json(lambda c: c["categories"][0].update(name="disc"), split=s)
                    for s in ("train", "val")
                )
            ),
            WARNING,
            "class_named_twice",
            JSON,
        ),
        (
            "a category without objects",
            in_json(lambda c: c["categories"].append({"id": 7, "name": "cat"})),
            WARNING,
            "class_without_objects",
        ),
        (
            "a split twice",
            copy(JSON, "annotations/instances_train2.json"),
            ERROR,
            "split_twice",
            "annotations/instances_train2.json",
        ),
        ("no annotations", in_json(lambda c: c["annotations"].clear()), ERROR, "no_labels"),
        (
            "no images",
            in_json(lambda c: [c[s].clear() for s in ("images", "annotations")], split="val"),
            ERROR,
            "no_val_split",
        ),
    ]
]

POSE_FAULTS = [
    Fault((COCO, POSE), *rest)
    for rest in [
        ("a point missing", annotation(keypoints=[5, 5, 2]), ERROR, "keypoint_count", POSES, FIRST),
        (
            "a visibility of 7",
            annotation(keypoints=[5, 5, 7] * 3),
            ERROR,
            "keypoint_visibility",
            POSES,
            FIRST,
        ),
        (
            "a keypoint outside",
            annotation(keypoints=[5, 99, 2] * 3),
            ERROR,
            "keypoint_outside",
            POSES,
            FIRST,
        ),
        (
            "a keypoint that is a text",
            annotation(keypoints=["a"] * 9),
            ERROR,
            "annotation_field",
            POSES,
            FIRST,
        ),
        (
            "a skeleton of points that are not there",
            in_json(lambda c: c["categories"][0].update(skeleton=[[0, 1]])),
            WARNING,
            "skeleton_ignored",
            POSES,
            2,
        ),
        (
            "categories of other numbers of points",
            both(
                *(
                    in_json(
                        lambda c: c["categories"].append(
                            {"id": 7, "name": "x", "keypoints": ["a"]}
                        ),
                        split=s,
                    )
                    for s in ("train", "val")
                )
            ),
            ERROR,
            "keypoints_differ",
            POSES,
            None,
            ("class_without_objects",),
        ),
    ]
]

PANOPTIC_FAULTS = [
    Fault(PANOPTIC, *rest)
    for rest in [
        (
            "no folder of PNGs",
            remove("annotations/panoptic_train"),
            ERROR,
            "masks_not_found",
            SEGMENTS,
            None,
            ("unreadable_mask", "no_labels"),
        ),
        (
            "an absent PNG",
            remove("annotations/panoptic_train/0.png"),
            ERROR,
            "unreadable_mask",
            SEGMENTS,
            6,
        ),
        (
            "a PNG that is a text",
            write("annotations/panoptic_train/0.png", "x"),
            ERROR,
            "unreadable_mask",
            SEGMENTS,
            6,
        ),
        (
            "a PNG of another size",
            mask("annotations/panoptic_train/0.png", "RGB", colour_of(1000), (9, 9)),
            ERROR,
            "mask_size_differs",
            SEGMENTS,
            6,
        ),
        (
            "a segment that is not described",
            mask("annotations/panoptic_train/0.png", "RGB", (7, 0, 0), (24, 24)),
            ERROR,
            "segment_unknown",
            SEGMENTS,
            6,
        ),
        (
            "a way out",
            in_json(lambda c: c["annotations"][0].update(file_name="../../../x.png")),
            ERROR,
            "unreadable_mask",
            SEGMENTS,
            SEGMENT_LINE,
        ),
        (
            "a category that is not there",
            in_json(lambda c: c["annotations"][0]["segments_info"][0].update(category_id=1)),
            ERROR,
            "label_out_of_range",
            SEGMENTS,
            SEGMENT_LINE,
        ),
        (
            "a segment of two categories",
            in_json(
                lambda c: c["annotations"][0]["segments_info"].append(
                    {"id": 1000, "category_id": 9}
                )
            ),
            ERROR,
            "duplicate_label",
            SEGMENTS,
            SEGMENT_LINE,
            ("image_without_label",),
        ),
        (
            "no segments",
            without("annotations", "segments_info"),
            ERROR,
            "annotation_field",
            SEGMENTS,
            SEGMENT_LINE,
            ("image_without_label",),
        ),
        (
            "an image without annotation",
            in_json(lambda c: c["annotations"].pop(0)),
            WARNING,
            "image_without_label",
            SEGMENTS,
            SEGMENT_LINE - 4,
        ),
    ]
]

MASK = "masks/train/train000.png"
MASK_FAULTS = [
    Fault((MASKS, SEGMENT), *rest)
    for rest in [
        ("a class out of range", mask(MASK, colour=4), ERROR, "label_out_of_range", MASK),
        ("a mask of another size", mask(MASK, size=(9, 9)), ERROR, "mask_size_differs", MASK),
        ("a mask in colours", mask(MASK, "RGB"), ERROR, "unreadable_mask", MASK),
        ("a mask of 16 bits", mask(MASK, "I;16"), ERROR, "unreadable_mask", MASK),
        ("a truncated mask", cut(MASK), ERROR, "unreadable_mask", MASK),
        (
            "a missing mask",
            remove(MASK),
            WARNING,
            "image_without_label",
            "images/train/train000.png",
        ),
        (
            "a mask without image",
            mask("masks/train/x.png"),
            WARNING,
            "label_without_image",
            "masks/train/x.png",
        ),
        (
            "a mask that is a JPEG",
            both(remove(MASK), mask("masks/train/train000.jpg")),
            ERROR,
            "mask_not_png",
            "masks/train/train000.jpg",
            None,
            ("image_without_label",),
        ),
        (
            "two images of one stem",
            save(NOISE, "images/train/train000.jpg"),
            ERROR,
            "image_named_twice",
            "images/train/train000.png",
            None,
            ("mask_size_differs",),
        ),
        (
            "a class named twice",
            append("classes.txt", "disc\n"),
            WARNING,
            "class_named_twice",
            "classes.txt",
            5,
            ("class_without_objects",),
        ),
        (
            "a class without pixels",
            append("classes.txt", "cat\n"),
            WARNING,
            "class_without_objects",
        ),
        (
            "no val masks",
            empty_folder("masks/val"),
            ERROR,
            "no_val_split",
            None,
            None,
            ("image_without_label",),
        ),
    ]
]

FAULTS = [
    *IMAGE_FAULTS,
    *FOLDER_FAULTS,
    *CSV_FAULTS,
    *LABEL_FAULTS,
    *YOLO_FAULTS,
    *COCO_FAULTS,
    *POSE_FAULTS,
    *PANOPTIC_FAULTS,
    *MASK_FAULTS,
]

REFUSED: list[tuple[str | tuple[DatasetFormat, TaskType], Plant, str]] = [
    (MULTI_LABEL, write(CSV, "image;label\n"), r"the first line of 'train/labels\.csv'"),
    (MULTI_LABEL, write(CSV, b"\xff\xfe"), r"'train/labels\.csv' is not UTF-8"),
    ((YOLO, DETECT), append("data.yaml", "x: [1\ny: 2\n"), "not YAML in line"),
    ((YOLO, DETECT), write("data.yaml", YAML.replace("[square", "{0: square, 2")), "YAML|gap"),
    ((YOLO, DETECT), write("data.yaml", YAML.replace("images/val", "/etc")), "leads out"),
    ((YOLO, POSE), append("data.yaml", "flip_idx: [0, 0, 2]\n"), "'flip_idx' in 'data.yaml'"),
    ((COCO, OUTLINE), write(JSON, '{"images": [],\n"annotations": [}'), f"line 2 of '{JSON}'"),
    ((COCO, OUTLINE), cut(JSON), f"line 1 of '{JSON}' is not JSON"),
    ((COCO, OUTLINE), write(JSON, "[" * 100_000), f"'{JSON}'"),
    ((COCO, OUTLINE), write(JSON, '{"images": ' + "[" * 100_000), "nested too deeply"),
    ((COCO, OUTLINE), write(JSON, '{"images": [' + "9" * 9000 + "]}"), f"line 1 of '{JSON}'"),
    ((COCO, OUTLINE), write(JSON, b"\xff"), "UTF-8"),
    ((COCO, OUTLINE), write(JSON, '{"images": []}'), "lacks 'annotations' and 'categories'"),
    (
        (COCO, OUTLINE),
        both(*(in_json(lambda c: c["categories"].clear(), split=s) for s in ("train", "val"))),
        "no categories",
    ),
    (
        (COCO, OUTLINE),
        both(
            *(
                in_json(lambda c: c["categories"].__setitem__(slice(0, 3), [{"id": 1}]), split=s)
                for s in ("train", "val")
            )
        ),
        "no class has a name: category 1 in .* 'name' is missing",
    ),
    ((COCO, OUTLINE), link_out(JSON), "leads out"),
    ((MASKS, SEGMENT), remove("classes.txt"), r"no 'classes\.txt' or 'classes\.json'"),
    ((MASKS, SEGMENT), write("classes.txt", "a\n\nb\n"), r"line 2 of 'classes\.txt' is empty"),
    (
        (MASKS, SEGMENT),
        both(remove("classes.txt"), write("classes.json", '["a",\n]')),
        r"line \d of 'classes\.json' is not JSON",
    ),
    (
        (MASKS, SEGMENT),
        both(remove("classes.txt"), write("classes.json", '{"0": "a", "2": "b"}')),
        "without a gap",
    ),
]


def make(folder: Path, kind: str | tuple[DatasetFormat, TaskType]) -> tuple[Path, DatasetFormat]:
    if kind == PANOPTIC:
        return make_panoptic(folder), COCO
    if kind == MULTI_LABEL:
        compose(folder, format=FOLDER, task_type=CLASSIFY, multi_label=True, train=6, val=3)
        return folder, FOLDER
    assert isinstance(kind, tuple)
    compose(folder, format=kind[0], task_type=kind[1], train=6, val=3)
    return folder, kind[0]


KINDS = [
    (FOLDER, CLASSIFY),
    MULTI_LABEL,
    *((YOLO, task) for task in (DETECT, OUTLINE, POSE, TURNED)),
    *((COCO, task) for task in (DETECT, OUTLINE, POSE)),
    PANOPTIC,
    (MASKS, SEGMENT),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_nothing_is_told_of_a_data_set_without_fault(tmp_path: Path, kind):
    folder, format = make(tmp_path / "set", kind)
    found = describe(folder)
    assert (found.format, found.problems) == (format, ())


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.kind}: {fault.name}")
def test_a_planted_fault_is_told_with_its_file_and_line(tmp_path: Path, fault: Fault):
    folder, format = make(tmp_path / "set", fault.kind)
    fault.plant(folder)
    found = describe(folder, format=format, workers=1)
    told = [p for p in found.problems if p.code not in fault.besides]
    assert [(str(p.severity), p.code, p.file, p.line) for p in told] == [
        (fault.severity, fault.code, fault.file, fault.line)
    ]
    assert {p.code for p in found.problems} == {fault.code, *fault.besides}
    assert all(p.message.isprintable() for p in found.problems)
    assert found.valid == (fault.severity == WARNING)


@pytest.mark.parametrize(("kind", "plant", "reason"), REFUSED)
def test_what_cannot_be_read_is_refused_with_the_reason(
    tmp_path: Path, kind, plant: Plant, reason: str
):
    folder, format = make(tmp_path / "set", kind)
    plant(folder)
    with pytest.raises(DatasetError, match=reason) as refusal:
        describe(folder, format=format)
    assert str(refusal.value).isprintable()


def test_there_are_many_faults_and_no_two_of_one_name():
    names = [(fault.kind, fault.name) for fault in FAULTS]
    assert len(set(names)) == len(names) >= 60
