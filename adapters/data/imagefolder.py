"""Reading an image folder: train/<class>/… and val/<class>/…, or just <class>/….

Classes are the names of the class folders of all splits together, in natural order ('2' before
'10'), so the id of a class does not depend on which split has it. Images may lie deeper below
their class folder. 'valid' and 'validation' mean 'val'. Where there are only class folders, every
fifth image of each class, by name, is validation: the same images at each reading.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.data.description import DatasetError, Problem, Severity
from adapters.data.files import (
    class_name,
    error,
    list_images,
    natural_key,
    relative_name,
    subfolders,
    warning,
)
from adapters.data.roots import printable, real_paths, unreadable_as_dataset_error

SPLIT_FOLDERS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
HELD_OUT_EVERY = 5  # of class folders without splits, one image in so many is validation


@dataclass(frozen=True)
class ImageFolder:
    """An image folder as its folders and names tell it; no image was opened."""

    path: Path
    classes: tuple[str, ...]
    splits: dict[str, list[tuple[Path, int]]]  # train, val, test: images with their class ids
    problems: tuple[Problem, ...] = ()


def read(path: Path, *, roots: Sequence[Path] = ()) -> ImageFolder:
    """Read an image folder that can be trained on.

    Links must stay in the folder or in ``roots``. Raises DatasetError with the first error that
    the names alone show.
    """
    data = scan(path, roots=roots)
    for problem in data.problems:
        if problem.severity == Severity.ERROR:
            raise DatasetError(problem.message)
    return data


def scan(path: Path, *, roots: Sequence[Path] = ()) -> ImageFolder:
    """Read an image folder with all that its names show to be wrong.

    Raises DatasetError where there is no image folder at all.
    """
    with unreadable_as_dataset_error(path):
        return _scan(Path(os.path.realpath(path)), roots)


def _scan(base: Path, roots: Sequence[Path]) -> ImageFolder:
    shown = printable(str(base))
    if not base.is_dir():
        raise DatasetError(f"'{shown}' is not a folder")
    allowed = real_paths([base, *roots])
    folders, rest = subfolders(base, base=base, allowed=allowed)
    problems = list(rest.problems)
    problems += [_image_without_class(image, base) for image in rest.images]
    split_folders = [f for f in folders if f.name.lower() in SPLIT_FOLDERS]
    if split_folders:
        problems += [_no_split(f, base) for f in folders if f not in split_folders]
        found = _read_splits(split_folders, base=base, allowed=allowed, problems=problems)
    else:
        found = _split_classes(_read_classes(folders, base, allowed, problems))
    if not any(found.values()):
        raise DatasetError(
            f"no class folders in '{shown}'; an image folder has train/<class>/… and val/<class>/…"
        )
    classes = sorted({name for split in found.values() for name in split}, key=natural_key)
    problems += _missing_parts(found, classes)
    return ImageFolder(base, tuple(classes), _with_ids(found, classes), tuple(problems))


# {class name: its images}, of one split
_Classes = dict[str, list[Path]]


def _read_splits(
    folders: Sequence[Path], *, base: Path, allowed: Sequence[str], problems: list[Problem]
) -> dict[str, _Classes]:
    found: dict[str, _Classes] = {}
    for folder in folders:
        split = SPLIT_FOLDERS[folder.name.lower()]
        name = relative_name(folder, base)
        if split in found:
            message = f"'{name}' is a second folder of the split '{split}'; keep one of them"
            problems.append(error("split_twice", message, file=name))
            continue
        class_folders, rest = subfolders(folder, base=base, allowed=allowed)
        problems += rest.problems
        problems += [_image_without_class(image, base) for image in rest.images]
        found[split] = _read_classes(class_folders, base, allowed, problems)
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def _read_classes(
    folders: Sequence[Path], base: Path, allowed: Sequence[str], problems: list[Problem]
) -> _Classes:
    classes: _Classes = {}
    for folder in folders:
        listing = list_images(folder, base=base, allowed=allowed)
        problems += listing.problems
        if not listing.images:
            name = relative_name(folder, base)
            message = f"class folder '{name}' holds no image; fill it or remove it"
            problems.append(error("empty_class", message, file=name))
        classes.setdefault(class_name(folder.name), []).extend(listing.images)
    return classes


def _split_classes(classes: _Classes) -> dict[str, _Classes]:
    if not classes:
        return {}
    nth = HELD_OUT_EVERY
    held_out = {name: images[nth - 1 :: nth] for name, images in classes.items()}
    kept = {
        name: [image for i, image in enumerate(images) if i % nth != nth - 1]
        for name, images in classes.items()
    }
    return {"train": kept, "val": held_out}


def _missing_parts(found: dict[str, _Classes], classes: Sequence[str]) -> list[Problem]:
    problems = []
    for split in ("train", "val"):
        if not any(found.get(split, {}).values()):
            message = (
                f"no image in the split '{split}'; put images in {split}/<class>/, or leave out "
                "the split folders and every fifth image will be validation"
            )
            problems.append(error(f"no_{split}_split", message))
    if len(classes) == 1:
        message = f"only one class, '{classes[0]}'; a classifier needs at least two"
        problems.append(error("single_class", message))
    # An empty folder was told of as such; here it is only about classes that have images elsewhere.
    for split, present in found.items():
        if not any(present.values()):
            continue
        for name in classes:
            if not present.get(name) and any(found[s].get(name) for s in found):
                problems.append(_missing_class(name, split))
    return problems


def _missing_class(name: str, split: str) -> Problem:
    message = f"class '{name}' has no image in the split '{split}'"
    if split == "train":
        return error("missing_class_in_split", f"{message}, so it cannot be learned")
    return warning("missing_class_in_split", f"{message}, so it is not measured there")


def _with_ids(
    found: dict[str, _Classes], classes: Sequence[str]
) -> dict[str, list[tuple[Path, int]]]:
    return {
        split: [(image, i) for i, name in enumerate(classes) for image in present.get(name, ())]
        for split, present in found.items()
    }


def _image_without_class(path: Path, base: Path) -> Problem:
    name = relative_name(path, base)
    message = f"image '{name}' lies in no class folder and is passed over"
    return warning("image_without_class", message, file=name)


def _no_split(folder: Path, base: Path) -> Problem:
    name = relative_name(folder, base)
    message = f"folder '{name}' is beside the split folders but is no split, and is passed over"
    return warning("unknown_folder", message, file=name)
