"""Reading a COCO data set: instances, keypoints, or (for semantic segmentation) panoptic files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from adapters.contract import DatasetFormat, TaskType
from adapters.data.coco_content import (
    CocoContent,
    Part,
    classified,
    keypoints_of,
    tasks_of,
)
from adapters.data.coco_entries import Entries
from adapters.data.coco_fields import Category
from adapters.data.coco_layout import (
    AnnotationFile,
    ImageFinder,
    Kind,
    choose_annotations,
    find_annotations,
    kinds_told,
    other_annotations,
)
from adapters.data.coco_objects import CocoObjects
from adapters.data.coco_panoptic import (
    PanopticSegments,
    PanopticTable,
    panoptic_folder,
    read_panoptic,
)
from adapters.data.coco_table import CocoTable, read_table
from adapters.data.content import Sample, SplitRule
from adapters.data.description import DatasetError, Problem
from adapters.data.drawing import MAX_MASK_CLASSES
from adapters.data.files import IMAGE_SUFFIXES, error, list_images, relative_name, warning
from adapters.data.problems import ProblemList
from adapters.data.roots import (
    OutsideRoots,
    is_inside,
    printable,
    real_paths,
    unreadable_as_dataset_error,
)
from adapters.data.split import hold_out
from adapters.data.task_classes import with_background


def scan(
    path: Path,
    *,
    task_type: TaskType | None = None,
    split_rule: SplitRule | None = None,
    roots: Sequence[Path] = (),
) -> CocoContent:
    """Read a COCO data set, given as its folder or one JSON file, with all that its files tell.

    Without a task, for the one that its annotations are made for. Raises DatasetError where there
    are no annotations, or they are not JSON, naming the line.
    """
    with unreadable_as_dataset_error(path):
        return _Scan(Path(os.path.realpath(path)), roots).content(task_type, split_rule)


class _Scan:
    """Reads a COCO data set, collecting what is wrong with it."""

    def __init__(self, given: Path, roots: Sequence[Path]) -> None:
        self._base, self._found = find_annotations(given)
        self._allowed = real_paths([self._base, *roots])
        self._problems = ProblemList()
        for file in self._found:
            if not is_inside(os.path.realpath(file), self._allowed):
                name = relative_name(file, self._base)
                raise OutsideRoots(f"'{name}' is a link that leads out of the data set's folder")

    def content(self, task_type: TaskType | None, rule: SplitRule | None) -> CocoContent:
        files, problems = choose_annotations(self._found, base=self._base, task_type=task_type)
        self._problems.extend(problems)
        shown = [relative_name(file.path, self._base) for file in files]
        tables = [
            (read_panoptic if file.kind == Kind.PANOPTIC else read_table)(file.path, shown=name)
            for file, name in zip(files, shown, strict=True)
        ]
        for table in tables:
            self._problems.merge(table.problems)
        categories = self._categories(tables)
        class_of = {category.id: number for number, category in enumerate(categories)}
        parts = tuple(
            self._part(file, table, class_of) for file, table in zip(files, tables, strict=True)
        )
        made_for = tasks_of(parts, categories)
        task = task_type or made_for[0]
        classes = tuple(category.name for category in categories)
        if files[0].kind == Kind.PANOPTIC and len(classes) > MAX_MASK_CLASSES:
            raise DatasetError(f"'{shown[0]}' has more than {MAX_MASK_CLASSES} categories")
        outlined = parts and isinstance(parts[0], CocoObjects)
        if task == TaskType.SEMANTIC_SEGMENTATION and outlined:
            classes = with_background(classes)[0]
        splits = self._samples(files, parts)
        splits, used = self._held_out(splits, parts, rule or SplitRule())
        if task == TaskType.IMAGE_CLASSIFICATION:
            splits = {split: classified(samples, parts) for split, samples in splits.items()}
        self._missing_parts(splits)
        return CocoContent(
            path=self._base,
            format=DatasetFormat.COCO,
            task_type=task,
            task_types=tuple(dict.fromkeys((*made_for, *kinds_told(self._found, self._base)))),
            classes=classes,
            splits=splits,
            multi_label=task == TaskType.IMAGE_CLASSIFICATION,
            keypoints=keypoints_of(categories),
            split_rule=used,
            problems=self._problems.kept(),
            problems_left_out=self._problems.left_out(),
            parts=parts,
            read=tuple(files),
            others=tuple(other_annotations(self._found, files, base=self._base)),
            allowed=self._allowed,
        )

    def _categories(self, tables: Sequence[Entries]) -> list[Category]:
        """Return the categories of all files together, by id."""
        known: dict[int, Category] = {}
        for table in tables:
            for category in table.categories:
                first = known.setdefault(category.id, category)
                if (first.name, first.keypoints) != (category.name, category.keypoints):
                    message = (
                        f"category {category.id} is '{category.name}' in '{table.file}' and "
                        f"'{first.name}', or of other keypoints, in another file"
                    )
                    self._tell(error("categories_differ", message, file=table.file))
        if not known:
            wrong = next((p.message for t in tables for p in t.problems.kept()), "there is none")
            raise DatasetError(
                f"no categories in '{tables[0].file}', so no class has a name: {wrong}"
            )
        categories = [known[id] for id in sorted(known)]
        names = [category.name for category in categories]
        for name in sorted({name for name in names if names.count(name) > 1}):
            message = f"more than one category is named '{name}'"
            self._tell(warning("class_named_twice", message, file=tables[0].file))
        points = {category.keypoints for category in categories if category.keypoints}
        if len({len(names) for names in points}) > 1:
            message = "categories have different numbers of keypoints; one model learns one number"
            self._tell(error("keypoints_differ", message, file=tables[0].file))
        return categories

    def _part(self, file: AnnotationFile, table: Entries, class_of: Mapping[int, int]) -> Part:
        if isinstance(table, CocoTable):
            return CocoObjects(table, class_of)
        assert isinstance(table, PanopticTable)
        folder = panoptic_folder(file.path, self._base, allowed=self._allowed)
        if folder is None:
            message = (
                f"no folder of PNGs for '{table.file}'; it lies beside it and is named as it is, "
                "without '.json'"
            )
            self._tell(error("masks_not_found", message, file=table.file))
        return PanopticSegments(table, class_of, folder=folder, allowed=self._allowed)

    def _samples(
        self, files: Sequence[AnnotationFile], parts: Sequence[Part]
    ) -> dict[str, list[Sample]]:
        splits: dict[str, list[Sample]] = {}
        used: set[Path] = set()
        for number, (file, part) in enumerate(zip(files, parts, strict=True)):
            finder = ImageFinder(file.folders, allowed=self._allowed)
            found: dict[Path, Sample] = {}
            for i, path in self._images(part.table, finder):
                if path in found:
                    message = f"'{relative_name(path, self._base)}' is named by two images"
                    line = part.table.image_lines[i]
                    self._tell(
                        error("image_listed_twice", message, file=part.table.file, line=line)
                    )
                else:
                    found[path] = Sample(path, key=len(parts) * i + number)
            splits[file.split] = sorted(found.values(), key=lambda s: os.fspath(s.image))
            used |= finder.used
        named = {sample.image for samples in splits.values() for sample in samples}
        self._tell_unnamed(used, named)
        return splits

    def _images(self, table: Entries, finder: ImageFinder) -> Iterator[tuple[int, Path]]:
        for i, entry in enumerate(table.images):
            path, outside = finder.find(entry.file_name)
            if path is not None and path.suffix.lower() in IMAGE_SUFFIXES:
                yield i, path
                continue
            code = "link_outside" if outside and path is None else "image_not_found"
            reason = (
                "leads out of the data set's folder" if outside else "is no image that is there"
            )
            message = f"image {entry.id} in '{table.file}': '{printable(entry.file_name)}' {reason}"
            self._tell(error(code, message, file=table.file, line=table.image_lines[i]))

    def _tell_unnamed(self, folders: set[Path], named: set[Path]) -> None:
        """Warn of images that lie in the folders of the images and that no file names."""
        told: set[Path] = set()
        for folder in sorted(folders):
            listing = list_images(
                folder,
                base=self._base,
                allowed=self._allowed,
                known=frozenset((".json", ".txt", ".md", ".yaml", ".csv", "")),
            )
            for path in listing.images:
                if path in named or path in told or self._is_panoptic(path):
                    continue
                told.add(path)
                name = relative_name(path, self._base)
                message = f"image '{name}' is in no annotation file and is passed over"
                self._tell(warning("image_without_label", message, file=name))

    def _is_panoptic(self, path: Path) -> bool:
        folders = path.relative_to(self._base).parts[:-1] if self._base in path.parents else ()
        return any(Kind.PANOPTIC in folder.lower() for folder in folders)

    def _held_out(
        self, splits: dict[str, list[Sample]], parts: Sequence[Part], rule: SplitRule
    ) -> tuple[dict[str, list[Sample]], SplitRule | None]:
        if not splits.get("train") or "val" in splits:
            return splits, None
        held = hold_out(classified(splits["train"], parts), base=self._base, rule=rule)
        plain = {
            split: [Sample(sample.image, key=sample.key) for sample in samples]
            for split, samples in held.items()
        }
        return {**plain, **{s: splits[s] for s in splits if s != "train"}}, rule

    def _missing_parts(self, splits: Mapping[str, list[Sample]]) -> None:
        for split in ("train", "val"):
            if not splits.get(split):
                message = f"no image in the split '{split}'"
                self._tell(error(f"no_{split}_split", message))

    def _tell(self, problem: Problem) -> None:
        self._problems.extend([problem])
