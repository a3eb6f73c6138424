"""Asking for what is done with trained models, by whichever way this host reaches them.

In `celery` mode a worker of the job's framework is asked through Redis; in `subprocess` mode the
tool process is this process's own child. Routes do not care: they call :func:`predict`.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from typing import Any, cast

import redis
from flask import Flask, current_app

from adapters import wire
from adapters.wire import INVALID_IMAGE, AskKind
from modelyard.settings import Settings
from modelyard.tool_process import PREDICTIONS, ToolError, ToolProcess
from webapp.models import Job, JobStatus
from webapp.services import broker
from webapp.services.errors import Conflict, Invalid, Unavailable
from webapp.services.executors import training_job

_PREDICT_SECONDS = PREDICTIONS.timeout_seconds
_TAKEN_WITHIN_SECONDS = 20.0  # a worker that is up takes a request at once, or is at another
_POLL_SECONDS = 1  # of a blocking read: below the client's own timeout


def init_app(app: Flask, settings: Settings) -> None:
    """Prepare the tool process of a host without a broker; it starts when it is needed."""
    if settings.execution_mode == "subprocess":
        app.extensions["modelyard_tool"] = ToolProcess(settings, purpose=PREDICTIONS)


def predict(job: Job, *, image: bytes, threshold: float) -> dict[str, Any]:
    """Return what a job's best model says of an image (a file's content).

    Raises Conflict where the job has no model, Invalid where the image cannot be read, and
    Unavailable where nobody answers.
    """
    require_model(job)
    request = {
        **ask(job, AskKind.PREDICT, seconds=_PREDICT_SECONDS),
        "image": base64.b64encode(image).decode(),
        "threshold": threshold,
    }
    if broker.uses_broker():
        require_worker(job.framework)
        answer = _ask_worker(job.framework, request)
    else:
        answer = _ask_here(request)
    if error := answer.get("error"):
        _refuse(error)
    prediction: dict[str, Any] = answer["prediction"]
    return prediction


def ask(
    job: Job, kind: AskKind, *, seconds: float, request_id: str | None = None
) -> dict[str, Any]:
    """Return a request about a job's model, without what is its kind's own."""
    return {
        "id": request_id or secrets.token_hex(16),
        "kind": str(kind),
        "job": training_job(job).to_message(),
        "expires_at": time.time() + seconds,
    }


def require_model(job: Job) -> None:
    """Raise Conflict where a job has no model that could be used."""
    if not JobStatus(job.status).ended:
        raise Conflict(f"Job {job.id} is {job.status}; its model can be used when it has ended")
    if job.best_model_path is None:
        raise Conflict(f"Job {job.id} has left no model: it is {job.status}")


def require_worker(framework: str) -> None:
    """Raise Unavailable where no worker is up that has a framework."""
    if not any(framework in worker["frameworks"] for worker in broker.workers()):
        raise Unavailable(
            f"No worker of the framework '{framework}' is up; start one and try again"
        )


def send(framework: str, request: dict[str, Any]) -> None:
    """Put a request where the framework's workers take it. Raises Unavailable."""
    key = wire.ask_key(framework, AskKind(request["kind"]))
    try:
        broker.redis_client().rpush(key, json.dumps(request))
    except redis.RedisError as error:
        raise Unavailable(f"The broker cannot be reached ({type(error).__name__})") from error


def _ask_worker(framework: str, request: dict[str, Any]) -> dict[str, Any]:
    client = broker.redis_client()
    text = json.dumps(request)
    key = wire.ask_key(framework, AskKind.PREDICT)
    answer_key, asked_key = wire.answer_key(request["id"]), wire.asked_key(request["id"])
    began = time.monotonic()
    try:
        client.rpush(key, text)
        while time.monotonic() - began < _PREDICT_SECONDS:
            answer = cast("list[str] | None", client.blpop([answer_key], timeout=_POLL_SECONDS))
            if answer is not None:
                told: dict[str, Any] = json.loads(answer[1])
                return told
            waited = time.monotonic() - began
            if waited > _TAKEN_WITHIN_SECONDS and not client.exists(asked_key):
                break
        client.lrem(key, 1, text)
    except redis.RedisError as error:
        raise Unavailable(f"The broker cannot be reached ({type(error).__name__})") from error
    raise Unavailable(
        f"No worker of the framework '{framework}' has answered in "
        f"{time.monotonic() - began:.0f} s; is it overloaded?"
    )


def _ask_here(request: dict[str, Any]) -> dict[str, Any]:
    tool: ToolProcess = current_app.extensions["modelyard_tool"]
    try:
        return tool.ask(request)
    except ToolError as error:
        raise Unavailable(f"The model cannot be used now: {error}") from error


def _refuse(error: dict[str, str]) -> None:
    message = " ".join(part for part in (error["message"], error["hint"]) if part)
    if error["kind"] == INVALID_IMAGE:
        raise Invalid({"file": [message]})
    raise Conflict(message)
