"""Reading folders of images and masks: images/<split>/… and masks/<split>/…, of the same stems.

A mask is a PNG of its image's size with 8 bits a pixel, gray or with a palette; a pixel's value is
the id of its class, and 255 is ignored. The classes stand in classes.txt, one a line from id 0 on,
or in classes.json, a list of names or a mapping from id to name. Where there are no folders of
splits, or none of 'val', images are held out of train; by their names alone, for their classes
are known only from the pixels.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adapters.contract import DatasetFormat, TaskType
from adapters.data.content import IGNORED, Annotation, Content, Object, Sample, SplitRule
from adapters.data.description import DatasetError, Problem
from adapters.data.files import (
    composed,
    error,
    list_images,
    relative_name,
    subfolders,
    warning,
)
from adapters.data.images import read_mask
from adapters.data.mask_classes import class_file, read_class_names
from adapters.data.roots import is_inside, printable, real_paths, unreadable_as_dataset_error
from adapters.data.split import hold_out
from adapters.data.split_names import SPLIT_FOLDERS, SPLITS

IMAGES, MASKS = "images", "masks"


@dataclass(frozen=True)
class MasksContent(Content):
    """The key of a sample is its mask."""

    splits_by_class = False

    def annotation_files(self) -> list[Path]:
        return [class_file(self.path)]

    def objects(self, sample: Sample) -> list[Object]:
        raise DatasetError("a data set of masks tells the classes of pixels and has no objects")

    def mask(self, sample: Sample) -> NDArray[np.uint8]:
        assert isinstance(sample.key, Path)
        mask = np.asarray(read_mask(sample.key, mode="L"))
        if bool(((mask >= len(self.classes)) & (mask != IGNORED)).any()):
            name = relative_name(sample.key, self.path)
            raise DatasetError(f"'{name}' has a class id above {len(self.classes) - 1}")
        return mask

    def check(self, sample: Sample, *, size: tuple[int, int] | None) -> Annotation:
        assert isinstance(sample.key, Path)
        name = relative_name(sample.key, self.path)
        try:
            mask = read_mask(sample.key, mode="L")
        except DatasetError as failure:
            problem = error("unreadable_mask", f"'{name}': {failure}", file=name)
            return Annotation("", problems=(problem,))
        present = [id for id, pixels in enumerate(mask.histogram()) if pixels and id != IGNORED]
        problems = []
        wrong = [id for id in present if id >= len(self.classes)]
        if wrong:
            listed = ", ".join(map(str, wrong[:5]))
            message = (
                f"'{name}' has pixels of class {listed}, but the classes are "
                f"0 to {len(self.classes) - 1} ({IGNORED}: ignored)"
            )
            problems.append(error("label_out_of_range", message, file=name))
        if size is not None and mask.size != size:
            message = (
                f"'{name}' has {mask.width} × {mask.height} pixels and its image "
                f"{size[0]} × {size[1]}"
            )
            problems.append(error("mask_size_differs", message, file=name))
        digest = hashlib.sha256(f"{mask.size}".encode() + mask.tobytes()).hexdigest()
        classes = tuple(id for id in present if id not in wrong)
        return Annotation(digest, classes=classes, problems=tuple(problems))


def scan(
    path: Path,
    *,
    task_type: TaskType | None = None,
    split_rule: SplitRule | None = None,
    roots: Sequence[Path] = (),
) -> MasksContent:
    """Read folders of images and masks with all that their names show to be wrong.

    Raises DatasetError where there are no such folders, or the classes have no names.
    """
    with unreadable_as_dataset_error(path):
        return _Scan(Path(os.path.realpath(path)), roots).content(split_rule or SplitRule())


class _Scan:
    """Reads folders of images and masks, collecting what is wrong with them."""

    def __init__(self, base: Path, roots: Sequence[Path]) -> None:
        self._base = base
        self._allowed = real_paths([base, *roots])
        self._problems: list[Problem] = []

    def content(self, rule: SplitRule) -> MasksContent:
        for name in (IMAGES, MASKS):
            if not (self._base / name).is_dir():
                raise DatasetError(
                    f"no folder '{name}' in '{printable(str(self._base))}'; this format has "
                    f"{IMAGES}/<split>/… and {MASKS}/<split>/…"
                )
        classes, problems = read_class_names(self._base, allowed=self._allowed)
        self._problems += problems
        images = self._files(IMAGES)
        masks = self._files(MASKS)
        splits = {
            split: self._pairs(images.get(split, []), masks.get(split, []), split)
            for split in SPLITS
            if split in images or split in masks
        }
        held_out = bool(splits.get("train")) and "val" not in splits
        if held_out:
            splits |= hold_out(splits["train"], base=self._base, rule=rule)
        for split in ("train", "val"):
            if not splits.get(split):
                message = f"no image of the split '{split}' has a mask"
                self._problems.append(error(f"no_{split}_split", message))
        return MasksContent(
            path=self._base,
            format=DatasetFormat.MASKS,
            task_type=TaskType.SEMANTIC_SEGMENTATION,
            task_types=(TaskType.SEMANTIC_SEGMENTATION,),
            classes=classes,
            splits={split: splits[split] for split in SPLITS if split in splits},
            split_rule=rule if held_out else None,
            problems=tuple(self._problems),
        )

    def _files(self, kind: str) -> dict[str, list[tuple[str, Path]]]:
        """Return the images or masks of each split, with their names without ending."""
        top = self._base / kind
        if not is_inside(os.path.realpath(top), self._allowed):
            raise DatasetError(f"'{kind}' is a link that leads out of the data set's folder")
        folders, rest = subfolders(top, base=self._base, allowed=self._allowed)
        of_splits = [folder for folder in folders if folder.name.lower() in SPLIT_FOLDERS]
        if not of_splits:
            return {"train": self._listed(top, kind)}
        found: dict[str, list[tuple[str, Path]]] = {}
        self._problems += rest.problems
        for folder in of_splits:
            split = SPLIT_FOLDERS[folder.name.lower()]
            if split in found:
                name = relative_name(folder, self._base)
                message = f"'{name}' is a second folder of the split '{split}'; keep one of them"
                self._problems.append(error("split_twice", message, file=name))
                continue
            found[split] = self._listed(folder, kind)
        for path in (*rest.images, *(f for f in folders if f not in of_splits)):
            name = relative_name(path, self._base)
            message = f"'{name}' is beside the split folders, in none, and is passed over"
            self._problems.append(warning("unknown_folder", message, file=name))
        return found

    def _listed(self, folder: Path, kind: str) -> list[tuple[str, Path]]:
        listing = list_images(folder, base=self._base, allowed=self._allowed)
        self._problems += listing.problems
        found = []
        for path in listing.images:
            if kind == MASKS and path.suffix.lower() != ".png":
                name = relative_name(path, self._base)
                message = f"mask '{name}' must be a PNG: other forms change the class ids"
                self._problems.append(error("mask_not_png", message, file=name))
                continue
            found.append((os.path.relpath(path.with_suffix(""), folder), path))
        return found

    def _pairs(
        self, images: Sequence[tuple[str, Path]], masks: Sequence[tuple[str, Path]], split: str
    ) -> list[Sample]:
        waiting = {composed(stem): mask for stem, mask in masks}
        samples: list[Sample] = []
        seen: set[str] = set()
        for stem, image in images:
            name = relative_name(image, self._base)
            key = composed(stem)
            if key in seen:
                message = f"'{name}' has the name of another image but for its ending"
                self._problems.append(error("image_named_twice", message, file=name))
                continue
            seen.add(key)
            mask = waiting.pop(key, None)
            if mask is None:
                message = f"image '{name}' has no mask '{printable(stem)}.png' and is passed over"
                self._problems.append(warning("image_without_label", message, file=name))
            else:
                samples.append(Sample(image, key=mask))
        for mask in waiting.values():
            name = relative_name(mask, self._base)
            message = f"mask '{name}' belongs to no image of '{split}'"
            self._problems.append(warning("label_without_image", message, file=name))
        return samples
