"""The OpenAPI document at /api/v1/openapi.json, and the pages for people at /api/docs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import flask_openapi_swagger  # type: ignore[import-untyped]
from flask import Blueprint, Response, jsonify, render_template, send_from_directory
from flask_openapi.blueprint import APIBlueprint
from flask_openapi.models import Info, Tag
from flask_openapi.openapi import OpenAPI
from pydantic import BaseModel

from webapp.api.schemas.base import Problem

INFO = Info(
    title="Modelyard",
    version="1",
    description="Describe a training job, put it on its framework's queue, watch it train.",
)
SECURITY_SCHEMES: dict[str, Any] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An access token of POST /auth/login, or a personal token",
    }
}
ANONYMOUS: list[dict[str, list[Any]]] = [{}]  # the ``security`` of a call that needs no token

# What any call may answer; the rest is said call by call.
_ALWAYS = (500, 503)
_TITLES = {
    400: "Not possible in its present status",
    401: "No token, or a dead one",
    403: "You may know of it, but lack the role",
    404: "There is no such thing, or you may not know of it",
    409: "At odds with what is there",
    413: "The body is too large",
    415: "The body is of another type than the call takes",
    416: "The file has no such range",
    422: "A field is wrong; `errors` says which",
    429: "Too many failures; wait as long as `Retry-After` says",
    500: "A mistake of ours",
    503: "The database or the broker does not answer",
}

_pages = Blueprint("api_docs", __name__, template_folder="templates", static_folder="static",
                   static_url_path="/api/docs/static")  # fmt: skip
_SWAGGER = Path(flask_openapi_swagger.__file__).parent / "templates" / "swagger"


def resource(name: str, *, title: str, prefix: str | None = None) -> APIBlueprint:
    """Return the blueprint of a resource of the API."""
    return APIBlueprint(
        name,
        __name__,
        url_prefix=f"/api/v1/{name}" if prefix is None else prefix,
        abp_tags=[Tag(name=title)],
        operation_id_callback=_operation_id,
    )


def problems(*statuses: int) -> dict[str | int, Any]:
    """Return the description of refusals with these statuses, for a call's ``responses``."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": _TITLES[status], "content": copy.deepcopy(content)}
        for status in statuses
    }


def multipart(form: type[BaseModel], **files: str) -> dict[str, Any]:
    """Return the description of a body with a form's fields and files (name: what it is)."""
    schema = form.model_json_schema()
    kinds = {
        name: {"type": "string", "format": "binary", "description": meaning}
        for name, meaning in files.items()
    }
    schema["properties"] = {**schema["properties"], **kinds}
    schema["required"] = [*schema.get("required", []), *files]
    return {"content": {"multipart/form-data": {"schema": schema}}, "required": True}


def init_app(app: OpenAPI) -> None:
    document: dict[str, Any] = {}

    def openapi_json() -> Response:
        if not document:
            document.update(_complete(copy.deepcopy(app.api_doc)))
        return jsonify(document)

    openapi_json.is_public = True  # type: ignore[attr-defined]
    app.add_url_rule("/api/v1/openapi.json", "openapi_json", openapi_json)
    app.register_blueprint(_pages)


@_pages.get("/api/docs")
def docs() -> str:
    """Show the API to a person, with Swagger UI from its wheel."""
    return render_template("api_docs.html")


@_pages.get("/api/docs/swagger/<path:name>")
def swagger_file(name: str) -> Response:
    return send_from_directory(_SWAGGER, name, max_age=3600)


def _operation_id(*, bp_name: str, name: str, path: str, method: str) -> str:
    """Return the name that a generated client gives to a call: 'jobs_start'."""
    return f"{bp_name}_{name}"


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    """Say what every call has in common: its version, its token, its refusals."""
    document["openapi"] = "3.1.0"
    document["security"] = [{"bearer": []}]
    schemas = document["components"]["schemas"]
    schemas.pop("ValidationErrorModel", None)
    schemas["Problem"] = Problem.model_json_schema()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            _complete_operation(operation, path=path, method=method)
            _complete_body(operation.get("requestBody"), schemas)
    return document


def _complete_body(body: dict[str, Any] | None, schemas: dict[str, Any]) -> None:
    """A body of which no field is required may be left out."""
    if body is not None and "application/json" in body["content"]:
        name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        body["required"] = bool(schemas[name].get("required"))


def _complete_operation(operation: dict[str, Any], *, path: str, method: str) -> None:
    if operation.get("security") == ANONYMOUS:
        operation["security"] = []
    responses = operation["responses"]
    automatic = responses.get("422", {}).get("content", {})
    if "application/json" in automatic:  # the library's own, whose form is not ours
        del responses["422"]
    statuses = [*_ALWAYS]
    if operation.get("security") != []:
        statuses.append(401)
    if "parameters" in operation or "requestBody" in operation:
        statuses.append(422)
    if method in ("post", "put", "patch"):
        statuses += [413, 415, 422]
    if "{" in path:
        statuses.append(404)
    for status, description in problems(*statuses).items():
        responses.setdefault(str(status), description)
    operation["responses"] = dict(sorted(responses.items()))
