"""/api/v1/models and /api/v1/frameworks: what a job may name."""

from __future__ import annotations

from typing import Any

from adapters import framework_version
from adapters.catalog import catalog_version
from adapters.frameworks import FrameworkInfo, all_frameworks
from adapters.wire import queue_name
from webapp.api.document import resource
from webapp.api.schemas.base import dump, page
from webapp.api.schemas.catalog import (
    FrameworkOut,
    FrameworkPageOut,
    ModelOut,
    ModelPageOut,
    ModelQuery,
)
from webapp.services import catalog

blueprint = resource("catalog", title="Models", prefix="/api/v1")

Answer = tuple[dict[str, Any], int]


@blueprint.get("/models", responses={200: ModelPageOut})
def models(query: ModelQuery) -> Answer:
    """List the models that a job may name"""
    found = catalog.list_models(
        framework=query.framework,
        task_type=query.task_type,
        q=query.q,
        limit=query.limit,
        cursor=query.cursor,
    )
    return page(ModelOut, found), 200


@blueprint.get("/frameworks", responses={200: FrameworkPageOut})
def frameworks() -> Answer:
    """List the frameworks and what each can be asked for"""
    items = [_framework(info) for info in all_frameworks().values()]
    return {"items": items, "next_cursor": None, "total": len(items)}, 200


def _framework(info: FrameworkInfo) -> dict[str, Any]:
    return dump(
        FrameworkOut,
        {
            "name": info.name,
            "title": info.title,
            "licence": info.licence,
            "queue": queue_name(info.name),
            "task_types": [str(task) for task in info.task_types],
            "formats": {
                str(task): [str(name) for name in names] for task, names in info.formats.items()
            },
            "multi_label": info.multi_label,
            "version": catalog_version(info.name) or framework_version(info.name),
            "optimizers": info.optimizers,
            "image_size_step": info.image_size_step,
            "hyperparameters": info.hyperparameters.model_json_schema(),
        },
    )
