"""The sample data sets: the same bytes each time, whole or made again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from modelyard.sample_images import DIGITS_FILE, read_digits
from modelyard.sample_outlines import outline
from modelyard.samples import SHA256, SamplesError, make_samples, tree_sha256


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What the command prints that makes all samples."""
    folder = tmp_path_factory.mktemp("samples")
    command = [sys.executable, "-m", "modelyard", "samples", "--to", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [Path(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def samples(printed: list[Path]) -> dict[str, Path]:
    return {path.name: path for path in printed}


@pytest.fixture(scope="module")
def two(samples: dict[str, Path]) -> dict[str, Path]:
    return {name: samples[name] for name in ("digits", "scenes")}


@pytest.fixture
def copies(two: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    return {name: shutil.copytree(folder, tmp_path / name) for name, folder in two.items()}


def test_the_source_holds_all_digits_and_is_small():
    digits = read_digits()
    assert len(digits) == 1797
    assert {digit.label for digit in digits} == set(range(10))
    assert {value for digit in digits for row in digit.pixels for value in row} == set(range(17))
    assert DIGITS_FILE.stat().st_size < 60_000


@pytest.mark.parametrize("name", SHA256)
def test_a_sample_has_the_bytes_it_always_had(samples: dict[str, Path], name: str):
    assert tree_sha256(samples[name]) == SHA256[name]


def test_every_fifth_digit_is_for_validation(samples: dict[str, Path]):
    train = {path.stem for path in samples["digits"].glob("train/*/*.png")}
    val = {path.stem for path in samples["digits"].glob("val/*/*.png")}
    assert (len(train), len(val)) == (1437, 360)
    assert val == {f"{index:04d}" for index in range(0, 1797, 5)}


def test_a_digit_is_the_enlarged_source(samples: dict[str, Path]):
    digit = read_digits()[1]
    with Image.open(samples["digits"] / "train" / str(digit.label) / "0001.png") as image:
        assert (image.size, image.mode) == ((32, 32), "L")
        small = image.resize((8, 8), Image.Resampling.BOX)
        # The mean of an enlarged pixel stays near the pixel it came from.
        for y, row in enumerate(digit.pixels):
            for x, value in enumerate(row):
                assert abs(small.getpixel((x, y)) - value * 255 / 16) < 90


def test_every_box_of_a_scene_lies_in_it_and_holds_ink(samples: dict[str, Path]):
    labels = sorted(samples["scenes"].glob("labels/*/*.txt"))
    assert len(labels) == 600
    for label in labels[::20]:
        image_path = samples["scenes"] / "images" / label.parent.name / f"{label.stem}.png"
        lines = label.read_text().splitlines()
        assert 3 <= len(lines) <= 8
        with Image.open(image_path) as image:
            assert image.size == (160, 160)
            for line in lines:
                number, x, y, width, height = map(float, line.split())
                box = [
                    round(160 * edge)
                    for edge in (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
                ]
                assert number in range(10)
                assert min(box) >= 0
                assert max(box) <= 160
                darkest, brightest = image.crop(tuple(box)).getextrema()
                assert brightest - darkest > 40


def test_a_complete_sample_is_left_alone(copies: dict[str, Path], tmp_path: Path):
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    assert make_samples(tmp_path, names=tuple(copies)) == copies
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == before


def test_a_torn_sample_is_made_again(copies: dict[str, Path], tmp_path: Path):
    (copies["digits"] / "val" / "0" / "0000.png").unlink()
    torn = copies["digits"] / "train" / "1" / "0001.png"
    torn.write_bytes(torn.read_bytes()[:100])
    (tmp_path / ".digits.fresh" / "train").mkdir(parents=True)  # of one that was killed
    make_samples(tmp_path, names=tuple(copies))
    assert tree_sha256(copies["digits"]) == SHA256["digits"]
    assert {path.name for path in tmp_path.iterdir()} == {"digits", "scenes", ".samples.lock"}


def test_a_folder_of_another_making_is_not_overwritten(tmp_path: Path):
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "thesis.txt").write_text("three years")
    with pytest.raises(SamplesError, match="no sample of Modelyard"):
        make_samples(tmp_path)
    assert (tmp_path / "digits" / "thesis.txt").read_text() == "three years"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SamplesError, match=f"cannot be made in '{tmp_path}/file'"):
        make_samples(tmp_path / "file")


def test_the_command_prints_where_the_samples_lie(printed: list[Path]):
    assert printed == [printed[0].parent / name for name in SHA256]
    assert all(path.is_dir() for path in printed)


def test_an_outline_covers_what_its_mask_covers(samples: dict[str, Path]):
    name = "train/0001"
    with Image.open(samples["scenes-masks"] / "masks" / f"{name}.png") as mask:
        painted = [value for value in mask.get_flattened_data() if value]
    covered = 0
    for line in (samples["scenes-seg"] / "labels" / f"{name}.txt").read_text().splitlines():
        number, *values = line.split()
        points = [round(float(value) * 160) for value in values]
        outlined = Image.new("L", (160, 160))
        # Pillow fills to the pixels of the last corner, which lie just outside.
        ImageDraw.Draw(outlined).polygon(points, fill=1)
        with Image.open(samples["scenes-masks"] / "masks" / f"{name}.png") as mask:
            ink = [value == int(number) + 1 for value in mask.get_flattened_data()]
        inside = list(outlined.get_flattened_data())
        covered += sum(1 for a, b in zip(ink, inside, strict=True) if a and b)
    assert covered >= 0.97 * len(painted)


def test_coco_says_of_the_scenes_what_yolo_says(samples: dict[str, Path]):
    coco = json.loads((samples["scenes-coco"] / "annotations/instances_val.json").read_text())
    assert [category["id"] for category in coco["categories"]] == list(range(1, 11))
    for image in coco["images"][::30]:
        stem = Path(image["file_name"]).stem
        lines = (samples["scenes"] / "labels/val" / f"{stem}.txt").read_text().splitlines()
        annotations = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        assert len(annotations) == len(lines)
        for annotation, line in zip(annotations, lines, strict=True):
            number, x, y, width, height = map(float, line.split())
            box = [160 * value for value in (x - width / 2, y - height / 2, width, height)]
            assert annotation["category_id"] == number + 1
            assert annotation["bbox"] == pytest.approx(box, abs=1e-3)
            assert 0 < annotation["area"] <= annotation["bbox"][2] * annotation["bbox"][3]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (["#"], [(0, 0), (1, 0), (1, 1), (0, 1)]),
        (["###", "# #", "###"], [(0, 0), (3, 0), (3, 3), (0, 3)]),
        (["##  ", "   #"], [(0, 0), (2, 0), (2, 1), (0, 1)]),
        (["# ", "##"], [(0, 0), (1, 0), (1, 1), (2, 1), (2, 2), (0, 2)]),
    ],
    ids=["one pixel", "a ring", "the larger of two", "a step"],
)
def test_an_outline_follows_the_edges_of_pixels(shape: list[str], expected: list[tuple[int, int]]):
    ink = [(x, y) for y, row in enumerate(shape) for x, value in enumerate(row) if value == "#"]
    found = outline(ink)
    start = found.index(expected[0])
    assert found[start:] + found[:start] == expected


def test_samples_need_no_library_but_click_and_dotenv():
    code = (
        "import sys, modelyard.samples; "
        "assert not {'numpy', 'PIL', 'sklearn', 'torch'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
