"""Whatever lies in a folder, reading it gives content and a description, or a DatasetError."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.contract import DatasetFormat, TaskType
from adapters.data.describe import describe
from adapters.data.description import DatasetError
from adapters.data.preview import preview
from adapters.data.reading import read
from adapters.data.roots import resolve_inside
from tests.shapes import compose
from tests.unit.data_sets import make_panoptic, make_yolo, write_image

EXAMPLES = 60  # thousands were run when this was written
FOLDERS = (
    "train",
    "val",
    "valid",
    "images",
    "labels",
    "annotations",
    "masks",
    "panoptic_train",
    "cat",
    "10",
    "고",
    " ",
    "a.png",
)
FILES = (
    "0.png",
    "1.jpg",
    "0.txt",
    "data.yaml",
    "x.yaml",
    "train.txt",
    "🐟.webp",
    "n\nl.png",
    "s.cache",
    "labels.csv",
    "classes.txt",
    "classes.json",
    "instances_train.json",
    "_annotations.coco.json",
    "panoptic_train.json",
)
GOOD_IMAGE = "good image"
LINK = "link: "

contents = st.one_of(
    st.just(GOOD_IMAGE),
    st.binary(max_size=60),
    st.sampled_from((LINK + "/etc", LINK + "..", LINK + ".", LINK + "absent", LINK + "0.png")),
    st.sampled_from(
        (
            b"train: train\nval: val\nnames: [a]\n",
            b"names: {0: a}\ntrain: [images]\nval: train.txt\n",
            b"./0.png\n../x/0.png\n/etc/passwd\n",
            b"0 0.5 0.5 0.1 0.1\n",
            b"file_name,labels\n0.png,a|b\nx.png,\n,\n",
            b'["a", "b"]',
            (
                b'{"images": [{"id": 1, "file_name": "0.png", "width": 24, "height": 24}], '
                b'"annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}], '
                b'"categories": [{"id": 1, "name": "a"}]}'
            ),
        )
    ),
)
trees = st.dictionaries(
    st.tuples(
        st.lists(st.sampled_from(FOLDERS), max_size=3).map(tuple), st.sampled_from(FILES)
    ).map(lambda place: "/".join((*place[0], place[1]))),
    contents,
    max_size=8,
)
texts = st.one_of(
    st.text(max_size=12),
    st.sampled_from(("images/train", "images", ".", "..", "/", "/etc", "data.yaml", "a\0", "")),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.dates(), texts),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(texts | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = ("path", "train", "val", "validation", "test", "names", "nc", "kpt_shape", "download")
label_tokens = st.one_of(
    st.sampled_from(("0", "1", "-1", "0.5", "nan", "inf", "1e999", "0x1", "²", "٣", "", ",")),
    st.text(max_size=5),
    st.floats().map(str),
)


def plant(folder: Path, tree: dict[str, object]) -> None:
    for name, content in tree.items():
        place = folder / name
        try:
            if content == GOOD_IMAGE:
                write_image(place.with_suffix(".png"))
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                place.symlink_to(content.removeprefix(LINK))
            else:
                place.write_bytes(content)
        except OSError:  # 'a.png' as a folder where a file is, and the like: any tree will do
            continue


def describe_or_refuse(path: Path, format: DatasetFormat | None = None) -> None:
    """Describe, show and read a data set for every task: nothing but DatasetError is raised."""
    messages = []
    try:
        found = describe(path, format=format, workers=1)
        messages += [problem.message for problem in found.problems]
        json.dumps([found.statistics, preview(path, format=found.format, split="val", limit=2)])
        for task in TaskType:
            messages += use(path, found.format, task)
    except DatasetError as error:
        messages.append(str(error))
    assert all(message.isprintable() for message in messages)


def use(path: Path, format: DatasetFormat, task: TaskType) -> Iterator[str]:
    """Read a data set and use it as an adapter would; yield the refusals."""
    try:
        content = read(path, format=format, task_type=task)
    except DatasetError as error:
        yield str(error)
        return
    for sample in chain.from_iterable(content.splits.values()):
        for get in (content.objects, content.mask):
            try:
                get(sample)
            except DatasetError as error:
                yield str(error)


@settings(max_examples=EXAMPLES, deadline=None)
@given(tree=trees)
def test_any_tree(tree: dict[str, object]):
    with tempfile.TemporaryDirectory() as folder:
        plant(Path(folder), tree)
        describe_or_refuse(Path(folder))


@settings(max_examples=EXAMPLES, deadline=None)
@given(content=st.dictionaries(st.sampled_from(KEYS) | texts, values, max_size=6))
def test_any_yaml(content: dict[str, object]):
    with tempfile.TemporaryDirectory() as folder:
        path = make_yolo(Path(folder), images=1)
        base = {"train": "images/train", "val": "images/val", "names": ["a", "b"]}
        (path / "data.yaml").write_bytes(yaml.dump({**base, **content}, encoding="utf-8"))
        describe_or_refuse(path)


@settings(max_examples=EXAMPLES, deadline=None)
@given(content=st.text(max_size=200) | st.binary(max_size=200))
def test_any_bytes_as_yaml(content: str | bytes):
    with tempfile.TemporaryDirectory() as folder:
        raw = content.encode("utf-8", "replace") if isinstance(content, str) else content
        (Path(folder) / "data.yaml").write_bytes(raw)
        describe_or_refuse(Path(folder))


@settings(max_examples=EXAMPLES, deadline=None)
@given(lines=st.lists(st.lists(label_tokens, max_size=10).map(" ".join), max_size=5))
def test_any_label_and_any_list(lines: list[str]):
    with tempfile.TemporaryDirectory() as folder:
        path = make_yolo(Path(folder), images=1)
        raw = "\n".join(lines).encode("utf-8", "replace")
        (path / "labels" / "train" / "0.txt").write_bytes(raw)
        (path / "val.txt").write_bytes(b"./images/val/0.png\n" + raw)
        (path / "data.yaml").write_text("train: images/train\nval: val.txt\nnames: [a, b]\n")
        describe_or_refuse(path)


FIELDS = ("id", "image_id", "category_id", "file_name", "width", "height", "bbox", "counts", "size",
          "segmentation", "keypoints", "skeleton", "iscrowd", "name", "segments_info")  # fmt: skip
numbers = st.one_of(
    st.integers(-3, 70), st.integers(), st.floats(), st.just(10**400), st.just(2**63)
)
fields = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts, st.text("0P]o1", max_size=6)),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.lists(numbers, max_size=9)
        | st.dictionaries(st.sampled_from(FIELDS) | texts, inner, max_size=3)
    ),
    max_leaves=8,
)
changes = st.lists(
    st.tuples(
        st.sampled_from(("images", "annotations", "categories")),
        st.integers(0, 3),
        st.none() | st.sampled_from(FIELDS),
        fields,
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(changed=changes, kind=st.sampled_from((*TaskType, "panoptic")))
def test_any_annotation(changed: list[tuple[str, int, str | None, Any]], kind: str):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        if kind == "panoptic":
            make_panoptic(path)
        else:
            compose(path, format=DatasetFormat.COCO, task_type=TaskType(kind), train=3, val=3)
        file = next((path / "annotations").glob("*_train.json"))
        content = json.loads(file.read_text())
        for section, number, field, value in changed:
            if field is None:
                content[section][number % len(content[section])] = value
            elif isinstance(element := content[section][number % len(content[section])], dict):
                element[field] = value
        file.write_text(json.dumps(content), "utf-8", "replace")
        describe_or_refuse(path, DatasetFormat.COCO)


@settings(max_examples=EXAMPLES, deadline=None)
@given(content=st.text(max_size=100) | st.binary(max_size=100) | fields.map(json.dumps))
def test_any_bytes_as_annotations_and_as_names(content: str | bytes):
    raw = content.encode("utf-8", "replace") if isinstance(content, str) else content
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "annotations").mkdir()
        write_image(path / "train" / "0.png")
        (path / "annotations" / "instances_train.json").write_bytes(raw)
        describe_or_refuse(path, DatasetFormat.COCO)
        for name in ("images", "masks"):
            write_image(path / name / "0.png")
        (path / "classes.json").write_bytes(raw)
        describe_or_refuse(path, DatasetFormat.MASKS)


@settings(max_examples=EXAMPLES, deadline=None)
@given(content=st.text(max_size=80) | st.binary(max_size=80))
def test_any_labels_csv(content: str | bytes):
    raw = content.encode("utf-8", "replace") if isinstance(content, str) else content
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        for i in range(3):
            write_image(path / f"{i}.png")
        head = b"file_name,labels\n0.png,a|b\n1.png,\n"
        (path / "labels.csv").write_bytes(head + raw)
        describe_or_refuse(path)
        (path / "labels.csv").write_bytes(raw)
        describe_or_refuse(path)


@settings(max_examples=EXAMPLES, deadline=None)
@given(path=st.text(st.characters(), max_size=20) | texts)
def test_any_path(path: str):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        (root / "a").mkdir()
        refusal = ""
        try:
            assert resolve_inside(path, [root]).is_relative_to(root)
        except DatasetError as error:
            refusal = str(error)
        assert refusal.isprintable()
