"""The folder that Ultralytics is shown in place of a data set."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image, ImageDraw

pytest.importorskip("ultralytics")

from adapters.contract import DatasetFormat, TaskType
from adapters.data.content import Annotation, Content, Keypoints, Object, Sample
from adapters.data.description import DatasetError
from adapters.ultralytics_training.view import write_description, write_view

# isort: split
from ultralytics.data.dataset import SemanticDataset, YOLODataset
from ultralytics.utils import DEFAULT_CFG

SIDE = 40
BOX = (0.25, 0.5, 0.75, 1.0)


@dataclasses.dataclass(frozen=True)
class GivenContent(Content):
    """A data set whose annotations are given as they are."""

    things: Mapping[Path, list[Object]] = dataclasses.field(default_factory=dict)
    masks: Mapping[Path, NDArray[np.uint8]] = dataclasses.field(default_factory=dict)

    def objects(self, sample: Sample) -> list[Object]:
        return self.things.get(sample.image, [])

    def mask(self, sample: Sample) -> NDArray[np.uint8]:
        return self.masks[sample.image]

    def check(self, sample: Sample, *, size: tuple[int, int] | None) -> Annotation:
        raise NotImplementedError


def _content(folder: Path, task_type: TaskType, things: list[Object], **more: Any) -> GivenContent:
    images = {}
    for split in ("train", "val"):
        images[split] = folder / f"{split}.png"
        Image.new("RGB", (SIDE, SIDE)).save(images[split])
    return GivenContent(
        path=folder,
        format=DatasetFormat.COCO,
        task_type=task_type,
        task_types=(task_type,),
        classes=("cat", "dog"),
        splits={split: [Sample(image, classes=(1,))] for split, image in images.items()},
        things=dict.fromkeys(images.values(), things),
        **more,
    )


def _labels(content: Content, folder: Path) -> list[list[float]]:
    write_view(content, folder)
    text = (folder / "labels" / "train" / "0000000_train.txt").read_text()
    return [[float(token) for token in line.split()] for line in text.splitlines()]


def test_boxes_are_written_by_their_middle_and_stay_inside(tmp_path: Path) -> None:
    things = [Object(1, BOX), Object(0, (-0.2, 0.0, 0.4, 1.3))]
    content = _content(tmp_path, TaskType.OBJECT_DETECTION, things)
    assert _labels(content, tmp_path / "view") == [
        [1, 0.5, 0.75, 0.5, 0.5],
        [0, 0.2, 0.5, 0.4, 1.0],
    ]


def test_crowds_and_boxes_without_area_are_left_out(tmp_path: Path) -> None:
    things = [Object(0, BOX, crowd=True), Object(0, (0.5, 0.5, 0.5, 0.9)), Object(1, BOX)]
    content = _content(tmp_path, TaskType.OBJECT_DETECTION, things)
    assert [row[0] for row in _labels(content, tmp_path / "view")] == [1]


def test_an_outline_in_parts_becomes_one_that_covers_both(tmp_path: Path) -> None:
    parts = ((0.0, 0.0, 0.25, 0.0, 0.25, 0.5, 0.0, 0.5), (0.5, 0.5, 1.0, 0.5, 1.0, 1.0, 0.5, 1.0))
    content = _content(
        tmp_path, TaskType.INSTANCE_SEGMENTATION, [Object(1, (0.0, 0.0, 1.0, 1.0), polygons=parts)]
    )
    ((class_id, *outline),) = _labels(content, tmp_path / "view")
    assert class_id == 1
    mask = Image.new("1", (SIDE, SIDE))
    points = [(x * SIDE, y * SIDE) for x, y in np.reshape(outline, (-1, 2))]
    ImageDraw.Draw(mask).polygon(points, fill=1)
    assert np.asarray(mask).mean() == pytest.approx(0.25 * 0.5 + 0.5 * 0.5, abs=0.06)


@pytest.mark.parametrize("area", [(slice(10, 30), slice(4, 24)), (slice(7, 8), slice(3, 9))])
def test_a_mask_becomes_the_outline_of_the_same_pixels(tmp_path: Path, area: Any) -> None:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[area] = True
    content = _content(
        tmp_path, TaskType.INSTANCE_SEGMENTATION, [Object(0, (0.0, 0.0, 1.0, 1.0), mask=mask)]
    )
    dataset = _dataset(content, tmp_path / "view", "segment")
    # As the library draws it for its loss, at the image's own size.
    from ultralytics.data.utils import polygon2mask

    outline = dataset.labels[0]["segments"][0] * SIDE
    assert np.array_equal(polygon2mask((SIDE, SIDE), [outline.ravel()]).astype(bool), mask)


def test_keypoints_follow_the_box_and_unseen_ones_have_no_place(tmp_path: Path) -> None:
    thing = Object(0, BOX, keypoints=((0.3, 0.6, 2), (0.4, 0.7, 1), (0.9, 1.2, 2)))
    points = Keypoints(number=3, dimensions=3, names=("a", "b", "c"), flip=(1, 0, 2))
    content = _content(tmp_path, TaskType.POSE_ESTIMATION, [thing], keypoints=points)
    (row,) = _labels(content, tmp_path / "view")
    assert row[5:] == [0.3, 0.6, 2, 0.4, 0.7, 1, 0, 0, 0]
    data = write_view(content, tmp_path / "view")
    assert data["kpt_shape"] == [3, 3]
    assert data["flip_idx"] == [1, 0, 2]
    assert data["kpt_names"][1] == ["a", "b", "c"]


def test_points_without_visibility_that_are_not_there_count_as_unseen(tmp_path: Path) -> None:
    points = Keypoints(number=2, dimensions=2)
    content = _content(
        tmp_path,
        TaskType.POSE_ESTIMATION,
        [Object(0, BOX, keypoints=((0.3, 0.6, 2),))],
        keypoints=points,
    )
    dataset = _dataset(content, tmp_path / "view", "pose")
    assert dataset.labels[0]["keypoints"][0, :, 2].tolist() == [1.0, 0.0]


def test_corners_are_written_as_they_are(tmp_path: Path) -> None:
    corners = (0.5, 0.2, 0.8, 0.5, 0.5, 0.8, 0.2, 0.5)
    content = _content(
        tmp_path, TaskType.ORIENTED_DETECTION, [Object(1, (0.2, 0.2, 0.8, 0.8), corners=corners)]
    )
    assert _labels(content, tmp_path / "view") == [[1, *corners]]


@pytest.mark.parametrize("task", [TaskType.INSTANCE_SEGMENTATION, TaskType.ORIENTED_DETECTION])
def test_a_box_alone_is_refused_where_the_task_needs_more(tmp_path: Path, task: TaskType) -> None:
    content = _content(tmp_path, task, [Object(0, BOX)])
    with pytest.raises(DatasetError, match=r"train\.png' has an object without"):
        write_view(content, tmp_path / "view")


def test_masks_are_read_as_they_were_given(tmp_path: Path) -> None:
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    mask[5:20, 5:20], mask[0, 0] = 1, 255
    content = _content(tmp_path, TaskType.SEMANTIC_SEGMENTATION, [])
    images = [split[0].image for split in content.splits.values()]
    content = dataclasses.replace(content, masks=dict.fromkeys(images, mask))
    dataset = _dataset(content, tmp_path / "view", "semantic", kind=SemanticDataset)
    assert np.array_equal(dataset.load_mask(0), mask)


def test_a_class_keeps_its_number_where_a_split_has_none_of_it(tmp_path: Path) -> None:
    content = _content(tmp_path, TaskType.IMAGE_CLASSIFICATION, [])
    data = write_view(content, tmp_path / "view")
    folders = sorted(path.name for path in Path(data["train"]).iterdir())
    assert folders == ["00000", "00001"]
    assert [p.parent.name for p in Path(data["train"]).rglob("*.png")] == ["00001"]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_labels_lie_on_images_that_their_camera_turned(tmp_path: Path, suffix: str) -> None:
    """The image lies on its side; turned upright the white square is in its upper left corner."""
    upright = Image.new("RGB", (30, 60))
    upright.paste((255, 255, 255), (0, 0, 15, 15))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter, clockwise
    content = _content(tmp_path, TaskType.OBJECT_DETECTION, [])
    path = tmp_path / f"turned.{suffix}"
    upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    content = dataclasses.replace(
        content,
        splits={split: [Sample(path)] for split in content.splits},
        things={path: [Object(0, (0.0, 0.0, 0.5, 0.25))]},
    )
    dataset = _dataset(content, tmp_path / "view", "detect")
    image, (height, width), _ = dataset.load_image(0)
    assert (height, width) == (60, 30)
    assert image[: image.shape[0] // 5, : image.shape[1] // 3].min() > 200
    assert image[image.shape[0] // 2 :].max() < 50


@pytest.mark.parametrize(
    ("name", "link"),
    [
        ("고양이 두 마리.png", "0000000_고양이 두 마리.png"),
        ("😀.PNG", "0000000_😀.png"),
        ("a\nb.png", "0000000.png"),
        ("x" * 240 + ".png", "0000000.png"),
        ("still.gif", "0000000_still.png"),
        ("grey.pgm", "0000000_grey.png"),
    ],
)
def test_an_image_of_any_name_is_read(tmp_path: Path, name: str, link: str) -> None:
    content = _content(tmp_path, TaskType.OBJECT_DETECTION, [])
    path = tmp_path / name
    Image.new("L", (SIDE, SIDE), 200).save(path)
    content = dataclasses.replace(
        content,
        splits={split: [Sample(path)] for split in content.splits},
        things={path: [Object(0, BOX)]},
    )
    dataset = _dataset(content, tmp_path / "view", "detect")
    assert [Path(p).name for p in dataset.im_files] == [link]
    assert dataset.load_image(0)[0].mean() == pytest.approx(200, abs=2)
    assert len(dataset.labels[0]["cls"]) == 1


@pytest.mark.parametrize(
    ("name", "mode", "format"),
    [("gif.jpg", "L", "GIF"), ("pixmap.jpg", "L", "PPM"), ("float.tif", "F", "TIFF")],
)
def test_an_image_that_the_library_would_leave_out_is_converted(
    tmp_path: Path, name: str, mode: str, format: str
) -> None:
    """By its content and not by its name, which is only warned of."""
    content = _content(tmp_path, TaskType.OBJECT_DETECTION, [])
    path = tmp_path / name
    Image.new(mode, (SIDE, SIDE), 200).save(path, format)
    content = dataclasses.replace(
        content, splits={split: [Sample(path)] for split in content.splits}
    )
    dataset = _dataset(content, tmp_path / "view", "detect")
    assert dataset.load_image(0)[0].mean() == pytest.approx(200, abs=2)


def test_the_view_is_made_anew_and_holds_nothing_of_the_user(tmp_path: Path) -> None:
    content = _content(tmp_path, TaskType.OBJECT_DETECTION, [Object(0, BOX)])
    view = tmp_path / "view"
    (view / "labels").mkdir(parents=True)
    (view / "labels" / "train.cache").write_bytes(b"a pickle that somebody made")
    write_view(content, view)
    assert not list(view.rglob("*.cache"))
    assert [p.resolve() for p in view.rglob("*.png") if "train" in p.name] == [
        tmp_path / "train.png"
    ]


def test_the_description_quotes_every_name(tmp_path: Path) -> None:
    content = _content(tmp_path, TaskType.OBJECT_DETECTION, [])
    names = ("yes", '😀 "x": #', "'", "!!python/object/apply:os.system [x]")
    write_description(dataclasses.replace(content, classes=names), tmp_path / "data.yaml")
    told = yaml.safe_load((tmp_path / "data.yaml").read_text(encoding="utf-8"))
    assert told["names"] == dict(enumerate(names))
    assert json.dumps(told)  # plain values only


def test_an_empty_split_is_told(tmp_path: Path) -> None:
    content = _content(tmp_path, TaskType.OBJECT_DETECTION, [])
    content = dataclasses.replace(content, splits={"train": content.splits["train"], "val": []})
    with pytest.raises(DatasetError, match="no images in its split 'val'"):
        write_view(content, tmp_path / "view")


def _dataset(content: Content, folder: Path, task: str, kind: Any = YOLODataset) -> Any:
    data = write_view(content, folder)
    return kind(
        img_path=data["train"],
        data=data,
        task=task,
        augment=False,
        hyp=DEFAULT_CFG,
        imgsz=SIDE,
        rect=False,
    )
