"""What takes how much room, and how much is left."""

from __future__ import annotations

from typing import Any

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
        worker_volumes=_worker_volumes(),
        projects=disk_use.of_projects(current_user()),
        keep_last_days=settings().keep_last_days,
    )


def _worker_volumes() -> list[dict[str, Any]]:
    """Return the volumes of all workers, each once, with whose it is and what lies on it."""
    try:
        workers = broker.workers()
    except Unavailable:
        return []
    found: dict[tuple[str, Any], dict[str, Any]] = {}
    for worker in workers:
        for disk in worker.get("disks", []):
            # A worker of an older version does not tell which volume it is.
            key = (worker["name"], disk.get("volume", disk["name"]))
            volume = found.setdefault(key, {**disk, "worker": worker, "names": []})
            volume["names"].append(disk["name"])
    return list(found.values())
