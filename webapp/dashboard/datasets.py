"""A project's data sets, and the page of each: what was found in it, in words and bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import render_template, request
from flask.typing import ResponseReturnValue

from adapters.contract import DatasetFormat, TaskType
from adapters.data.description import Severity
from adapters.data.unpack import in_words
from webapp.api.authentication import current_user
from webapp.config import settings
from webapp.dashboard.blueprint import blueprint
from webapp.dashboard.pages import may_edit, trainable_tasks
from webapp.services import dataset_copies, projects
from webapp.services import datasets as dataset_service

_DATASETS_A_PAGE = 60
_JOBS_SHOWN = 20
_SPLITS = ("train", "val", "test")
_MORE_PROBLEMS = "more_problems"  # counts those that were not kept
_HISTOGRAMS = (
    ("width", "Width", "px"),
    ("height", "Height", "px"),
    ("aspect", "Width to height", ""),
    ("objects_per_image", "Objects an image", ""),
    ("box_size", "Size of objects", "of the image's side"),
)


@blueprint.get("/projects/<id:project_id>/datasets")
def datasets(project_id: int) -> ResponseReturnValue:
    """Show a project's data sets, and the form for a new one."""
    project = projects.get_project(project_id, user=current_user())
    found = dataset_service.list_datasets(
        current_user(),
        project_id=project_id,
        limit=_DATASETS_A_PAGE,
        cursor=request.args.get("cursor"),
    )
    return render_template(
        "dashboard/datasets.html",
        project=project,
        can_edit=may_edit(project),
        datasets=found.items,
        counts={dataset.id: _counts(dataset.problems) for dataset in found.items},
        next_cursor=found.next_cursor,
        formats=list(DatasetFormat),
        task_types=trainable_tasks(),
        data_roots=settings().data_roots,
        upload_bytes=settings().upload_bytes,
        upload_words=in_words(settings().upload_bytes),
    )


@blueprint.get("/datasets/<id:dataset_id>")
def dataset(dataset_id: int) -> ResponseReturnValue:
    """Show a data set; its scripts fetch the pictures and look at it again."""
    found = dataset_service.get_dataset(dataset_id, user=current_user())
    project = projects.get_project(found.project_id, user=current_user())
    statistics = found.statistics or {}
    more = [p["message"] for p in found.problems if p["code"] == _MORE_PROBLEMS]
    return render_template(
        "dashboard/dataset.html",
        store_words=dataset_copies.in_words(found),
        project=project,
        can_edit=may_edit(project),
        dataset=found,
        task_types=[TaskType(task) for task in found.task_types or [found.task_type]],
        counts=_counts(found.problems),
        findings=_findings(found.problems),
        more_problems=more,
        class_rows=_class_rows(found.classes, statistics),
        classes_left_out=statistics.get("classes_left_out", 0),
        without_objects=statistics.get("images_without_objects", {}),
        histograms=_histograms(statistics),
        jobs=dataset_service.jobs_of(found, limit=_JOBS_SHOWN),
    )


def _counts(problems: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many problems of each severity are listed."""
    return {
        str(severity): sum(p["severity"] == severity for p in problems) for severity in Severity
    }


def _findings(problems: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return problems by severity and code, errors first, in the order they were found."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for problem in problems:
        if problem["code"] != _MORE_PROBLEMS:
            groups.setdefault((problem["severity"], problem["code"]), []).append(problem)
    order = list(Severity)
    return [
        {"severity": severity, "code": code, "problems": found}
        for (severity, code), found in sorted(
            groups.items(), key=lambda item: order.index(Severity(item[0][0]))
        )
    ]


@dataclass(frozen=True)
class Piece:
    """A part of a bar: which split, how many, and where it lies, in percent of the widest."""

    split: str
    count: int
    left: float
    width: float


def _class_rows(classes: Sequence[str], statistics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each class with its images by split as a bar, and its objects."""
    by_split = statistics.get("classes", {})
    splits = [split for split in _SPLITS if split in by_split]
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(classes):
        counts = {split: _at(by_split[split]["images"], number) for split in splits}
        objects = [_at(by_split[split].get("objects"), number) for split in splits]
        if None in counts.values():
            break  # only the first thousand are counted
        told = [count for count in objects if count is not None]
        rows.append(
            {
                "id": number,
                "name": name,
                "counts": counts,
                "total": sum(count or 0 for count in counts.values()),
                "objects": sum(told) if told else None,
            }
        )
    widest = max((row["total"] for row in rows), default=0) or 1
    for row in rows:
        row["pieces"] = _pieces(row["counts"], widest)
    return rows


def _pieces(counts: Mapping[str, int], widest: int) -> list[Piece]:
    pieces = []
    left = 0.0
    for split, count in counts.items():
        width = 100 * count / widest
        pieces.append(Piece(split, count, round(left, 3), round(width, 3)))
        left += width
    return pieces


def _at(counts: Sequence[int] | None, number: int) -> int | None:
    return counts[number] if counts is not None and number < len(counts) else None


def _histograms(statistics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the histograms that have values, their bars in percent of the chart."""
    found = []
    for name, title, unit in _HISTOGRAMS:
        histogram = statistics.get(name) or {}
        counts, edges = histogram.get("counts") or [], histogram.get("edges") or []
        if counts:
            found.append({"name": name, "title": title, "unit": unit, "counts": counts,
                          "edges": edges, "bars": _bars(counts)})  # fmt: skip
    return found


def _bars(counts: Sequence[int]) -> list[dict[str, float]]:
    step, highest = 100 / len(counts), max(counts) or 1
    return [
        {
            "x": round(step * number + step * 0.06, 3),
            "width": round(step * 0.88, 3),
            "height": round(100 * count / highest, 3),
        }
        for number, count in enumerate(counts)
    ]
