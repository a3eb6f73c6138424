"""A real timm job through real processes: evaluation, card, predictions, exports, in both modes."""

from __future__ import annotations

import contextlib
import io
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import psutil
import pytest
import torch
from flask import Flask, current_app
from PIL import Image
from redis import Redis
from sqlalchemy import select
from werkzeug.test import TestResponse

from adapters import get_adapter, wire
from adapters.contract import DatasetFormat, TaskType
from modelyard.ports import free_port
from tests.factories import make_job
from tests.services import RedisService, wait_for
from tests.shapes import compose
from tests.worker_service import Instance, instance, job_is
from webapp.extensions import db
from webapp.models import Artifact, Export, Job, JobEvent, User
from webapp.services import auth, exports, job_actions
from webapp.services.executors import training_job

TINY = {"model_name": "test_resnet", "image_size": 64, "batch_size": 12}
FINAL = ("completed", "failed", "cancelled")


class Caller:
    """An administrator who calls the API of the application in this process."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        user = User(email="ada@example.org", name="Ada", password_hash="none", is_admin=True)
        db.session.add(user)
        db.session.commit()
        self.headers = {"Authorization": f"Bearer {auth.open_session(user).access_token}"}

    def __call__(self, method: str, path: str, **request: Any) -> TestResponse:
        address = f"/api/v1/training/jobs/{path}"
        return self._app.test_client().open(address, method=method, headers=self.headers, **request)

    def predict(self, job: Job, image: bytes, **fields: str) -> TestResponse:
        form = {"file": (io.BytesIO(image), "image.png"), **fields}
        return self("POST", f"{job.id}/predict", data=form)


@contextmanager
def trained(there: Instance, **fields: Any) -> Iterator[tuple[Job, Caller]]:
    """Give a job on the shapes that was trained to its end."""
    task_type = TaskType(fields.pop("task_type", TaskType.IMAGE_CLASSIFICATION))
    format = DatasetFormat(fields.pop("dataset_format", DatasetFormat.IMAGEFOLDER))
    data = compose(there.data / "shapes", format=format, task_type=task_type)
    described = {"epochs": 2, **TINY, **fields}
    job = make_job(dataset_path=str(data), dataset_format=format, task_type=task_type, **described)
    app: Any = current_app
    caller = Caller(app._get_current_object())
    answer = caller.predict(job, b"")
    assert answer.status_code == 409, "it has no model yet"
    assert "pending" in answer.json["detail"]
    job_actions.start(job, actor="test")
    try:
        wait_for(job_is(job, lambda job: job.status in FINAL), timeout_seconds=240, what="the end")
    except TimeoutError as error:
        raise AssertionError(f"{error}\n{there.logs()}") from None
    assert (job.status, job.error) == ("completed", None), there.logs()
    yield job, caller


@pytest.fixture
def by_celery(tmp_path: Path, redis_service: RedisService) -> Iterator[Instance]:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with instance(tmp_path, database_url=url, redis=redis_service) as there:
        there.recorder()
        there.worker("w1")
        yield there


@pytest.fixture
def by_subprocess(tmp_path: Path) -> Iterator[Instance]:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with instance(tmp_path, database_url=url, redis=None) as there:
        there.recorder()
        yield there
        current_app.extensions["modelyard_tool"].close()


@pytest.mark.timeout(900)  # six processes that import torch, one of them at a low priority
@pytest.mark.parametrize("mode", ["by_celery", "by_subprocess"])
def test_a_trained_job_is_evaluated_described_asked_and_exported(
    mode: str, request: pytest.FixtureRequest
) -> None:
    there: Instance = request.getfixturevalue(mode)
    with trained(there) as (job, call):
        evaluation = call("GET", f"{job.id}/evaluation")
        assert evaluation.status_code == 200, log_of(job)
        val = evaluation.json["splits"]["val"]
        assert val["images"] == 12
        # The same images, the same model: what training measured is what evaluation finds.
        assert job.best is not None
        assert val["metrics"]["top1"] == pytest.approx(job.best["value"], abs=1e-6)
        for entry in val["wrong"]:
            picture = call("GET", f"{job.id}/evaluation/wrong/{entry['file']}")
            assert (picture.status_code, picture.mimetype) == (200, "image/jpeg")
        card = call("GET", f"{job.id}/artifacts/model_card.md").text
        assert "test\\_resnet" in card
        assert "### Evaluation of the best model: val" in card
        the_cards_code_loads_the_model(there, job, card)

        a_prediction_agrees_with_the_adapter(there, job, call)
        if mode == "by_subprocess":
            the_deployed_web_process_predicts(there, job, call)
        what_is_no_image_is_refused(job, call)
        both_exports_become_artifacts(there, job, call)


def the_cards_code_loads_the_model(there: Instance, job: Job, card: str) -> None:
    """What a person copies from the card into a notebook works, in plain timm."""
    found = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    with contextlib.chdir(there.home / "outputs" / wire.job_folder(job.id)):
        exec(found[1], names)
    with Image.new("RGB", (80, 60)) as image:
        assert names["model"](names["transform"](image)[None]).shape == (1, 3)


def a_prediction_agrees_with_the_adapter(there: Instance, job: Job, call: Caller) -> None:
    file = next((there.data / "shapes" / "val" / "disc").iterdir())
    first = call.predict(job, file.read_bytes())
    assert first.status_code == 200, f"{first.text}\n{there.logs()}"
    began = time.monotonic()
    warm = call.predict(job, file.read_bytes())
    print(f"\nwarm prediction: {1000 * (time.monotonic() - began):.0f} ms")
    assert warm.json["classes"] == first.json["classes"]
    assert warm.json["model"]["job_id"] == job.id
    placed = training_job(job).placed(
        output_dir=there.home / "outputs" / wire.job_folder(job.id),
        weights_dir=there.home,
        compute_device="cpu",
    )
    predictor = get_adapter("timm").load(placed)
    with Image.open(file) as image:
        [expected] = predictor.predict([image.convert("RGB")])
    assert expected.scores is not None
    told = {entry["name"]: entry["score"] for entry in warm.json["classes"]}
    for name, score in zip(predictor.classes, expected.scores, strict=True):
        assert told[name] == pytest.approx(float(score), abs=1e-4)
    scores = [entry["score"] for entry in warm.json["classes"]]
    assert scores == sorted(scores, reverse=True)


def the_deployed_web_process_predicts(there: Instance, job: Job, call: Caller) -> None:
    """Where threads are greenlets, the tool process is a child of gunicorn's."""
    address = f"http://127.0.0.1:{free_port()}"
    there.start(
        "gunicorn", "webapp.wsgi:app", "-k", "gevent", "-w", "1", "--no-control-socket",
        "--graceful-timeout", "1", "-b", address.removeprefix("http://"),
    )  # fmt: skip

    def answers() -> bool:
        try:
            return httpx.get(f"{address}/healthz").status_code == 200
        except httpx.TransportError:
            return False

    wait_for(answers, timeout_seconds=120, what="an answer of gunicorn")
    file = next((there.data / "shapes" / "val" / "disc").iterdir())
    answer = httpx.post(
        f"{address}/api/v1/training/jobs/{job.id}/predict",
        files={"file": file.read_bytes()}, headers=call.headers, timeout=130,
    )  # fmt: skip
    assert answer.status_code == 200, f"{answer.text}\n{there.logs()}"
    assert len(answer.json()["classes"]) == 3


def what_is_no_image_is_refused(job: Job, call: Caller) -> None:
    assert call.predict(job, b"no image at all").status_code == 422
    no_file = {"data": {"file": "x"}, "content_type": "multipart/form-data"}
    assert call("POST", f"{job.id}/predict", **no_file).status_code == 422
    assert call("POST", f"{job.id}/predict", json={"file": "x"}).status_code == 415
    large = b"\0" * (wire.MAX_ASKED_IMAGE_BYTES + 200_000)
    assert call.predict(job, large).status_code == 413


def both_exports_become_artifacts(there: Instance, job: Job, call: Caller) -> None:
    asked = [
        call("POST", f"{job.id}/export", json={"format": format})
        for format in ("onnx", "torchscript", "onnx")
    ]
    assert [answer.status_code for answer in asked] == [202, 202, 202]
    assert asked[0].json["id"] == asked[2].json["id"], "the same, while it is on its way"

    def ended() -> list[dict[str, Any]] | None:
        db.session.rollback()
        items: list[dict[str, Any]] = call("GET", f"{job.id}/exports").json["items"]
        return items if all(item["status"] in ("completed", "failed") for item in items) else None

    made = {item["format"]: item for item in wait_for(ended, timeout_seconds=400) or []}
    assert {item["status"] for item in made.values()} == {"completed"}, f"{made} {there.logs()}"
    folder = there.home / "outputs" / wire.job_folder(job.id)
    for item in made.values():
        assert 0 <= item["largest_difference"] <= 1e-4
        artifact = db.session.scalar(select(Artifact).filter_by(name=item["artifact"]))
        assert artifact is not None
        assert (artifact.kind, artifact.job_id) == ("export", job.id)
        assert (folder / artifact.name).stat().st_size == artifact.size
    print({name: item["largest_difference"] for name, item in made.items()})
    model = onnx.load(folder / made["onnx"]["artifact"])
    inside = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(inside["classes"]) == ["disc", "square", "triangle"]
    assert inside["job_id"] == str(job.id)
    extra = {"modelyard.json": ""}
    scripted = torch.jit.load(folder / made["torchscript"]["artifact"], _extra_files=extra)
    assert json.loads(extra["modelyard.json"])["model_name"] == "test_resnet"
    [scores] = scripted(torch.zeros(3, 3, 64, 64))
    assert scores.shape == (3, 3)
    told = [event.data for event in db.session.scalars(select(JobEvent).filter_by(type="export"))]
    assert {entry["status"] for entry in told} >= {"requested", "completed"}


def test_predictions_are_answered_while_the_only_slot_trains(by_celery: Instance) -> None:
    with trained(by_celery) as (job, call):
        file = next((by_celery.data / "shapes" / "val" / "disc").iterdir()).read_bytes()
        longer = make_job(dataset_path=job.dataset_path, **{**TINY, "epochs": 5000})
        job_actions.start(longer, actor="test")
        runs = job_is(longer, lambda job: job.status == "running")
        wait_for(runs, timeout_seconds=120, what="training")
        assert call.predict(job, file).status_code == 200
        db.session.refresh(longer)
        assert longer.status == "running"


def test_without_a_worker_one_is_told_so_at_once(tmp_path: Path, redis_url: str) -> None:
    from tests.factories import application, environment

    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with application(environment(tmp_path, database_url=url, redis_url=redis_url)) as app:
        job = make_job(status="completed", best_model_path="checkpoints/best.safetensors")
        call = Caller(app)
        for answer in (
            call.predict(job, b"x"),
            call("POST", f"{job.id}/export", json={"format": "onnx"}),
        ):
            assert answer.status_code == 503
            assert "No worker of the framework 'timm' is up" in answer.json["detail"]
        assert call("GET", f"{job.id}/exports").json["total"] == 0
        assert call("GET", f"{job.id}/evaluation").status_code == 404


def test_an_export_that_redis_lost_is_sent_again_and_one_whose_worker_died_fails(
    tmp_path: Path, redis_service: RedisService
) -> None:
    from tests.factories import application, environment

    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    environ = environment(tmp_path, database_url=url, redis_url=redis_service.url)
    with application(environ), redis_service.client() as client:
        job = make_job(status="completed", best_model_path="checkpoints/best.safetensors")
        export = Export(job_id=job.id, format="onnx", status="requested", requested_by="test")
        db.session.add(export)
        db.session.commit()
        key = wire.ask_key("timm", wire.AskKind.EXPORT)
        exports.follow()
        exports.follow()
        assert client.llen(key) == 1, "sent, and not once more while it waits"
        name = exports.request_id(export)
        client.delete(key)
        client.set(wire.asked_key(name), "w1")
        exports.follow()
        db.session.refresh(export)
        assert export.status == "running"
        client.delete(wire.asked_key(name))
        exports.follow()
        db.session.refresh(export)
        assert (export.status, export.error["kind"]) == ("failed", "worker_lost")


def test_an_answer_to_the_export_of_a_deleted_job_is_no_other_jobs(
    tmp_path: Path, redis_url: str
) -> None:
    from tests.factories import application, environment

    def requested() -> Export:
        job = make_job(status="completed", best_model_path="checkpoints/best.safetensors")
        export = Export(job_id=job.id, format="onnx", status="requested", requested_by="test")
        db.session.add(export)
        db.session.commit()
        return export

    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with (
        application(environment(tmp_path, database_url=url, redis_url=redis_url)),
        Redis.from_url(redis_url) as client,
    ):
        gone = requested()
        number, name = gone.id, exports.request_id(gone)
        db.session.delete(db.session.get_one(Job, gone.job_id))
        db.session.commit()
        error = {"kind": "unsupported", "message": "of the deleted one", "hint": ""}
        client.lpush(wire.answer_key(name), json.dumps({"error": error}))
        export = requested()
        assert export.id == number, "SQLite gives the newest one's number again"
        exports.follow()
        db.session.refresh(export)
        assert export.status == "requested"


def test_the_tool_process_ends_with_whoever_started_it(tmp_path: Path) -> None:
    import subprocess
    import sys

    script = (
        "import sys\n"
        "from modelyard.settings import load_settings\n"
        "from modelyard.tool_process import PREDICTIONS, ToolProcess\n"
        "tool = ToolProcess(load_settings({'MODELYARD_HOME': sys.argv[1]}), purpose=PREDICTIONS)\n"
        "print(tool.ask({'kind': 'nonsense'})['error']['kind'])\n"
        "print(tool._process.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert parent.stdout is not None
    assert parent.stdout.readline().strip() == "unsupported"
    tool = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    tool.wait(60)
    for end in (parent.stdin, parent.stdout):
        assert end is not None
        end.close()


def log_of(job: Job) -> str:
    events = db.session.scalars(select(JobEvent).filter_by(type="log", job_id=job.id))
    return "".join(event.data["text"] for event in events)


def test_random_bytes_are_never_an_image() -> None:
    from adapters.data.description import DatasetError
    from adapters.images import open_rgb

    rng = np.random.default_rng(0)
    for start in (
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"GIF89a",
        b"%!PS-Adobe-3.0 EPSF",
    ):
        with pytest.raises(DatasetError, match="cannot be read as an image"):
            open_rgb(start + rng.bytes(200))
