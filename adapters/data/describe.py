"""Describing a data set: what it is, what it holds, and everything that is wrong with it.

:func:`describe` opens every file and keeps two cores busy, for minutes where the data set is
large. A server calls :func:`adapters.data.apart.describe_apart` instead, which does the same in
another process.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TypeVar

from adapters.contract import DatasetFormat, TaskType
from adapters.data import yolo
from adapters.data.content import Annotation, Content, Sample
from adapters.data.description import Description, Problem
from adapters.data.detecting import detect_format
from adapters.data.files import error, relative_name, warning
from adapters.data.fingerprint import Fingerprint
from adapters.data.images import CheckedFile, check_image
from adapters.data.problems import ProblemList
from adapters.data.reading import scan
from adapters.data.roots import is_inside, unreadable_as_dataset_error
from adapters.data.yolo_content import YoloContent

_SMALLEST_YOLO_SIDE = 10  # pixels; Ultralytics leaves out smaller images
_T = TypeVar("_T")
_R = TypeVar("_R")


def describe(
    path: Path,
    *,
    format: DatasetFormat | None = None,
    task_type: TaskType | None = None,
    roots: Sequence[Path] = (),
    workers: int | None = None,
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
            roots=roots,
        )
        return _describe(content, threads=workers or os.cpu_count() or 1)


def _describe(content: Content, *, threads: int) -> Description:
    problems = ProblemList(content.problems)
    fingerprint = Fingerprint(content.path)
    fingerprint.add(content.format, *content.classes)
    smallest = _SMALLEST_YOLO_SIDE if content.format == DatasetFormat.YOLO else 1

    def check(sample: Sample) -> tuple[CheckedFile, Annotation]:
        image = check_image(sample.image, base=content.path, smallest_side=smallest)
        return image, content.check(sample, size=None)

    objects: dict[str, Counter[int]] = {split: Counter() for split in content.splits}
    for split, samples in content.splits.items():
        for sample, (image, annotation) in zip(samples, _map(check, samples, threads), strict=True):
            problems.extend(image.problems)
            problems.extend(annotation.problems)
            fingerprint.add(split, sample.image, image.sha256, annotation.sha256)
            objects[split].update(thing.class_id for thing in annotation.objects)
    if isinstance(content, YoloContent):
        problems.extend(_without_objects(content, objects))
        problems.extend(_labels_without_image(content.data))
    return Description(
        path=content.path,
        format=content.format,
        task_type=content.task_type,
        classes=content.classes,
        splits={split: len(samples) for split, samples in content.splits.items()},
        problems=problems.result(),
        fingerprint=fingerprint.result(),
    )


def _map(check: Callable[[_T], _R], items: Sequence[_T], threads: int) -> Iterator[_R]:
    """Yield check(item) of all items in their order. Decoding and hashing let other threads run."""
    if threads == 1:
        yield from map(check, items)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="describe") as pool:
        # In pieces, so that a million images do not wait as a million futures.
        for start in range(0, len(items), 1024):
            yield from pool.map(check, items[start : start + 1024])


def _without_objects(data: Content, objects: dict[str, Counter[int]]) -> Iterator[Problem]:
    for split in ("train", "val"):
        if data.splits.get(split) and not objects[split]:
            message = f"no image of '{split}' has a good label; labels/ must mirror images/"
            yield error("no_labels", message)
    if objects.get("train"):
        for number, name in enumerate(data.classes):
            if not objects["train"][number]:
                message = f"class {number} ('{name}') has no object in 'train'"
                yield warning("class_without_objects", message)


def _labels_without_image(data: yolo.YoloData) -> Iterator[Problem]:
    """Warn of .txt files in the folders of labels that belong to no image, listed or not."""
    images = chain.from_iterable(data.splits.values())
    folders = {data.label(image).parent: image.parent for image in images}
    for labels, image_folder in sorted(folders.items()):
        if labels == image_folder:
            continue  # a folder of both holds lists and notes, too
        if not labels.is_dir() or not is_inside(os.path.realpath(labels), data.allowed):
            continue
        stems = {entry.stem for entry in image_folder.iterdir()}
        for label in sorted(labels.glob("*.txt")):
            if label.stem not in stems and label.name != "classes.txt":
                name = relative_name(label, data.path)
                message = f"'{name}' is the label of no image"
                yield warning("label_without_image", message, file=name)
