"""/api/v1/queues and /api/v1/workers: where jobs wait, and who trains them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from webapp.api.authentication import current_user
from webapp.api.document import problems, resource
from webapp.api.schemas.base import dump
from webapp.api.schemas.workers import QueueOut, QueuePageOut, WorkerOut, WorkerPageOut
from webapp.services import broker, workers
from webapp.services.errors import Forbidden

blueprint = resource("workers", title="Queues and workers", prefix="/api/v1")

Answer = tuple[dict[str, Any], int]


class WorkerPath(BaseModel):
    name: str = Field(min_length=1, max_length=64)


@blueprint.get("/queues", responses={200: QueuePageOut})
def list_queues() -> Answer:
    """List the queues: what waits, what runs, who serves them"""
    items = [dump(QueueOut, queue) for queue in workers.queues()]
    return {"items": items, "next_cursor": None, "total": len(items)}, 200


@blueprint.get("/workers", responses={200: WorkerPageOut})
def list_workers() -> Answer:
    """List the workers that are up"""
    items = [dump(WorkerOut, worker) for worker in broker.workers()]
    return {"items": items, "next_cursor": None, "total": len(items)}, 200


@blueprint.post("/workers/<string:name>/drain", responses={200: WorkerOut, **problems(403)})
def drain(path: WorkerPath) -> Answer:
    """Let a worker finish what it trains and take nothing new; for administrators"""
    _administrators_only()
    return dump(WorkerOut, workers.set_draining(path.name, draining=True)), 200


@blueprint.delete("/workers/<string:name>/drain", responses={200: WorkerOut, **problems(403)})
def undrain(path: WorkerPath) -> Answer:
    """Let a worker take jobs again; for administrators"""
    _administrators_only()
    return dump(WorkerOut, workers.set_draining(path.name, draining=False)), 200


def _administrators_only() -> None:
    if not current_user().is_admin:
        raise Forbidden("Only an administrator may drain workers: they serve every project")
