"""/api/v1/storage: what takes how much room, and how much is left."""

from __future__ import annotations

from typing import Any

from webapp.api.authentication import current_user
from webapp.api.document import resource
from webapp.api.schemas.base import dump
from webapp.api.schemas.storage import StorageOut
from webapp.services import disk_use

blueprint = resource("storage", title="Storage")


@blueprint.get("", responses={200: StorageOut})
def get() -> tuple[dict[str, Any], int]:
    """Tell what outputs, data sets and database take, and what the web host's volumes have left"""
    found = {
        "uses": disk_use.uses(),
        "volumes": disk_use.volumes(),
        "projects": disk_use.of_projects(current_user()),
    }
    return dump(StorageOut, found), 200
