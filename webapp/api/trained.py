"""/api/v1/training/jobs/{id}: what is done with the model that a job has left."""

from __future__ import annotations

import json
from typing import Any

from flask import Response, send_file
from pydantic import Field
from werkzeug.datastructures import FileStorage

from adapters.wire import MAX_ASKED_IMAGE_BYTES, ExportFormat
from webapp.api.authentication import actor, current_user
from webapp.api.document import problems, resource
from webapp.api.paths import JobPath
from webapp.api.requests import takes_file
from webapp.api.schemas.base import dump
from webapp.api.schemas.trained import (
    EvaluationOut,
    ExportBody,
    ExportOut,
    ExportPageOut,
    PredictForm,
    PredictionOut,
)
from webapp.models import Job, Role
from webapp.services import artifacts, exports, jobs, tools
from webapp.services.errors import Invalid

blueprint = resource("trained", title="Trained models", prefix="/api/v1/training/jobs")

Answer = tuple[dict[str, Any], int]

EVALUATION = "evaluation/evaluation.json"
_PICTURE: dict[str, Any] = {
    "description": "The picture",
    "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}},
}


class PicturePath(JobPath):
    name: str = Field(min_length=1, max_length=100)


@blueprint.post("/<id:job_id>/predict", responses={200: PredictionOut, **problems(403, 409)})
@takes_file(max_bytes=MAX_ASKED_IMAGE_BYTES)
def predict(path: JobPath, form: PredictForm) -> Answer:
    """Ask a job's best model about an image of at most 20 MB"""
    job = _fetch(path)
    if not isinstance(form.file, FileStorage):
        raise Invalid({"file": ["Send an image as a file"]})
    image = form.file.read()
    found = tools.predict(job, image=image, threshold=form.threshold)
    model = {"job_id": job.id, "framework": job.framework, "model_name": job.model_name}
    told = PredictionOut.model_validate({**found, "model": model})
    return told.model_dump(mode="json", by_alias=True), 200


@blueprint.post("/<id:job_id>/export", responses={202: ExportOut, **problems(403, 409)})
def export(path: JobPath, body: ExportBody) -> Answer:
    """Ask for a job's best model as ONNX or TorchScript; it becomes an artifact"""
    job = _fetch(path, Role.EDITOR)
    made = exports.request_export(job, format=ExportFormat(body.format), actor=actor())
    return dump(ExportOut, made), 202


@blueprint.get("/<id:job_id>/exports", responses={200: ExportPageOut})
def list_exports(path: JobPath) -> Answer:
    """List a job's exports, the newest first"""
    items = [dump(ExportOut, made) for made in exports.list_exports(_fetch(path))]
    return {"items": items, "next_cursor": None, "total": len(items)}, 200


@blueprint.get("/<id:job_id>/evaluation", responses={200: EvaluationOut, **problems(503)})
def evaluation(path: JobPath) -> Answer:
    """Get the best model's evaluation; 404 before there is one"""
    found = artifacts.find(_fetch(path), EVALUATION)
    whole: dict[str, Any] = json.loads(found.path.read_bytes())
    return whole, 200


@blueprint.get(
    "/<id:job_id>/evaluation/wrong/<name>",
    responses={200: _PICTURE, 206: _PICTURE, 304: None, **problems(416, 503)},
)
def wrong_picture(path: PicturePath) -> Response:
    """Get a picture of an image that the model was most wrong of"""
    found = artifacts.find(_fetch(path), f"evaluation/wrong/{path.name}")
    response = send_file(
        found.path, mimetype="image/jpeg", conditional=True, etag=found.sha256 or True
    )
    response.headers["Cache-Control"] = "private, no-cache"
    return response


def _fetch(path: JobPath, needed: Role = Role.VIEWER) -> Job:
    return jobs.get_job(path.job_id, user=current_user(), needed=needed)
