"""Reading an image folder: train/<class>/… and val/<class>/…, or just <class>/….

Classes are the names of the class folders of all splits together, in natural order ('2' before
'10'), so the id of a class does not depend on which split has it. Images may lie deeper below
their class folder. 'valid' and 'validation' mean 'val'. Where there is no val folder, images are
held out of train by :mod:`adapters.data.split`.

A split's folder, or the data set's own, may hold a labels.csv in place of class folders: then an
image may have any number of classes. See :mod:`adapters.data.labels_csv`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.contract import DatasetFormat, TaskType
from adapters.data.content import Annotation, Content, Object, Sample, SplitRule
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
from adapters.data.labels_csv import LABELS_CSV, has_labels_csv, read_labels_csv
from adapters.data.roots import printable, real_paths, unreadable_as_dataset_error
from adapters.data.split import hold_out
from adapters.data.split_names import SPLIT_FOLDERS, SPLITS, split_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageFolderContent(Content):
    """Images with classes and nothing else."""

    csv_files: tuple[Path, ...] = ()  # the labels.csv of splits that have one

    def annotation_files(self) -> list[Path]:
        return list(self.csv_files)

    def objects(self, sample: Sample) -> list[Object]:
        raise DatasetError("an image folder names classes of images and has no objects in them")

    def mask(self, sample: Sample) -> NDArray[np.uint8]:
        raise DatasetError("an image folder names classes of images and has no masks")

    def check(self, sample: Sample, *, size: tuple[int, int] | None) -> Annotation:
        names = "|".join(self.classes[label] for label in sample.classes)
        return Annotation(hashlib.sha256(names.encode()).hexdigest(), classes=sample.classes)


def scan(
    path: Path, *, split_rule: SplitRule | None = None, roots: Sequence[Path] = ()
) -> ImageFolderContent:
    """Read an image folder with all that its names show to be wrong.

    Links must stay in the folder or in ``roots``. Raises DatasetError where there is no image
    folder at all.
    """
    with unreadable_as_dataset_error(path):
        return _Scan(Path(os.path.realpath(path)), roots).content(split_rule or SplitRule())


class _Scan:
    """Reads an image folder, collecting what is wrong with it."""

    def __init__(self, base: Path, roots: Sequence[Path]) -> None:
        if not base.is_dir():
            raise DatasetError(f"'{printable(str(base))}' is not a folder")
        self._base = base
        self._allowed = real_paths([base, *roots])
        self._problems: list[Problem] = []
        self._with_csv: list[str] = []  # splits that have a labels.csv
        self._csv_files: list[Path] = []
        self._with_folders: list[str] = []
        self._split_folders: list[Path] = []

    def content(self, rule: SplitRule) -> ImageFolderContent:
        found = self._splits()
        told = any(problem.severity == Severity.ERROR for problem in self._problems)
        if not any(found.values()) and not told:
            raise DatasetError(
                f"no class folders in '{printable(str(self._base))}'; an image folder has "
                f"train/<class>/… and val/<class>/…, or a {LABELS_CSV} that names its images"
            )
        if self._with_csv and self._with_folders:
            message = (
                f"'{self._with_csv[0]}' has a {LABELS_CSV} and '{self._with_folders[0]}' has none; "
                "give each split one, or none"
            )
            self._problems.append(error("labels_csv_missing", message))
        classes = sorted(
            {n for items in found.values() for _, ns in items for n in ns}, key=natural_key
        )
        splits = _with_ids(found, classes)
        held_out = bool(splits.get("train")) and "val" not in splits
        if held_out:
            splits |= hold_out(splits["train"], base=self._base, rule=rule)
        splits = {split: splits[split] for split in SPLITS if split in splits}
        self._missing_parts(splits, classes)
        return ImageFolderContent(
            path=self._base,
            format=DatasetFormat.IMAGEFOLDER,
            task_type=TaskType.IMAGE_CLASSIFICATION,
            task_types=(TaskType.IMAGE_CLASSIFICATION,),
            classes=tuple(classes),
            splits=splits,
            multi_label=bool(self._with_csv),
            split_rule=rule if held_out else None,
            problems=tuple(self._problems),
            csv_files=tuple(self._csv_files),
        )

    def _splits(self) -> dict[str, _Named]:
        """Return the images of each split with the names of their classes."""
        folders, rest = subfolders(self._base, base=self._base, allowed=self._allowed)
        self._split_folders = [f for f in folders if f.name.lower() in SPLIT_FOLDERS]
        if not self._split_folders:
            if len(folders) > 1 and all(split_of(folder.name) for folder in folders):
                listed = " and ".join(f"'{printable(folder.name)}'" for folder in folders)
                raise DatasetError(
                    f"{listed} seem to be splits and not classes; name the folders of splits "
                    "'train', 'val' and 'test'"
                )
            self._rest(rest.images, rest.problems, folder=self._base)
            return {"train": self._split("train", self._base, folders)}
        beside = [problem for problem in rest.problems if problem.file != LABELS_CSV]
        self._rest(rest.images, beside, folder=None)
        if has_labels_csv(self._base):
            message = (
                f"'{LABELS_CSV}' lies beside the folders of the splits; put one into each of them"
            )
            self._problems.append(error("labels_csv_missing", message, file=LABELS_CSV))
        self._problems += [self._no_split(f) for f in folders if f not in self._split_folders]
        found: dict[str, _Named] = {}
        for folder in self._split_folders:
            split = SPLIT_FOLDERS[folder.name.lower()]
            if split in found:
                name = relative_name(folder, self._base)
                message = f"'{name}' is a second folder of the split '{split}'; keep one of them"
                self._problems.append(error("split_twice", message, file=name))
                continue
            inner, rest = subfolders(folder, base=self._base, allowed=self._allowed)
            self._rest(rest.images, rest.problems, folder=folder)
            found[split] = self._split(split, folder, inner)
        return found

    def _split(self, split: str, folder: Path, inner: Sequence[Path]) -> _Named:
        if has_labels_csv(folder):
            self._with_csv.append(split)
            self._csv_files.append(folder / LABELS_CSV)
            named, problems = read_labels_csv(folder, base=self._base, allowed=self._allowed)
            self._problems += problems
            return named
        classes = self._classes(inner)
        if classes:
            self._with_folders.append(split)
        return [(image, (name,)) for image, name in classes]

    def _classes(self, folders: Sequence[Path]) -> list[tuple[Path, str]]:
        found: list[tuple[Path, str]] = []
        for folder in folders:
            listing = list_images(folder, base=self._base, allowed=self._allowed)
            self._problems += listing.problems
            if not listing.images:
                name = relative_name(folder, self._base)
                message = f"class folder '{name}' holds no image; fill it or remove it"
                self._problems.append(error("empty_class", message, file=name))
            found += [(image, class_name(folder.name)) for image in listing.images]
        return found

    def _rest(
        self, images: Sequence[Path], problems: Sequence[Problem], *, folder: Path | None
    ) -> None:
        """Take up what lies beside the class folders; a labels.csv tells of images itself."""
        if folder is not None and has_labels_csv(folder):
            return
        self._problems += problems
        self._problems += [self._image_without_class(image) for image in images]

    def _missing_parts(self, splits: dict[str, list[Sample]], classes: Sequence[str]) -> None:
        for split in ("train", "val"):
            if not splits.get(split):
                message = (
                    f"no image in the split '{split}'; put images in {split}/<class>/, or leave "
                    "out the folder 'val' and images are held out of train"
                )
                self._problems.append(error(f"no_{split}_split", message))
        if len(classes) == 1 and not self._with_csv:
            message = f"only one class, '{classes[0]}'; a classifier needs at least two"
            if self._deep_in_one_folder(splits):
                message += "; where the folders in it are the classes, name their folder instead"
            self._problems.append(error("single_class", message))
        if not classes:
            self._problems.append(error("no_labels", "no image has a class"))
        for split, samples in splits.items():
            present = {label for sample in samples for label in sample.classes}
            # An empty folder was told of as such.
            absent = set(range(len(classes))) - present if samples else set()
            self._problems += [_missing_class(classes[label], split) for label in sorted(absent)]

    def _deep_in_one_folder(self, splits: dict[str, list[Sample]]) -> bool:
        """Tell whether the only class folder holds several folders and no image itself."""
        parts = {
            sample.image.parent.relative_to(self._base).parts[:2]
            for samples in splits.values()
            for sample in samples
        }
        return not self._split_folders and len(parts) > 1 and all(len(part) > 1 for part in parts)

    def _image_without_class(self, path: Path) -> Problem:
        name = relative_name(path, self._base)
        message = f"image '{name}' lies in no class folder and is passed over"
        return warning("image_without_class", message, file=name)

    def _no_split(self, folder: Path) -> Problem:
        name = relative_name(folder, self._base)
        message = f"folder '{name}' is beside the split folders but is no split, and is passed over"
        return warning("unknown_folder", message, file=name)


# Images with the names of their classes.
_Named = list[tuple[Path, tuple[str, ...]]]


def _missing_class(name: str, split: str) -> Problem:
    message = f"class '{name}' has no image in the split '{split}'"
    if split == "train":
        return error("missing_class_in_split", f"{message}, so it cannot be learned")
    return warning("missing_class_in_split", f"{message}, so it is not measured there")


def _with_ids(found: dict[str, _Named], classes: Sequence[str]) -> dict[str, list[Sample]]:
    """Return samples by class and, within one, by name; by name where there are several."""
    ids = {name: number for number, name in enumerate(classes)}
    splits = {}
    for split, items in found.items():
        samples = [Sample(image, tuple(sorted(ids[n] for n in names))) for image, names in items]
        if all(len(sample.classes) == 1 for sample in samples):
            samples.sort(key=lambda sample: sample.classes)
        splits[split] = samples
    return splits
