"""What takes how much room, and how much is left."""

from __future__ import annotations

from flask import render_template
from flask.typing import ResponseReturnValue

from webapp.api.authentication import current_user
from webapp.config import settings
from webapp.dashboard.blueprint import blueprint
from webapp.services import broker, disk_use
from webapp.services.errors import Unavailable

# In words, in the order of the page.
NAMES = {
    "outputs": "Outputs of jobs",
    "uploads": "Uploaded data sets",
    "data_cache": "Cache of data sets",
    "weights": "Pretrained weights",
    "database": "Database",
    "event_log": "Event log (in the database)",
    "redis_memory": "Redis (memory)",
    "store_jobs": "Outputs in the store",
    "store_datasets": "Data sets in the store",
}


@blueprint.get("/storage")
def storage() -> ResponseReturnValue:
    """Show what takes how much room, and how much is left."""
    uses = {use.name: use for use in disk_use.uses()}
    return render_template(
        "dashboard/storage.html",
        section="storage",
        uses=[(title, uses[name]) for name, title in NAMES.items() if name in uses],
        names=NAMES,
        measured="outputs" in uses,
        volumes=disk_use.volumes(),
        workers=_workers(),
        projects=disk_use.of_projects(current_user()),
        keep_last_days=settings().keep_last_days,
    )


def _workers() -> list[dict[str, object]]:
    try:
        return [worker for worker in broker.workers() if worker.get("disks")]
    except Unavailable:
        return []
