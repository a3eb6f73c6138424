"""/api/v1/datasets: folders below the data roots, looked at and registered."""

from __future__ import annotations

from typing import Any

from adapters.contract import DatasetFormat, TaskType
from webapp.api.authentication import current_user
from webapp.api.document import problems, resource
from webapp.api.paths import DatasetPath
from webapp.api.schemas.base import dump, page
from webapp.api.schemas.datasets import DatasetBody, DatasetOut, DatasetPageOut, DatasetQuery
from webapp.models import Dataset, Role
from webapp.services import datasets
from webapp.services.projects import get_project

blueprint = resource("datasets", title="Data sets")

Answer = tuple[dict[str, Any], int]


@blueprint.get("", responses={200: DatasetPageOut})
def list(query: DatasetQuery) -> Answer:
    """List data sets, the newest first"""
    found = datasets.list_datasets(
        current_user(), project_id=query.project_id, limit=query.limit, cursor=query.cursor
    )
    return page(DatasetOut, found), 200


@blueprint.post("", responses={201: DatasetOut, **problems(403, 404)})
def create(body: DatasetBody) -> Answer:
    """Register a folder; every file of it is looked at first"""
    project = get_project(body.project_id, user=current_user(), needed=Role.EDITOR)
    dataset = datasets.register(
        project,
        name=body.name,
        path=body.path,
        format=DatasetFormat(body.format) if body.format else None,
        task_type=TaskType(body.task_type) if body.task_type else None,
    )
    return dump(DatasetOut, dataset), 201


@blueprint.get("/<id:dataset_id>", responses={200: DatasetOut})
def get(path: DatasetPath) -> Answer:
    """Get a data set"""
    return dump(DatasetOut, _fetch(path, Role.VIEWER)), 200


@blueprint.post("/<id:dataset_id>/validate", responses={200: DatasetOut, **problems(403)})
def validate(path: DatasetPath) -> Answer:
    """Look at a data set again"""
    dataset = _fetch(path, Role.EDITOR)
    datasets.look_again(dataset)
    return dump(DatasetOut, _fetch(path, Role.EDITOR)), 200


@blueprint.delete("/<id:dataset_id>", responses={204: None, **problems(403, 409)})
def delete(path: DatasetPath) -> tuple[str, int]:
    """Forget a data set; its files stay"""
    datasets.remove(_fetch(path, Role.EDITOR))
    return "", 204


def _fetch(path: DatasetPath, needed: Role) -> Dataset:
    return datasets.get_dataset(path.dataset_id, user=current_user(), needed=needed)
