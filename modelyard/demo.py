"""`modelyard demo`: a client of the REST API that trains a real model on the sample data.

Nothing here reaches around the API: what the demo does, any client can do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from modelyard.client import Client, ClientError, Json, Unauthorized
from modelyard.demo_view import JobView
from modelyard.errors import ModelyardError
from modelyard.samples import make_samples
from modelyard.settings import Settings, kept_secret
from modelyard.supervisor import Supervisor
from modelyard.up import Plan, up

PROJECT = "Handwritten digits"


@dataclass(frozen=True)
class Demo:
    """A sample data set and the job that trains on it."""

    sample: str
    dataset_name: str
    job: Json


CLASSIFICATION = Demo(
    sample="digits",
    dataset_name="Digits",
    job={
        "name": "Demo: resnet18 on digits",
        "framework": "timm",
        "model_name": "resnet18",
        "task_type": "image_classification",
        "epochs": 10,
        "batch_size": 64,
        "learning_rate": 0.002,
        "optimizer": "adamw",
        "image_size": 32,
        "pretrained": False,
        "seed": 0,
        "hyperparameters": {},
    },
)

DETECTION = Demo(
    sample="scenes",
    dataset_name="Digit scenes",
    job={
        "name": "Demo: yolo11n on digit scenes",
        "framework": "ultralytics",
        "model_name": "yolo11n",
        "task_type": "object_detection",
        "epochs": 15,
        "batch_size": 16,
        "learning_rate": 0.002,
        "optimizer": "adamw",
        "image_size": 160,
        "pretrained": False,
        "seed": 0,
        "hyperparameters": {"mosaic": 0.0, "plots": False},
    },
)


class DemoError(ModelyardError):
    """The demo could not be carried out."""


def run_demo(settings: Settings, *, demo: Demo, stop_afterwards: bool, console: Console) -> bool:
    """Start everything, train the demo's job, and serve until a signal; tell if it completed."""

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    supervisor = Supervisor(say=say)
    outcome: list[BaseException | bool] = []

    def train(plan: Plan) -> None:
        try:
            outcome.append(train_sample(plan.url, settings, demo=demo, console=console))
        except ModelyardError as error:
            outcome.append(error)
            say(f"modelyard demo: {error}")
        finally:
            if stop_afterwards:
                supervisor.request_stop()
        if not stop_afterwards:
            say("Serving until Ctrl-C.")

    def start_training(plan: Plan) -> None:
        # The main thread goes on supervising; a demo cut short by Ctrl-C is no loss.
        threading.Thread(target=train, args=(plan,), name="demo", daemon=True).start()

    up(settings, say=say, supervisor=supervisor, ready=start_training)
    return outcome == [True]


def train_sample(url: str, settings: Settings, *, demo: Demo, console: Console) -> bool:
    """Train the demo's job through the API at `url`; tell whether it completed."""
    samples = make_samples(settings.data_roots[0] / "samples", names=[demo.sample])
    with Client(url) as client:
        email, password = _log_in(client, settings)
        job = _create_job(client, demo, samples[demo.sample])
        client.post(f"/training/jobs/{job['id']}/start")
        with JobView(console, job) as view:
            for event in client.events(job["id"]):
                view.show(event)
        job = client.get(f"/training/jobs/{job['id']}")
        _report(client, job, console.print)
    console.print(f"Dashboard       {url}", highlight=False)
    console.print(f"Login           {email} / {password}", markup=False, highlight=False)
    return bool(job["status"] == "completed")


def _log_in(client: Client, settings: Settings) -> tuple[str, str]:
    password = settings.admin_password or kept_secret(settings.home / "admin.password", nbytes=9)
    try:
        client.login(settings.admin_email, password)
    except Unauthorized:
        raise DemoError(
            f"the password of {settings.admin_email} has been changed; "
            "set MODELYARD_ADMIN_PASSWORD to it, or MODELYARD_HOME to a new folder"
        ) from None
    return settings.admin_email, password


def _create_job(client: Client, demo: Demo, path: Path) -> Json:
    project = _find_or_create(client, "/projects", {"name": PROJECT})
    dataset = _find_or_create(
        client,
        "/datasets",
        {"project_id": project["id"], "name": demo.dataset_name, "path": str(path)},
    )
    if dataset["status"] != "valid":
        raise DemoError(f"the sample data set is not valid: {dataset['problems']}")
    job: Json = client.post(
        "/training/jobs", {**demo.job, "project_id": project["id"], "dataset_id": dataset["id"]}
    )
    return job


def _find_or_create(client: Client, path: str, body: Json) -> Json:
    """Return the thing of that name from an earlier demo, or make it."""
    for item in client.items(path):
        if all(item.get(name) == value for name, value in body.items() if name != "path"):
            return item
    created: Json = client.post(path, body)
    return created


def _report(client: Client, job: Json, write: Callable[..., Any]) -> None:
    def line(label: str, text: str) -> None:
        write(f"{label:<15} {text}", markup=False, highlight=False, soft_wrap=True)

    if job["status"] != "completed":
        error = job["error"] or {}
        line("Job", f"{job['id']} is {job['status']}: {error.get('message', 'no error is known')}")
        if hint := error.get("hint"):
            line("", hint)
        return
    name = {"top1": "top-1", "map50": "mAP50"}.get(job["best"]["metric"], job["best"]["metric"])
    line("Final accuracy", f"{job['accuracy']:.4f} ({name} on the validation split)")
    line("Best checkpoint", _best_checkpoint(client, job))


def _best_checkpoint(client: Client, job: Json) -> str:
    for artifact in client.items(f"/training/jobs/{job['id']}/artifacts"):
        if artifact["kind"] == "checkpoint" and Path(artifact["name"]).stem == "best":
            return str(Path(job["output_dir"]) / artifact["name"])
    raise ClientError(f"job {job['id']} completed but has no artifact 'best'")
