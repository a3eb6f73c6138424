"""/api/v1/training/jobs/{id}: metrics, logs, attempts, history, artifacts."""

from __future__ import annotations

import base64
from typing import Any

from flask import Response, request, send_file
from pydantic import Field
from werkzeug.exceptions import RequestedRangeNotSatisfiable

from webapp.api.authentication import current_user
from webapp.api.document import problems, resource
from webapp.api.paths import JobPath
from webapp.api.schemas.base import PageQuery, dump, page
from webapp.api.schemas.jobs import (
    ArtifactOut,
    ArtifactPageOut,
    AttemptOut,
    AttemptPageOut,
    ChangeOut,
    ChangePageOut,
    CurvesOut,
    LoadOut,
    LoadPointOut,
    LoadQuery,
    LogQuery,
    MetricsQuery,
    PointOut,
)
from webapp.models import Job
from webapp.services import artifacts, jobs, logs, metrics
from webapp.services import load as loads
from webapp.services.stored_files import Passing

blueprint = resource("job_results", title="Results", prefix="/api/v1/training/jobs")

Answer = tuple[dict[str, Any], int]

_LOG: dict[str, Any] = {
    "description": "Text of stdout and stderr, at most 1 MiB",
    "headers": {
        "X-Next-Offset": {
            "description": "Ask with it for what comes after this text",
            "schema": {"type": "integer"},
        }
    },
    "content": {"text/plain": {"schema": {"type": "string"}}},
}
_FILE: dict[str, Any] = {
    "description": "The file, or the range of it that was asked for",
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}


class ArtifactPath(JobPath):
    name: str = Field(min_length=1)


@blueprint.get("/<id:job_id>/metrics", responses={200: CurvesOut})
def curves(path: JobPath, query: MetricsQuery) -> Answer:
    """Get a job's curves"""
    names = None if query.names is None else [n for n in query.names.split(",") if n]
    found = metrics.curves(_fetch(path), names=names, points=query.points)
    return {name: [dump(PointOut, point) for point in curve] for name, curve in found.items()}, 200


@blueprint.get("/<id:job_id>/load", responses={200: LoadOut})
def load(path: JobPath, query: LoadQuery) -> Answer:
    """Get what a job's processes took of their machine, sampled every few seconds"""
    found = loads.curves(_fetch(path), points=query.points)
    return {n: [dump(LoadPointOut, point) for point in curve] for n, curve in found.items()}, 200


@blueprint.get("/<id:job_id>/logs", responses={200: _LOG})
def log(path: JobPath, query: LogQuery) -> Response:
    """Read a job's log, from a byte on or its last lines"""
    found = logs.read(_fetch(path), attempt=query.attempt, offset=query.offset, tail=query.tail)
    response = Response(found.text, mimetype="text/plain")
    response.headers["X-Next-Offset"] = str(found.next_offset)
    return response


@blueprint.get("/<id:job_id>/attempts", responses={200: AttemptPageOut})
def attempts(path: JobPath) -> Answer:
    """List each attempt: where and when it ran, how it ended and why"""
    items = [dump(AttemptOut, attempt) for attempt in jobs.attempts(_fetch(path))]
    return {"items": items, "next_cursor": None, "total": len(items)}, 200


@blueprint.get("/<id:job_id>/history", responses={200: ChangePageOut})
def history(path: JobPath, query: PageQuery) -> Answer:
    """List each change of the status: when, by whom and why"""
    found = jobs.history(_fetch(path), limit=query.limit, cursor=query.cursor)
    return page(ChangeOut, found), 200


@blueprint.get("/<id:job_id>/artifacts", responses={200: ArtifactPageOut})
def list_artifacts(path: JobPath, query: PageQuery) -> Answer:
    """List checkpoints, plots, configuration and exports"""
    found = jobs.list_artifacts(_fetch(path), limit=query.limit, cursor=query.cursor)
    return page(ArtifactOut, found), 200


@blueprint.get(
    "/<id:job_id>/artifacts/<path:name>",
    responses={200: _FILE, 206: _FILE, 304: None, **problems(416, 503)},
)
def download(path: ArtifactPath) -> Response:
    """Download an artifact; takes Range and If-None-Match"""
    found = artifacts.open_file(_fetch(path), path.name)
    if isinstance(found, Passing):
        response = _stream(found, name=path.name.rpartition("/")[2])
    else:
        response = send_file(
            found.path,
            mimetype="application/octet-stream",
            as_attachment=True,
            download_name=found.path.name,
            conditional=True,
            etag=found.sha256 or True,
        )
    if found.sha256 is not None and response.status_code == 200:
        digest = base64.b64encode(bytes.fromhex(found.sha256)).decode()
        response.headers["Repr-Digest"] = f"sha-256=:{digest}:"
    response.headers["Cache-Control"] = "private, no-cache"
    return response


def _stream(found: Passing, *, name: str) -> Response:
    """Return a response that passes a file on as it comes from the store, part by part."""
    response = Response(found.stream, mimetype="application/octet-stream", direct_passthrough=True)
    response.call_on_close(found.stream.close)
    response.content_length = found.size
    ascii_name = name.encode("ascii", "replace").decode()
    response.headers.set("Content-Disposition", "attachment", filename=ascii_name)
    response.set_etag(found.sha256)
    try:
        response.make_conditional(request, accept_ranges=True, complete_length=found.size)
    except RequestedRangeNotSatisfiable:
        found.stream.close()
        raise
    return response


def _fetch(path: JobPath) -> Job:
    return jobs.get_job(path.job_id, user=current_user())
