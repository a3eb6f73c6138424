# ruff: noqa: PTH113, PTH114, PTH118
# os.path and not pathlib: it answers False where pathlib raises (a name too long), and is faster.
"""Finding the annotation files of a COCO data set and the images that they name.

The usual layouts::

    annotations/instances_train2017.json  annotations/instances_val2017.json  train2017/  val2017/
    train/_annotations.coco.json          valid/_annotations.coco.json        images beside them
    annotations.json                      images/                             (no splits)

A file's kind and split are told by its name, else by its folder's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import product
from pathlib import Path

from adapters.contract import TaskType
from adapters.data.description import DatasetError, Problem
from adapters.data.files import error, relative_name, spellings
from adapters.data.roots import is_inside, printable
from adapters.data.split_names import SPLIT_FOLDERS, split_of, split_word

_LOOKED_AT_BYTES = 64 * 1024
_OTHER_KINDS = ("captions", "image_info")  # of COCO's own files; they outline nothing


class Kind(StrEnum):
    INSTANCES = "instances"
    KEYPOINTS = "keypoints"
    PANOPTIC = "panoptic"
    STUFF = "stuff"


# Of several kinds, the first that is there is read.
_KINDS_OF_TASK: dict[TaskType | None, tuple[Kind, ...]] = {
    TaskType.POSE_ESTIMATION: (Kind.KEYPOINTS, Kind.INSTANCES),
    TaskType.SEMANTIC_SEGMENTATION: (Kind.PANOPTIC, Kind.INSTANCES, Kind.STUFF, Kind.KEYPOINTS),
}
_KINDS = (Kind.INSTANCES, Kind.KEYPOINTS, Kind.PANOPTIC, Kind.STUFF)


_TASKS_TOLD: dict[Kind, tuple[TaskType, ...]] = {
    Kind.INSTANCES: (TaskType.OBJECT_DETECTION, TaskType.IMAGE_CLASSIFICATION),
    Kind.KEYPOINTS: (TaskType.POSE_ESTIMATION,),
    Kind.PANOPTIC: (TaskType.SEMANTIC_SEGMENTATION,),
    Kind.STUFF: (),
}


@dataclass(frozen=True)
class AnnotationFile:
    path: Path
    kind: Kind
    split: str  # train, val, test
    splits_itself: bool  # its name tells no split: it is all that there is
    folders: tuple[Path, ...]  # where its images may lie


def find_annotations(given: Path) -> tuple[Path, list[Path]]:
    """Return a data set's folder and the JSON files in it that may hold its annotations.

    Raises DatasetError where there is none.
    """
    if given.suffix.lower() == ".json" and given.is_file():
        return given.parent, [given]
    if not given.is_dir():
        raise DatasetError(f"'{printable(str(given))}' is neither a folder nor a .json file")
    folders = [given, given / "annotations"]
    folders += [
        entry for entry in sorted(given.iterdir()) if entry.is_dir() and split_of(entry.name)
    ]
    found = [
        file
        for folder in folders
        if folder.is_dir()
        for file in sorted(folder.glob("*.json"))
        if file.is_file() and not file.name.startswith(".")
    ]
    if not found:
        raise DatasetError(
            f"no annotations in '{printable(str(given))}'; COCO has them as "
            "annotations/instances_train.json or train/_annotations.coco.json"
        )
    meant = [f for f in found if _told_split(f, given) or may_be_coco(f, given)]
    return given, meant or found


def _told_split(path: Path, base: Path) -> str | None:
    """Return the split that a file's name tells, or its folder's. Such a file is meant."""
    inner = path.parent != base and path.parent.name != "annotations"
    return split_of(path.stem) or (split_of(path.parent.name) if inner else None)


def may_be_coco(file: Path, base: Path) -> bool:
    """Tell whether a JSON file in a folder may hold annotations, and no list of names, say.

    A large one does. What a link leads to elsewhere is not looked at.
    """
    if not is_inside(os.path.realpath(file), [os.path.realpath(base)]):
        return True
    with file.open("rb") as opened:
        start = opened.read(_LOOKED_AT_BYTES)
    return len(start) == _LOOKED_AT_BYTES or b'"annotations"' in start


def choose_annotations(
    files: Sequence[Path], *, base: Path, task_type: TaskType | None
) -> tuple[list[AnnotationFile], list[Problem]]:
    """Return the files to be read for a task, one a split. Raises DatasetError without any."""
    known = [file for path in files if (file := _described(path, base)) is not None]
    kinds = {file.kind for file in known}
    wanted = next((kind for kind in _KINDS_OF_TASK.get(task_type, _KINDS) if kind in kinds), None)
    of_kind = [file for file in known if file.kind == wanted]
    if any(not file.splits_itself for file in of_kind):
        of_kind = [file for file in of_kind if not file.splits_itself]
    chosen: dict[str, AnnotationFile] = {}
    problems: list[Problem] = []
    for file in of_kind:
        first = chosen.setdefault(file.split, file)
        if first is not file:
            name, other = relative_name(file.path, base), relative_name(first.path, base)
            message = f"'{name}' and '{other}' are both of the split '{file.split}'; keep one"
            problems.append(error("split_twice", message, file=name))
    order = [split for split in ("train", "val", "test") if split in chosen]
    if not order:
        raise DatasetError("none of the .json files holds annotations of objects or segments")
    return [chosen[split] for split in order], problems


def other_annotations(
    files: Sequence[Path], chosen: Sequence[AnnotationFile], *, base: Path
) -> list[AnnotationFile]:
    """Return the files that would be read for another task than what some were chosen for."""
    read = {file.path for file in chosen}
    found: dict[Path, AnnotationFile] = {}
    for task_type in (*_KINDS_OF_TASK, None):
        try:
            of_task, _ = choose_annotations(files, base=base, task_type=task_type)
        except DatasetError:  # none of them is for that task
            continue
        found |= {file.path: file for file in of_task if file.path not in read}
    return list(found.values())


def kinds_told(files: Sequence[Path], base: Path) -> tuple[TaskType, ...]:
    """Return the tasks that names of files tell of, beside those of the files that are read."""
    kinds = {file.kind for path in files if (file := _described(path, base)) is not None}
    return tuple(task for kind in _KINDS if kind in kinds for task in _TASKS_TOLD[kind])


def _described(path: Path, base: Path) -> AnnotationFile | None:
    stem = path.stem.lower()
    if any(word in stem for word in _OTHER_KINDS):
        return None
    kind = next((kind for kind in (*_KINDS[1:], _KINDS[0]) if kind in stem), Kind.INSTANCES)
    word = split_word(path.stem)
    split = _told_split(path, base)
    return AnnotationFile(
        path=path,
        kind=kind,
        split=split or "train",
        splits_itself=split is None,
        folders=_image_folders(path, base, split=split, word=word),
    )


def _image_folders(
    path: Path, base: Path, *, split: str | None, word: str | None
) -> tuple[Path, ...]:
    words = [word, *(w for w, meant in SPLIT_FOLDERS.items() if meant == split)]
    names = list(dict.fromkeys(w for w in words if w))
    places = [path.parent / "images", path.parent]
    places += [base / name for name in names]
    places += [base / "images" / name for name in names]
    places += [base / name / "images" for name in names]
    # CVAT names a subset after nothing that is a split: instances_default.json, images/default.
    places += [base / "images" / path.stem.rpartition("_")[2]]
    places += [base / "images", base]
    return tuple(place for place in dict.fromkeys(places) if place.is_dir())


class ImageFinder:
    """Finds the images that an annotation file names, in one of its folders."""

    def __init__(self, folders: Sequence[Path], *, allowed: Sequence[str]) -> None:
        self._folders = list(folders)
        self._allowed = allowed
        self._real_folder = lru_cache(maxsize=4096)(os.path.realpath)
        self.used: set[Path] = set()  # folders in which an image was found

    def find(self, name: str) -> tuple[Path | None, bool]:
        """Return an image's path, or None and whether its name leads out of the data set."""
        outside = True
        places = product(enumerate(self._folders), spellings(name.replace("\\", "/")))
        for (number, folder), spelling in places:
            place, base = os.path.split(os.path.join(folder, spelling))
            real = os.path.join(self._real_folder(place), base)
            if os.path.islink(real) or base in ("", ".", ".."):
                real = os.path.realpath(real)
            if not is_inside(real, self._allowed):
                continue
            outside = False
            if os.path.isfile(real):
                if number:  # the next image is most likely beside this one
                    self._folders.insert(0, self._folders.pop(number))
                self.used.add(folder)
                return Path(os.path.normpath(os.path.join(place, base))), False
        return None, outside
