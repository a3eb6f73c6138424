"""The sample data sets, made from the digits in the repository.

``digits`` is an image folder of 1,797 handwritten digits, every fifth of them for validation.
``scenes`` is a YOLO data set of 600 scenes composed of those digits, with boxes; a scene for
validation shows only digits that are for validation. The same scenes come with outlines as
``scenes-seg`` (YOLO) and ``scenes-coco`` (COCO), and as ``scenes-masks`` with a mask each.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click

from modelyard.errors import ModelyardError
from modelyard.sample_images import (
    SCENE_SIDE,
    Digit,
    Placed,
    draw_digit,
    draw_scene,
    encode_png,
    read_digits,
)
from modelyard.sample_outlines import area, outline
from modelyard.settings import load_settings

VALIDATION_EVERY = 5  # of the digits in their order, and of the scenes
DIGIT_SIDE = 32  # pixels
SCENES = 600
LICENCE = "CC BY 4.0; Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998"

# sha256 over names and contents of what each sample must hold, see tree_sha256.
SHA256 = {
    "digits": "1e02b025aa04524134d69b81ed62b0862a73736b6b030b1a31bb4ec49390692f",
    "scenes": "8dd80cd08779c31360d3a71de2375b5bcb0e0cd98b95288dc5ce9c61bb05db55",
    "scenes-seg": "e3f7627b526b0702fb36c0d2c21ac0d79c20f95ee83320add85faf15739fedbf",
    "scenes-coco": "1715f525fc998f965bd2df024077b39c4ef310f7991f794706172a0b51425a1b",
    "scenes-masks": "9be0f7ac84dfcf4bef97e909827677f5fb77a99ddd164dce1b07d33305e24520",
}
_MARKER = ".modelyard-sample.json"
_SAMPLE_SUFFIXES = frozenset((".png", ".txt", ".yaml", ".json"))


class SamplesError(ModelyardError):
    """The sample data cannot be made where it was asked for."""


def make_samples(to: Path, *, names: Sequence[str] | None = None) -> dict[str, Path]:
    """Make the sample data sets (or those of some names) below a folder, and return their folders.

    One that is complete is left alone, a torn one is made again, and one of another making is in
    the way: SamplesError.
    """
    try:
        return _make_samples(to, names or tuple(_MAKERS))
    except OSError as failure:
        reason = failure.strerror or "the file system refuses"
        raise SamplesError(f"the samples cannot be made in '{to}': {reason}") from failure


def _make_samples(to: Path, names: Sequence[str]) -> dict[str, Path]:
    to.mkdir(parents=True, exist_ok=True)
    made = {}
    scenes = cache(lambda: list(_scenes()))  # drawn once for all that are made of them
    with (to / ".samples.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two that start at once the second finds all made
        for name in names:
            made[name] = to / name
            if not _is_complete(made[name], name):
                _install(made[name], name, scenes)
    return made


def tree_sha256(folder: Path) -> str:
    """Return a hash over the names and contents of a sample's files."""
    total = hashlib.sha256()
    files = (
        p
        for p in folder.rglob("*")
        if p.suffix in _SAMPLE_SUFFIXES and p.name != _MARKER and p.is_file()
    )
    for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in files):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{digest}  {name}\n".encode())
    return total.hexdigest()


@click.command("samples")
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to make them in; default: 'samples' in the first data root.",
)
def samples_command(to: Path | None) -> None:
    """Make the sample data sets: handwritten digits, and scenes of them with boxes or outlines."""
    for path in make_samples(to or load_settings().data_roots[0] / "samples").values():
        click.echo(path)


def _make_digits(folder: Path, scenes: _Scenes) -> None:
    for digit in read_digits():
        place = folder / _split(digit.index) / str(digit.label) / f"{digit.index:04d}.png"
        _write(place, encode_png(draw_digit(digit, width=DIGIT_SIDE, height=DIGIT_SIDE)))


def _make_scenes(folder: Path, scenes: _Scenes) -> None:
    _make_yolo(folder, scenes, line=lambda digit: digit.box.yolo_line())


def _make_scenes_seg(folder: Path, scenes: _Scenes) -> None:
    _make_yolo(folder, scenes, line=_outline_line)


def _make_yolo(folder: Path, scenes: _Scenes, *, line: Callable[[Placed], str]) -> None:
    for scene in scenes():
        _write(folder / "images" / scene.split / f"{scene.name}.png", encode_png(scene.rows))
        lines = "".join(f"{line(digit)}\n" for digit in scene.digits)
        _write(folder / "labels" / scene.split / f"{scene.name}.txt", lines.encode())
    names = "".join(f"  {digit}: '{digit}'\n" for digit in range(10))
    yaml = f"train: images/train\nval: images/val\nnames:\n{names}"
    _write(folder / "data.yaml", yaml.encode())


def _make_scenes_coco(folder: Path, scenes: _Scenes) -> None:
    categories = [{"id": digit + 1, "name": str(digit)} for digit in range(10)]
    images: dict[str, list[dict[str, object]]] = {"train": [], "val": []}
    annotations: dict[str, list[dict[str, object]]] = {"train": [], "val": []}
    for number, scene in enumerate(scenes(), start=1):
        name = f"{scene.name}.png"
        _write(folder / scene.split / name, encode_png(scene.rows))
        size = {"width": SCENE_SIDE, "height": SCENE_SIDE}
        images[scene.split].append({"id": number, "file_name": name, **size})
        for digit in scene.digits:
            annotation = _coco_annotation(digit, id=len(annotations[scene.split]) + 1)
            annotations[scene.split].append({"image_id": number, **annotation})
    for split in images:
        content = {
            "images": images[split],
            "annotations": annotations[split],
            "categories": categories,
        }
        text = json.dumps(content, separators=(",", ":"))
        _write(folder / "annotations" / f"instances_{split}.json", text.encode())


def _make_scenes_masks(folder: Path, scenes: _Scenes) -> None:
    for scene in scenes():
        mask = [bytearray(SCENE_SIDE) for _ in range(SCENE_SIDE)]
        for digit in scene.digits:
            for x, y in digit.ink():
                mask[y][x] = digit.box.label + 1  # 0 is the background
        _write(folder / "images" / scene.split / f"{scene.name}.png", encode_png(scene.rows))
        _write(
            folder / "masks" / scene.split / f"{scene.name}.png",
            encode_png([bytes(row) for row in mask]),
        )
    names = ["background", *map(str, range(10))]
    _write(folder / "classes.txt", "".join(f"{name}\n" for name in names).encode())


@dataclass(frozen=True)
class _Scene:
    name: str
    split: str
    rows: list[bytes]
    digits: list[Placed]


_Scenes = Callable[[], list[_Scene]]


def _scenes() -> Iterator[_Scene]:
    digits: dict[str, list[Digit]] = {"train": [], "val": []}
    for digit in read_digits():
        digits[_split(digit.index)].append(digit)
    for number in range(SCENES):
        split = _split(number)
        yield _Scene(f"{number:04d}", split, *draw_scene(number, digits[split]))


def _outline_line(digit: Placed) -> str:
    """Return the YOLO label line of a digit's outline, in fractions of the scene."""
    points = " ".join(f"{x / SCENE_SIDE:.6f} {y / SCENE_SIDE:.6f}" for x, y in outline(digit.ink()))
    return f"{digit.box.label} {points}"


def _coco_annotation(digit: Placed, *, id: int) -> dict[str, object]:
    box, points = digit.box, outline(digit.ink())
    return {
        "id": id,
        "category_id": box.label + 1,
        "bbox": [box.left, box.top, box.right - box.left, box.bottom - box.top],
        "segmentation": [[value for point in points for value in point]],
        "area": area(points),
        "iscrowd": 0,
    }


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


_MAKERS: dict[str, Callable[[Path, _Scenes], None]] = {
    "digits": _make_digits,
    "scenes": _make_scenes,
    "scenes-seg": _make_scenes_seg,
    "scenes-coco": _make_scenes_coco,
    "scenes-masks": _make_scenes_masks,
}


def _split(number: int) -> str:
    return "val" if number % VALIDATION_EVERY == 0 else "train"


def _is_complete(folder: Path, name: str) -> bool:
    return (folder / _MARKER).is_file() and tree_sha256(folder) == SHA256[name]


def _install(folder: Path, name: str, scenes: _Scenes) -> None:
    """Make a sample beside its place and move it there whole."""
    if folder.exists() and not (folder / _MARKER).exists() and any(folder.iterdir()):
        raise SamplesError(
            f"'{folder}' is no sample of Modelyard; move it away or choose another folder with --to"
        )
    fresh, torn = folder.with_name(f".{name}.fresh"), folder.with_name(f".{name}.torn")
    for leftover in (fresh, torn):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir()
    _MAKERS[name](fresh, scenes)
    sha256 = tree_sha256(fresh)
    if sha256 != SHA256[name]:
        raise SamplesError(f"sample '{name}' came out as {sha256}, not as {SHA256[name]}")
    marker = {"sample": name, "sha256": sha256, "licence": LICENCE}
    (fresh / _MARKER).write_text(json.dumps(marker) + "\n", encoding="utf-8")
    if folder.exists():
        folder.rename(torn)
    fresh.rename(folder)
    shutil.rmtree(torn, ignore_errors=True)
