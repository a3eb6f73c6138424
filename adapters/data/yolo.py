# ruff: noqa: PTH110, PTH112, PTH113, PTH114, PTH117, PTH118
# os.path and not pathlib: it answers False where pathlib raises (a name too long), and is faster.
"""Reading a YOLO data set: its data.yaml, the images of its splits and where their labels lie."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, product
from pathlib import Path

from adapters.contract import TaskType
from adapters.data.description import DatasetError, Problem
from adapters.data.files import (
    IMAGE_SUFFIXES,
    error,
    list_images,
    relative_name,
    spellings,
    warning,
)
from adapters.data.roots import (
    OutsideRoots,
    is_inside,
    printable,
    real_paths,
    unreadable_as_dataset_error,
)
from adapters.data.yolo_labels import detect_task, label_path, labels_outside
from adapters.data.yolo_yaml import YoloYaml, find_yaml, read_yaml

YOLO_SUFFIXES = IMAGE_SUFFIXES - {".gif", ".ppm", ".pgm"}  # what Ultralytics takes, too
_FORMAT_SUFFIXES = frozenset((".txt", ".yaml", ".yml", ".cache", ".md", ".json"))
MAX_LIST_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class Place:
    """A folder or a .txt list that a split names, every link in its path resolved."""

    path: Path
    listed: tuple[Path, ...] | None  # the images that a list names; None: it is a folder


@dataclass(frozen=True)
class YoloData:
    """A YOLO data set as its yaml, folders and lists tell it; no image was opened."""

    path: Path  # the folder that problems name files relative to
    yaml_path: Path
    names: tuple[str, ...]
    splits: dict[str, list[Path]]  # train, val, test: images; see find_label()
    task_type: TaskType
    keypoints: tuple[int, int] | None  # number and dimensions, of a pose data set
    allowed: tuple[str, ...]  # real folders that the data set may reach into
    flip: tuple[int, ...] = ()  # the point that each keypoint becomes in a mirror image
    keypoint_names: tuple[str, ...] = ()
    places: Mapping[str, tuple[Place, ...]] = field(default_factory=dict)  # where splits lie
    problems: tuple[Problem, ...] = ()

    def label(self, image: Path) -> Path:
        """Return where the label of an image lies, whether or not there is one."""
        return label_path(image, self.allowed)

    def find_label(self, image: Path) -> Path | None:
        """Return the label of an image, or None where there is none that may be read."""
        expected = self.label(image)
        for name in spellings(expected.name):
            path = expected.with_name(name)
            real = os.path.realpath(path)
            if is_inside(real, self.allowed) and os.path.isfile(real):
                return path
        return None


def scan(path: Path, *, roots: Sequence[Path] = ()) -> YoloData:
    """Read a YOLO data set with all that yaml, lists and names show to be wrong.

    Raises DatasetError where the yaml cannot be read, OutsideRoots where it names a place that
    is not allowed.
    """
    with unreadable_as_dataset_error(path):
        return _scan(Path(os.path.realpath(path)), roots)


def _scan(given: Path, roots: Sequence[Path]) -> YoloData:
    yaml_path = find_yaml(given)
    base = given if given.is_dir() else given.parent
    allowed = real_paths([base, *roots])
    if not is_inside(os.path.realpath(yaml_path), allowed):
        raise OutsideRoots(f"'{yaml_path.name}' is a link that leads out of the data set's folder")
    description = read_yaml(yaml_path, base=base)
    problems = list(description.problems)
    root = _root(description, allowed)
    splits: dict[str, list[Path]] = {}
    places: dict[str, tuple[Place, ...]] = {}
    for split, parts in description.splits.items():
        reader = _SplitReader(split, root=root, base=base, allowed=allowed, yaml_path=yaml_path)
        images = reader.read(parts)
        problems += reader.problems
        if split == "test" and not reader.places:
            continue  # told of as not there
        splits[split] = images
        places[split] = tuple(reader.places)
    every_image = list(dict.fromkeys(chain.from_iterable(splits.values())))
    problems += _missing_splits(splits, description, base) + _overlap(splits)
    outside = list(labels_outside(every_image, base=base, allowed=allowed))
    labels = () if outside else (label_path(image, allowed) for image in every_image)
    return YoloData(
        path=base,
        yaml_path=yaml_path,
        names=description.names,
        splits=splits,
        task_type=detect_task(labels, keypoints=description.keypoints),
        keypoints=description.keypoints,
        allowed=allowed,
        flip=description.flip,
        keypoint_names=description.keypoint_names,
        places=places,
        problems=(*problems, *outside),
    )


def _root(description: YoloYaml, allowed: Sequence[str]) -> str:
    """Return the folder that the yaml's splits are relative to.

    A relative 'path' that is not there falls back to the yaml's own folder: yamls are written to
    be read from elsewhere ('path: ../datasets/coco8') and lie beside their images all the same.
    """
    own = os.path.realpath(description.path.parent)
    real = os.path.realpath(os.path.join(own, description.root))
    if os.path.isabs(description.root):
        _require_inside(real, description.root, allowed, key="path")
        return real
    return real if is_inside(real, allowed) and os.path.isdir(real) else own


def _require_inside(real: str, text: str, allowed: Sequence[str], *, key: str) -> None:
    if not is_inside(real, allowed):
        elsewhere = "leave out 'path' where the images lie beside the yaml, or "
        raise OutsideRoots(
            f"'{key}: {printable(text)}' leads out of the data set's folder; "
            f"{elsewhere if key == 'path' else ''}"
            "register the folder that holds both the yaml and the images"
        )


class _SplitReader:
    """Reads the folders and lists of one split, collecting what is wrong with them."""

    def __init__(
        self, split: str, *, root: str, base: Path, allowed: Sequence[str], yaml_path: Path
    ) -> None:
        self.problems: list[Problem] = []
        self.places: list[Place] = []
        self._split = split
        self._root = root
        self._base = base
        self._allowed = allowed
        self._yaml = relative_name(yaml_path, base)
        self._real_folder = lru_cache(maxsize=4096)(os.path.realpath)

    def read(self, parts: Sequence[str]) -> list[Path]:
        images: dict[Path, None] = {}  # in order, each once
        for part in parts:
            place = self._place(part)
            if place is None:
                self._tell_absent(f"'{self._split}: {printable(part)}' in '{self._yaml}'")
            elif place.is_dir():
                images.update(dict.fromkeys(self._folder(place)))
                self.places.append(Place(place, None))
            elif place.suffix.lower() == ".txt" and place.is_file():
                listed = self._list(place)
                images.update(dict.fromkeys(listed))
                self.places.append(Place(place, tuple(listed)))
            else:
                message = f"'{self._split}: {printable(part)}' must be a folder or a .txt list"
                self.problems.append(error("split_not_found", message, file=self._yaml))
        return list(images)

    def _tell_absent(self, what: str) -> None:
        if self._split == "test":  # nothing is trained on it, and exports name it without any image
            message = f"{what} is not there; nothing is tested"
            self.problems.append(warning("split_not_found", message, file=self._yaml))
            return
        hint = "; leave out 'val' and images are held out of train" if self._split == "val" else ""
        message = f"{what} is not there{hint}"
        self.problems.append(error("split_not_found", message, file=self._yaml))

    def _place(self, part: str) -> Path | None:
        """Return the folder or file that a part of a split names, or None where it is not there."""
        candidates = [part]
        if part.startswith("../"):  # Roboflow writes one '../' too many, Ultralytics drops it
            candidates.append(part[3:])
        places = [os.path.realpath(os.path.join(self._root, text)) for text in candidates]
        for text in chain.from_iterable(map(spellings, candidates)):
            place = os.path.realpath(os.path.join(self._root, text))
            if is_inside(place, self._allowed) and os.path.exists(place):
                return Path(place)
        # Roboflow names a test split that way whether or not there is one.
        meant = places[-1] if self._split == "test" else places[0]
        _require_inside(meant, part, self._allowed, key=self._split)
        return None

    def _folder(self, folder: Path) -> list[Path]:
        listing = list_images(
            folder,
            base=self._base,
            allowed=self._allowed,
            suffixes=YOLO_SUFFIXES,
            known=_FORMAT_SUFFIXES,
        )
        self.problems += listing.problems
        return listing.images

    def _list(self, file: Path) -> list[Path]:
        shown = relative_name(file, self._base)
        if file.stat().st_size > MAX_LIST_BYTES:
            raise DatasetError(f"'{shown}' is larger than {MAX_LIST_BYTES // 2**20} MB")
        try:
            lines = file.read_text("utf-8-sig").split("\n")
        except UnicodeDecodeError:
            raise DatasetError(f"'{shown}' is not UTF-8 text") from None
        images = []
        for number, line in enumerate(lines, start=1):
            if line.strip():
                image = self._listed(line.strip(), file, shown=shown, line=number)
                if image is not None:
                    images.append(image)
        return images

    def _listed(self, text: str, file: Path, *, shown: str, line: int) -> Path | None:
        if "\0" in text:
            message = f"line {line} of '{shown}' is not a path"
            self.problems.append(error("image_not_found", message, file=shown, line=line))
            return None
        # './' is meant from the list; other relative lines from the data set's root or the list.
        starts = [file.parent] if text.startswith("./") else [Path(self._root), file.parent]
        outside = True
        for start, spelling in product(starts, spellings(text)):
            folder, name = os.path.split(os.path.join(start, spelling))
            real = os.path.join(self._real_folder(folder), name)
            if os.path.islink(real) or name in ("..", "."):
                real = os.path.realpath(real)
            if not is_inside(real, self._allowed):
                continue
            outside = False
            if os.path.isfile(real) and Path(real).suffix.lower() in YOLO_SUFFIXES:
                return Path(real)
        code = "link_outside" if outside else "image_not_found"
        reason = "leads out of the data set's folder" if outside else "is no image that is there"
        message = f"line {line} of '{shown}': '{printable(text)}' {reason}"
        self.problems.append(error(code, message, file=shown, line=line))
        return None


def _missing_splits(
    splits: dict[str, list[Path]], description: YoloYaml, base: Path
) -> list[Problem]:
    problems = []
    shown = relative_name(description.path, base)
    for split in ("train", "val"):
        if split == "val" and split not in splits:
            continue  # it is held out of train
        if not splits.get(split):
            message = f"no image in the split '{split}'; name its folder as '{split}' in '{shown}'"
            problems.append(error(f"no_{split}_split", message, file=shown))
    return problems


def _overlap(splits: dict[str, list[Path]]) -> list[Problem]:
    train = set(splits.get("train", ()))
    problems = []
    for split in ("val", "test"):
        shared = train.intersection(splits.get(split, ()))
        if shared:
            message = f"{len(shared)} images of '{split}' are in 'train' too, so it flatters"
            problems.append(warning("splits_overlap", message))
    return problems
