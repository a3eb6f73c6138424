"""A data set that is packed and unpacked elsewhere is the same data set, and holds nothing else."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.contract import DatasetFormat, TaskType
from adapters.data.content import Content, SplitRule
from adapters.data.describe import describe
from adapters.data.description import DatasetError, Description
from adapters.data.manifest import Manifest, ManifestError, Shard, dataset_prefix
from adapters.data.pack import DatasetChanged, pack, verify
from adapters.data.pack_apart import pack_apart
from adapters.data.reading import scan
from adapters.data.shards import ShardRefused, ShardWriter, make_folders, unpack_shard
from tests.shapes import compose
from tests.unit.data_sets import make_imagefolder, make_panoptic, make_yolo, write_image, write_yaml
from tests.unit.test_data_anything import contents, plant, trees

STRANGE = "my 고양이 😀"
EXAMPLES = 20  # a thousand were run when this was written
RULE = SplitRule(seed=7, val_share=0.3)


def packed(path: Path, into: Path, found: Description, **how: object) -> Manifest:
    into.mkdir(parents=True, exist_ok=True)
    return pack(
        path, into, fingerprint=found.fingerprint, format=found.format, task_type=found.task_type,
        split_rule=RULE, **how,  # type: ignore[arg-type]
    )  # fmt: skip


def copied(path: Path, elsewhere: Path, **how: object) -> tuple[Path, Description]:
    """Describe, pack and unpack a data set; return the copy's path and the description."""
    found = describe(path, split_rule=RULE, workers=1)
    manifest = packed(path, elsewhere / "shards", found, **how)
    unpacked(manifest, elsewhere)
    return elsewhere / "copy" / manifest.entry, found


def unpacked(manifest: Manifest, elsewhere: Path) -> None:
    copy = elsewhere / "copy"
    copy.mkdir()
    make_folders(manifest.folders, copy)
    for shard in manifest.shards:
        unpack_shard(elsewhere / "shards" / shard.name, shard, copy, on_bytes=lambda _: None)
    verify(copy, manifest, progress=lambda done, total: None)


def facts(content: Content) -> object:
    """Return what a content says, with paths relative to it."""
    splits = {
        split: [
            (os.path.relpath(s.image, content.path), s.classes,
             os.path.relpath(s.key, content.path) if isinstance(s.key, Path) else s.key,
             content.check(s, size=None).objects if s.key is not None else None)
            for s in samples
        ]
        for split, samples in content.splits.items()
    }  # fmt: skip
    return (content.format, content.task_type, content.task_types, content.classes, splits,
            content.multi_label, str(content.keypoints), content.split_rule)  # fmt: skip


def read_for_all(path: Path, found: Description) -> list[object]:
    read: list[object] = []
    for task in found.task_types:
        try:
            content = scan(path, format=found.format, task_type=task, split_rule=RULE)
        except DatasetError:  # one is for that task, by its name, and is no good
            read.append("refused")
        else:
            read.append(facts(content))
    return read


def require_same(path: Path, copy: Path, found: Description) -> None:
    """Compare a copy with the original, which then goes: nothing may hang on it."""
    before = read_for_all(path, found)
    shutil.rmtree(path if path.is_dir() else path.parent)
    assert read_for_all(copy, found) == before
    again = describe(copy, format=found.format, split_rule=RULE, workers=1)
    assert again.fingerprint == found.fingerprint
    assert again.valid == found.valid


def labels_csv(folder: Path) -> Path:
    for split in ("train", "val"):
        for i in range(3):
            write_image(folder / split / "deep er" / f"{i} 고.png")
        rows = "".join(f"deep er/{i} 고.png,cat|dog\n" for i in range(3))
        (folder / split / "labels.csv").write_text(f"file_name,labels\n{rows}", "utf-8")
    return folder


def composed(format: DatasetFormat, task: TaskType) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        compose(folder, format=format, task_type=task, train=6, val=3)
        return folder

    return make


def yaml_above(folder: Path) -> Path:
    """A yaml in a folder beside its images, which names its root by the place on this host."""
    make_yolo(folder, images=2)
    (folder / "data.yaml").rename(folder / "about.txt")
    (folder / "config").mkdir()
    (folder / "config" / "data.yaml").write_text(
        f"path: {folder}\ntrain: [images/train, {folder / 'more.txt'}]\n"
        f"val: {folder}/images/val\ntest: empty\nnames: {{0: '{STRANGE}', 1: 'no'}}\n", "utf-8",
    )  # fmt: skip
    (folder / "empty").mkdir()
    write_image(folder / "more images" / " 😀.png")
    (folder / "more.txt").write_text(f"{folder}/more images/ 😀.png\n", "utf-8")
    return folder


def yaml_itself(folder: Path) -> Path:
    make_yolo(folder, images=2)
    (folder / "data.yaml").rename(folder / f"{STRANGE}.yaml")
    (folder / "another.yaml").write_text("train: nowhere\nnames: [x]\n")
    return folder / f"{STRANGE}.yaml"


def without_val(folder: Path) -> Path:
    make_yolo(folder, images=6)
    write_yaml(folder, splits="train: images\n")
    return folder


def strange_imagefolder(folder: Path) -> Path:
    make_imagefolder(folder, classes=(STRANGE, "10", "9", "new\nline"), splits=("train",), images=4)
    shutil.move(folder / "train", folder / "all")
    for place in (folder / "all").iterdir():
        place.rename(folder / place.name)
    (folder / "all").rmdir()
    write_image(folder / "9" / os.fsdecode(b"not utf-8 \xff.png"))
    return folder


def coco_of_two_kinds(folder: Path) -> Path:
    compose(folder, format=DatasetFormat.COCO, task_type=TaskType.INSTANCE_SEGMENTATION,
            train=4, val=3)  # fmt: skip
    make_panoptic(folder)
    return folder


MADE = [
    strange_imagefolder,
    make_imagefolder,
    labels_csv,
    make_yolo,
    yaml_above,
    yaml_itself,
    without_val,
    make_panoptic,
    coco_of_two_kinds,
    composed(DatasetFormat.COCO, TaskType.POSE_ESTIMATION),
    composed(DatasetFormat.YOLO, TaskType.POSE_ESTIMATION),
    composed(DatasetFormat.YOLO, TaskType.ORIENTED_DETECTION),
    composed(DatasetFormat.MASKS, TaskType.SEMANTIC_SEGMENTATION),
]


@pytest.mark.parametrize("make", MADE, ids=lambda make: make.__qualname__)
def test_a_copy_has_the_same_content_and_fingerprint(tmp_path: Path, make: Callable[[Path], Path]):
    path = make(tmp_path / STRANGE)
    copy, found = copied(path, tmp_path / "elsewhere", shard_bytes=4000)
    assert found.valid, found.problems
    require_same(path, copy, found)


def test_links_sockets_and_files_that_nothing_names_stay_behind(tmp_path: Path):
    path = make_imagefolder(tmp_path / "set")
    write_image(tmp_path / "secret.png")
    (path / "train" / "cat" / "inner.png").symlink_to(path / "train" / "cat" / "0.png")
    (path / "notes.txt").write_text("of nobody's business")
    copy, found = copied(path, tmp_path / "elsewhere")
    names = {p.relative_to(copy).as_posix() for p in copy.rglob("*") if not p.is_dir()}
    assert len(names) == 13  # twelve images, and what the link points to
    assert "notes.txt" not in names
    assert not any(p.is_symlink() for p in copy.rglob("*"))
    (path / "train" / "cat" / "1.png").unlink()
    (path / "train" / "cat" / "1.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DatasetError):
        packed(path, tmp_path / "again", found)
    assert not any(b"secret" in p.read_bytes() for p in (tmp_path / "again").iterdir())


def test_a_link_put_in_the_place_of_a_file_meanwhile_is_not_followed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = make_imagefolder(tmp_path / "set")
    found = describe(path, workers=1)
    secret = write_image(tmp_path / "secret.png")
    real = scan(path, format=found.format)
    victim = path / "train" / "dog" / "2.png"

    def late(*args: object, **kwargs: object) -> Content:
        victim.unlink()
        victim.symlink_to(secret)
        return real

    monkeypatch.setattr("adapters.data.pack.scan", late)
    with pytest.raises(DatasetError, match="no plain file in the data set's folder"):
        packed(path, tmp_path / "shards", found)


@pytest.mark.parametrize("change", ["image", "label", "gone"])
def test_what_was_changed_since_it_was_checked_is_not_packed(tmp_path: Path, change: str):
    path = make_yolo(tmp_path / "set")
    found = describe(path, workers=1)
    if change == "image":
        write_image(tmp_path / "other" / "x.png").replace(path / "images" / "train" / "0.png")
    elif change == "label":
        (path / "labels" / "val" / "1.txt").write_text("0 0.5 0.5 0.125 0.25\n")
    else:
        (path / "images" / "val" / "1.png").unlink()
    with pytest.raises(DatasetChanged, match="validate it again"):
        packed(path, tmp_path / "shards", found)


def test_annotations_of_another_task_count_in_the_fingerprint(tmp_path: Path):
    path = coco_of_two_kinds(tmp_path / "set")
    before = describe(path, workers=1)
    assert before.task_type != TaskType.SEMANTIC_SEGMENTATION
    png = next((path / "annotations" / "panoptic_train").iterdir())
    shutil.copy(write_image(tmp_path / "other.png"), png)
    assert describe(path, workers=1).fingerprint != before.fingerprint


def test_names_that_mean_nothing_elsewhere_are_refused(tmp_path: Path):
    path = labels_csv(tmp_path / "set")
    csv = path / "val" / "labels.csv"
    csv.write_text(csv.read_text("utf-8").replace("\ndeep", f"\n{path}/val/deep", 1), "utf-8")
    found = describe(path, workers=1)
    assert found.valid
    with pytest.raises(DatasetError, match=r"'val/labels.csv' names images by absolute paths"):
        packed(path, tmp_path / "shards", found)


def test_a_shard_is_the_same_whoever_packs_it_and_bounded(tmp_path: Path):
    path = make_imagefolder(tmp_path / "set")
    found = describe(path, workers=1)
    one = packed(path, tmp_path / "a", found, shard_bytes=6000)
    shutil.copytree(path, tmp_path / "copy")
    os.utime(tmp_path / "copy" / "train" / "cat" / "0.png", (1, 1))
    other = packed(tmp_path / "copy", tmp_path / "b", found, shard_bytes=6000)
    assert one == other
    assert len(one.shards) > 2
    assert all(shard.content_bytes <= 6000 for shard in one.shards)
    assert Manifest.from_json(one.to_json()) == one


def test_a_child_packs_and_waits_until_shards_are_taken_away(tmp_path: Path):
    path = make_imagefolder(tmp_path / "set", images=20)
    found = describe(path, workers=1)
    into = tmp_path / "shards"
    into.mkdir()
    sent: list[str] = []
    told: list[tuple[int, int]] = []

    def send(shard: Path) -> None:
        assert len(list(into.iterdir())) <= 3  # two that are whole, and one that is written
        sent.append(shard.name)
        shard.unlink()

    def ask(fingerprint: str) -> Manifest:
        return pack_apart(
            path, into, fingerprint=fingerprint, format=found.format, task_type=found.task_type,
            split_rule=SplitRule(), shard_bytes=10_000, send=send,
            progress=lambda *how: told.append(how),
        )  # fmt: skip

    manifest = ask(found.fingerprint)
    assert sorted(sent) == sorted(shard.name for shard in manifest.shards)
    assert len(sent) > 10
    assert manifest.files == 80
    assert told
    with pytest.raises(DatasetChanged):
        ask("0" * 64)


def shard_of(path: Path, *entries: tarfile.TarInfo, content: bytes = b"x") -> Shard:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            if entry.isreg():
                entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content) if entry.isreg() else None)
    return Shard("0" * 64, path.stat().st_size, files=len(entries), content_bytes=len(content))


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


@pytest.mark.parametrize(
    "bad",
    [
        entry("/etc/x"),
        entry("../x"),
        entry("a/../../x"),
        entry("a//x"),
        entry(""),
        entry("link", tarfile.SYMTYPE, "/etc"),
        entry("link", tarfile.LNKTYPE, "/etc/passwd"),
        entry("pipe", tarfile.FIFOTYPE),
        entry("device", tarfile.CHRTYPE),
        entry("folder", tarfile.DIRTYPE),
        entry("sparse", tarfile.GNUTYPE_SPARSE),
    ],
    ids=lambda bad: f"{bad.name!r} {bad.type!r}",
)
def test_a_shard_with_anything_but_plain_files_below_the_folder_is_refused(
    tmp_path: Path, bad: tarfile.TarInfo
):
    shard = shard_of(tmp_path / "x.tar", entry("good"), bad)
    with pytest.raises(ShardRefused):
        unpack_shard(tmp_path / "x.tar", shard, tmp_path / "a" / "b", on_bytes=lambda _: None)
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} <= {"x.tar", "good"}


@pytest.mark.parametrize("lie", [{"files": 1}, {"files": 3}, {"content_bytes": 1}])
def test_a_shard_that_is_not_what_its_manifest_says_is_refused(tmp_path: Path, lie: dict[str, int]):
    shard = dataclasses.replace(shard_of(tmp_path / "x.tar", entry("a"), entry("b")), **lie)
    with pytest.raises(ShardRefused):
        unpack_shard(tmp_path / "x.tar", shard, tmp_path / "out", on_bytes=lambda _: None)


def test_no_fingerprint_names_another_place_in_the_store():
    for text in ("", "../" + "0" * 61, "0" * 63, "G" * 64, "0" * 64 + "\n"):
        with pytest.raises(ManifestError):
            dataset_prefix(text)


@settings(max_examples=EXAMPLES, deadline=None)
@given(make=st.sampled_from(MADE), tree=trees)
def test_a_good_data_set_survives_whatever_lies_in_its_folder(
    make: Callable[[Path], Path], tree: dict[str, object]
):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "set").mkdir()
        path = make(Path(folder) / "set")
        plant(path if path.is_dir() else path.parent, tree)
        try:
            found = describe(path, split_rule=RULE, workers=1)
        except DatasetError:  # what was planted makes it another, or none
            return
        if found.valid:
            copy, _ = copied(path, Path(folder))
            require_same(path, copy, found)


# Any bytes that a file system takes, also those that are no text.
names = (
    st.binary(min_size=1, max_size=150)
    .map(os.fsdecode)
    .filter(lambda name: name not in (".", "..") and not {"/", "\0"} & set(name))
)


@settings(max_examples=60, deadline=None)
@given(files=st.dictionaries(st.lists(names, min_size=1, max_size=3).map("/".join), contents))
def test_any_files_come_out_of_shards_as_they_went_in(files: dict[str, object]):
    whole = {
        name: content if isinstance(content, bytes) else b"" for name, content in files.items()
    }
    folders = {name.rsplit("/", i)[0] for name in whole for i in range(1, name.count("/") + 1)}
    whole = {name: content for name, content in whole.items() if name not in folders}
    with tempfile.TemporaryDirectory() as folder:
        writer = ShardWriter(Path(folder), shard_bytes=50)
        for name, content in whole.items():
            writer.add_bytes(name, content)
        writer.close()
        for shard in writer.shards:
            unpack_shard(Path(folder) / shard.name, shard, Path(folder) / "out",
                         on_bytes=lambda _: None)  # fmt: skip
        for name, content in whole.items():
            assert (Path(folder) / "out" / name).read_bytes() == content
