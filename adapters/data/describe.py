"""Describing a data set: what it is, what it holds, and everything that is wrong with it.

:func:`describe` opens every file and keeps the cores busy, for minutes where the data set is
large. A server calls :func:`adapters.data.apart.describe_apart` instead, which does the same in
another process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TypeVar

from adapters.contract import DatasetFormat, TaskType
from adapters.data import yolo
from adapters.data.content import IGNORED, Annotation, Content, Sample, SplitRule
from adapters.data.description import Description, Problem
from adapters.data.detecting import detect_format
from adapters.data.files import composed, error, relative_name, warning
from adapters.data.fingerprint import begun_fingerprint
from adapters.data.images import CheckedFile, check_image
from adapters.data.problems import ProblemList
from adapters.data.reading import require_task, scan
from adapters.data.roots import is_inside, unreadable_as_dataset_error
from adapters.data.statistics import Statistics
from adapters.data.task_classes import BACKGROUND
from adapters.data.yolo_content import YoloContent

Progress = Callable[[int, int], None]  # images looked at, images in all

_SMALLEST_YOLO_SIDE = 10  # pixels; Ultralytics leaves out smaller images
# Labels that are not made for these tasks have errors that name their lines.
_TOLD_LINE_BY_LINE = {
    (DatasetFormat.YOLO, TaskType.INSTANCE_SEGMENTATION),
    (DatasetFormat.YOLO, TaskType.ORIENTED_DETECTION),
}
_T = TypeVar("_T")
_R = TypeVar("_R")


def describe(
    path: Path,
    *,
    format: DatasetFormat | None = None,
    task_type: TaskType | None = None,
    split_rule: SplitRule | None = None,
    roots: Sequence[Path] = (),
    workers: int | None = None,
    progress: Progress | None = None,
) -> Description:
    """Look at every file of a data set, with ``workers`` threads (default: one a core).

    Splits and links must stay in the data set's folder or in ``roots``. Raises DatasetError where
    nothing can be read there, or not as the format or for the task that was asked for; a data set
    that can be read but is wrong has problems instead.
    """
    with unreadable_as_dataset_error(path):
        content = scan(
            path,
            format=format or detect_format(path),
            task_type=task_type,
            split_rule=split_rule,
            roots=roots,
        )
        if task_type is not None and (content.format, task_type) not in _TOLD_LINE_BY_LINE:
            require_task(content, task_type)
        return _Look(content, progress=progress).description(workers or os.cpu_count() or 1)


class _Look:
    """Goes over all images of a data set once, collecting all that is told of it."""

    def __init__(self, content: Content, *, progress: Progress | None) -> None:
        self._content = content
        self._progress = progress
        self._problems = ProblemList(content.problems, left_out=content.problems_left_out)
        self._fingerprint = begun_fingerprint(content)
        self._has_objects = content.format in (DatasetFormat.YOLO, DatasetFormat.COCO)
        self._statistics = Statistics(
            num_classes=len(content.classes),
            splits=content.splits,
            with_objects=self._has_objects,
        )
        self._first_seen: dict[str, tuple[str, Path]] = {}  # by hash: split and image

    def description(self, threads: int) -> Description:
        content = self._content
        total, done = sum(map(len, content.splits.values())), 0
        for split, samples in content.splits.items():
            for sample, found in zip(samples, _map(self._check, samples, threads), strict=True):
                self._take(split, sample, *found)
                done += 1
                if self._progress is not None:
                    self._progress(done, total)
        self._problems.extend(self._missing_parts())
        if isinstance(content, YoloContent):
            self._problems.extend(_labels_without_image(content.data))
        rule = content.split_rule
        return Description(
            path=content.path,
            format=content.format,
            task_type=content.task_type,
            classes=content.classes,
            splits={split: len(samples) for split, samples in content.splits.items()},
            problems=self._problems.result(),
            fingerprint=self._fingerprint.result(),
            task_types=tuple(dict.fromkeys((content.task_type, *content.task_types))),
            multi_label=content.multi_label,
            split_rule=rule.in_words(by_class=content.splits_by_class) if rule else None,
            keypoints=content.keypoints,
            statistics=self._statistics.result(),
        )

    def _check(self, sample: Sample) -> tuple[CheckedFile, Annotation]:
        smallest = _SMALLEST_YOLO_SIDE if self._content.format == DatasetFormat.YOLO else 1
        image = check_image(sample.image, base=self._content.path, smallest_side=smallest)
        annotation = self._content.check(sample, size=image.size)
        return image, annotation

    def _take(self, split: str, sample: Sample, image: CheckedFile, said: Annotation) -> None:
        self._problems.extend(image.problems)
        self._problems.extend(said.problems)
        self._fingerprint.add(split, sample.image, image.sha256, said.sha256)
        self._statistics.add(split, said, size=image.size)
        if image.sha256:
            first, other = self._first_seen.setdefault(image.sha256, (split, sample.image))
            if first != split and other != sample.image:
                name, twin = (relative_name(p, self._content.path) for p in (sample.image, other))
                message = (
                    f"'{name}' in '{split}' is the same image as '{twin}' in '{first}', so what is "
                    "measured there flatters; keep one of them"
                )
                self._problems.extend([warning("leakage", message, file=name)])

    def _missing_parts(self) -> Iterator[Problem]:
        """Yield what is told of splits and classes without anything in them."""
        content = self._content
        for split, samples in content.splits.items():
            if split == "test" and not samples:
                yield warning("empty_split", "no image in the split 'test'; leave it out")
        if content.format == DatasetFormat.IMAGEFOLDER:
            return  # classes are its folders: those without images were found by their names
        present = {split: self._statistics.images_of(split) for split in content.splits}
        for split in ("train", "val"):
            if content.splits.get(split) and not present[split]:
                message = f"no image of '{split}' has a good label, so nothing can be learned of it"
                yield error("no_labels", message)
        for number, name in enumerate(content.classes):
            # The background of outlines is where there are none.
            missing = () if name == BACKGROUND and self._has_objects else ("train", "val")
            for split in missing:
                if present.get(split) and not present[split][number]:
                    message = f"class {number} ('{name}') is in no image of '{split}'"
                    if content.format == DatasetFormat.MASKS:
                        message += f"; pixels of {IGNORED} are of no class"
                    yield warning("class_without_objects", message)
                    break


def _map(check: Callable[[_T], _R], items: Sequence[_T], threads: int) -> Iterator[_R]:
    """Yield check(item) of all items in their order. Decoding and hashing let other threads run."""
    if threads == 1:
        yield from map(check, items)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="describe") as pool:
        # In pieces, so that a million images do not wait as a million futures.
        for start in range(0, len(items), 1024):
            yield from pool.map(check, items[start : start + 1024])


def _labels_without_image(data: yolo.YoloData) -> Iterator[Problem]:
    """Warn of .txt files in the folders of labels that belong to no image, listed or not."""
    images = chain.from_iterable(data.splits.values())
    folders = {data.label(image).parent: image.parent for image in images}
    for labels, image_folder in sorted(folders.items()):
        if labels == image_folder:
            continue  # a folder of both holds lists and notes, too
        if not labels.is_dir() or not is_inside(os.path.realpath(labels), data.allowed):
            continue
        stems = {composed(entry.stem) for entry in image_folder.iterdir()}
        for label in sorted(labels.glob("*.txt")):
            if label.name == "classes.txt" or label.name.startswith("."):
                continue
            if composed(label.stem) not in stems:
                name = relative_name(label, data.path)
                message = f"'{name}' is the label of no image"
                yield warning("label_without_image", message, file=name)
