"""/healthz, /readyz and /metrics: for what watches over the services."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Response
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from webapp import telemetry
from webapp.api.document import ANONYMOUS, problems, resource
from webapp.api.problems import problem
from webapp.api.schemas.base import Out
from webapp.extensions import db
from webapp.services import broker, schema
from webapp.services.errors import Unavailable

blueprint = resource("operations", title="Operations", prefix="")

_TEXT: dict[str, Any] = {
    "description": "Metrics in Prometheus' text form",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}


class HealthOut(Out):
    status: str


@blueprint.get("/healthz", security=ANONYMOUS, responses={200: HealthOut})
def healthz() -> tuple[dict[str, str], int]:
    """Tell that the process lives"""
    return {"status": "alive"}, 200


@blueprint.get("/readyz", security=ANONYMOUS, responses={200: HealthOut, **problems(503)})
def readyz() -> Any:
    """Tell whether database and broker answer; if not, which does not"""
    wrong = [*_try("database", _check_database), *_try("broker", _check_broker)]
    if wrong:
        return problem(503, "Service unavailable", "; ".join(wrong))
    return {"status": "ready"}, 200


@blueprint.get("/metrics", security=ANONYMOUS, responses={200: _TEXT})
def metrics() -> Response:
    """Tell Prometheus how things stand"""
    response = Response(telemetry.exposition())
    response.headers["Content-Type"] = "text/plain; version=1.0.0; charset=utf-8"
    return response


def _check_database() -> None:
    try:
        db.session.execute(text("SELECT 1"))
        schema.check()
    except (SQLAlchemyError, PoolTimeout) as error:
        db.session.rollback()
        raise Unavailable(f"it does not answer ({type(error).__name__})") from error


def _check_broker() -> None:
    if broker.uses_broker():
        broker.ping()


def _try(name: str, check: Callable[[], None]) -> list[str]:
    try:
        check()
    except Unavailable as error:
        return [f"{name}: {error.detail}"]
    return []
