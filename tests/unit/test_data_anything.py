"""Whatever lies in a folder, reading it gives a description or a DatasetError."""

from __future__ import annotations

import tempfile
from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.data.describe import describe
from adapters.data.description import DatasetError
from adapters.data.roots import resolve_inside
from tests.unit.data_sets import make_yolo, write_image

EXAMPLES = 60  # thousands were run when this was written
FOLDERS = (
    "train",
    "val",
    "valid",
    "images",
    "labels",
    "annotations",
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


def describe_or_refuse(path: Path) -> None:
    messages = []
    try:
        messages += [problem.message for problem in describe(path, workers=1).problems]
    except DatasetError as error:
        messages.append(str(error))
    assert all(message.isprintable() for message in messages)


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
