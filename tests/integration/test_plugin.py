"""The example plug-in, installed as a person would, trained through the whole of Modelyard."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from tests.services import RedisService, wait_for
from tests.worker_service import ROOT, Instance, instance, job_is
from webapp.extensions import db
from webapp.models import Job, Metric

EXAMPLE = ROOT / "examples" / "modelyard-nearest-mean"

# In a process that has the plug-in: what a person sees of it, and a job of it that is started.
SEEN_AND_STARTED = """
import json, sys
import celeryconfig
from webapp import create_app
from webapp.extensions import db
from webapp.models import User
from webapp.services import auth

app = create_app()
with app.app_context():
    user = User(email="ada@example.org", name="ada", password_hash="none", is_admin=True)
    db.session.add(user)
    db.session.commit()
    token = auth.open_session(user).access_token
client = app.test_client()

def call(method, address, **body):
    answer = client.open("/api/v1" + address, method=method, json=body or None,
                         headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code < 300, answer.text
    return answer.json

project = call("POST", "/projects", name="digits")["id"]
dataset = call("POST", "/datasets", project_id=project, name="digits", path="digits")["id"]
client.set_cookie(app.config["JWT_ACCESS_COOKIE_NAME"], token)
page = client.get(f"/projects/{project}/jobs/new")
job = call("POST", "/training/jobs", project_id=project, dataset_id=dataset,
           framework="nearest-mean", model_name="mean8", task_type="image_classification",
           epochs=2, batch_size=1, learning_rate=0.02, hyperparameters={"push": 0.25})
call("POST", f"/training/jobs/{job['id']}/start")
heavy = {"torch", "modelyard_nearest_mean.adapter"}
json.dump({
    "frameworks": call("GET", "/frameworks")["items"],
    "models": call("GET", "/models?framework=nearest-mean")["items"],
    "form": page.text,
    "queues": [queue.name for queue in celeryconfig.task_queues],
    "job": job["id"],
    "heavy": sorted(heavy & set(sys.modules)),
}, sys.stdout)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that the example is installed in."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(EXAMPLE, folder / "source")  # building writes beside the sources
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--target", str(folder / "site"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture
def there(tmp_path: Path, redis_service: RedisService, installed: Path) -> Iterator[Instance]:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with instance(tmp_path, database_url=url, redis=redis_service) as there:
        there.environ["PYTHONPATH"] = str(installed)
        yield there


def run(there: Instance, program: str) -> Any:
    environ = {**os.environ, **there.environ}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT, env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.timeout(600)
def test_a_plugins_job_is_described_queued_and_trained_with_no_change_to_modelyard(
    there: Instance,
) -> None:
    there.recorder()
    there.worker("w1", frameworks="nearest-mean")
    seen = run(there, SEEN_AND_STARTED)
    assert seen["heavy"] == []
    offered = {item["name"]: item for item in seen["frameworks"]}["nearest-mean"]
    assert (offered["title"], offered["queue"]) == ("Nearest mean", "nearest-mean")
    assert offered["hyperparameters"]["properties"]["push"]["maximum"] == 1
    assert [model["name"] for model in seen["models"]] == ["mean16", "mean32", "mean8"]
    assert "Nearest mean" in seen["form"]
    assert "nearest-mean" in seen["queues"]
    job = db.session.get(Job, seen["job"])
    assert job is not None
    ended = job_is(job, lambda j: j.status in ("completed", "failed"))
    try:
        wait_for(ended, timeout_seconds=240, what="the plug-in's job")
    except TimeoutError as error:
        state = (job.status, job.progress, job.error)
        raise AssertionError(f"{error}; it is {state}\n{there.logs()}") from None
    assert (job.status, job.error) == ("completed", None), there.logs()
    assert job.accuracy is not None
    assert job.accuracy > 0.8
    epochs = select(Metric.epoch).where(Metric.name == "top1").order_by(Metric.epoch)
    assert list(db.session.scalars(epochs)) == [1, 2]


def test_the_examples_own_tests_pass(installed: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--no-header", str(EXAMPLE / "tests")],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(installed)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
