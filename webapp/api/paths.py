"""What addresses hold: ids, which are numbers that a database can hold."""

from __future__ import annotations

from flask import Flask
from pydantic import BaseModel
from werkzeug.routing import IntegerConverter

from webapp.fields import MAX_ID, Id, Uuid


class IdConverter(IntegerConverter):
    """A whole number from 1; anything else is not found rather than wrong."""

    def __init__(self, map: object, **options: object) -> None:
        super().__init__(map, min=1, max=MAX_ID)  # type: ignore[arg-type]


def init_app(app: Flask) -> None:
    app.url_map.converters["id"] = IdConverter


class TokenPath(BaseModel):
    token_id: Id


class ProjectPath(BaseModel):
    project_id: Id


class MemberPath(ProjectPath):
    user_id: Id


class DatasetPath(BaseModel):
    dataset_id: Id


class CheckPath(BaseModel):
    check_id: Uuid


class JobPath(BaseModel):
    job_id: Id
