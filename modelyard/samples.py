"""The sample data sets, made from the digits in the repository.

``digits`` is an image folder of 1,797 handwritten digits, every fifth of them for validation.
``scenes`` is a YOLO data set of 600 scenes composed of those digits, with boxes; a scene for
validation shows only digits that are for validation.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import click

from modelyard.errors import ModelyardError
from modelyard.sample_images import Digit, draw_digit, draw_scene, encode_png, read_digits
from modelyard.settings import load_settings

VALIDATION_EVERY = 5  # of the digits in their order, and of the scenes
DIGIT_SIDE = 32  # pixels
SCENES = 600
LICENCE = "CC BY 4.0; Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998"

# sha256 over names and contents of what each sample must hold, see tree_sha256.
SHA256 = {
    "digits": "1e02b025aa04524134d69b81ed62b0862a73736b6b030b1a31bb4ec49390692f",
    "scenes": "8dd80cd08779c31360d3a71de2375b5bcb0e0cd98b95288dc5ce9c61bb05db55",
}
_MARKER = ".modelyard-sample.json"
_SAMPLE_SUFFIXES = frozenset((".png", ".txt", ".yaml"))


class SamplesError(ModelyardError):
    """The sample data cannot be made where it was asked for."""


def make_samples(to: Path) -> dict[str, Path]:
    """Make the sample data sets below a folder and return the folder of each by name.

    One that is complete is left alone, a torn one is made again, and one of another making is in
    the way: SamplesError.
    """
    try:
        return _make_samples(to)
    except OSError as failure:
        reason = failure.strerror or "the file system refuses"
        raise SamplesError(f"the samples cannot be made in '{to}': {reason}") from failure


def _make_samples(to: Path) -> dict[str, Path]:
    to.mkdir(parents=True, exist_ok=True)
    made = {}
    with (to / ".samples.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two that start at once the second finds all made
        for name, make in _MAKERS.items():
            made[name] = to / name
            if not _is_complete(made[name], name):
                _install(made[name], name, make)
    return made


def tree_sha256(folder: Path) -> str:
    """Return a hash over the names and contents of a sample's files."""
    total = hashlib.sha256()
    files = (p for p in folder.rglob("*") if p.suffix in _SAMPLE_SUFFIXES and p.is_file())
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
    """Make the sample data sets: handwritten digits, and scenes of them with boxes."""
    for path in make_samples(to or load_settings().data_roots[0] / "samples").values():
        click.echo(path)


def _make_digits(folder: Path) -> None:
    for digit in read_digits():
        place = folder / _split(digit.index) / str(digit.label) / f"{digit.index:04d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(encode_png(draw_digit(digit, width=DIGIT_SIDE, height=DIGIT_SIDE)))


def _make_scenes(folder: Path) -> None:
    digits: dict[str, list[Digit]] = {"train": [], "val": []}
    for digit in read_digits():
        digits[_split(digit.index)].append(digit)
    for split in digits:
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
    for number in range(SCENES):
        split = _split(number)
        rows, boxes = draw_scene(number, digits[split])
        lines = "".join(f"{box.yolo_line()}\n" for box in boxes)
        (folder / "images" / split / f"{number:04d}.png").write_bytes(encode_png(rows))
        (folder / "labels" / split / f"{number:04d}.txt").write_text(lines, encoding="ascii")
    names = "".join(f"  {digit}: '{digit}'\n" for digit in range(10))
    yaml = f"train: images/train\nval: images/val\nnames:\n{names}"
    (folder / "data.yaml").write_text(yaml, encoding="ascii")


_MAKERS: dict[str, Callable[[Path], None]] = {"digits": _make_digits, "scenes": _make_scenes}


def _split(number: int) -> str:
    return "val" if number % VALIDATION_EVERY == 0 else "train"


def _is_complete(folder: Path, name: str) -> bool:
    return (folder / _MARKER).is_file() and tree_sha256(folder) == SHA256[name]


def _install(folder: Path, name: str, make: Callable[[Path], None]) -> None:
    """Make a sample beside its place and move it there whole."""
    if folder.exists() and not (folder / _MARKER).exists() and any(folder.iterdir()):
        raise SamplesError(
            f"'{folder}' is no sample of Modelyard; move it away or choose another folder with --to"
        )
    fresh, torn = folder.with_name(f".{name}.fresh"), folder.with_name(f".{name}.torn")
    for leftover in (fresh, torn):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir()
    make(fresh)
    sha256 = tree_sha256(fresh)
    if sha256 != SHA256[name]:
        raise SamplesError(f"sample '{name}' came out as {sha256}, not as {SHA256[name]}")
    marker = {"sample": name, "sha256": sha256, "licence": LICENCE}
    (fresh / _MARKER).write_text(json.dumps(marker) + "\n", encoding="utf-8")
    if folder.exists():
        folder.rename(torn)
    fresh.rename(folder)
    shutil.rmtree(torn, ignore_errors=True)
