"""What follows training over the API: who may, what is refused, and no path leads out."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from adapters import wire
from tests.api import Api, Person
from webapp.extensions import db
from webapp.models import Artifact, Export, Job
from webapp.models.columns import utc_now

PICTURE = b"\xff\xd8\xff a picture"


@pytest.fixture
def ada(api: Api) -> Person:
    """The owner of a project with a job."""
    ada = api.person("ada")
    project = ada.project()
    ada.owns = {"project": project, "job": ada.job(project, api.dataset(project))["id"]}
    return ada


@pytest.fixture
def bob(api: Api, ada: Person) -> Person:
    """A viewer of Ada's project."""
    bob = api.person("bob")
    members = f"/projects/{ada.owns['project']}/members"
    assert ada.post(members, {"email": bob.email, "role": "viewer"}).status_code in (200, 201)
    return bob


def ends(api: Api, job_id: int) -> None:
    with api.app.app_context():
        job = db.session.get_one(Job, job_id)
        job.status, job.best_model_path = "completed", "checkpoints/best.safetensors"
        db.session.commit()


def keeps(api: Api, job_id: int, name: str, content: bytes) -> None:
    root = Path(api.app.config["MODELYARD"].outputs) / wire.job_folder(job_id)
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    with api.app.app_context():
        values: dict[str, Any] = {"size": len(content), "sha256": "0" * 64, "kind": "evaluation"}
        db.session.add(
            Artifact(job_id=job_id, attempt=1, name=name, created_at=utc_now(), **values)
        )
        db.session.commit()


def image() -> dict[str, Any]:
    return {"data": {"file": (io.BytesIO(b"an image"), "a.png")}}


def test_a_job_without_a_model_can_neither_predict_nor_be_exported(ada: Person) -> None:
    job = f"/training/jobs/{ada.owns['job']}"
    for answer in (
        ada.call("POST", f"{job}/predict", **image()),
        ada.post(f"{job}/export", {"format": "onnx"}),
    ):
        assert answer.status_code == 409
        assert "is pending" in answer.json["detail"]
    assert ada.get(f"{job}/exports").json == {"items": [], "next_cursor": None, "total": 0}


def test_an_export_is_asked_for_once_while_it_is_on_its_way(api: Api, ada: Person) -> None:
    ends(api, ada.owns["job"])
    job = f"/training/jobs/{ada.owns['job']}"
    first = ada.post(f"{job}/export", {"format": "onnx"})
    assert (first.status_code, first.json["status"]) == (202, "requested")
    assert first.json["requested_by"].endswith("ada@example.org")
    assert ada.post(f"{job}/export", {"format": "onnx"}).json["id"] == first.json["id"]
    other = ada.post(f"{job}/export", {"format": "torchscript"}).json
    assert [row["id"] for row in ada.get(f"{job}/exports").json["items"]] == [
        other["id"], first.json["id"]
    ]  # fmt: skip
    with api.app.app_context():
        db.session.get_one(Export, first.json["id"]).status = "failed"
        db.session.commit()
    assert ada.post(f"{job}/export", {"format": "onnx"}).json["id"] > other["id"]
    assert ada.post(f"{job}/export", {"format": "pickle"}).status_code == 422


def test_a_viewer_may_look_but_not_export(api: Api, ada: Person, bob: Person) -> None:
    ends(api, ada.owns["job"])
    job = f"/training/jobs/{ada.owns['job']}"
    assert bob.post(f"{job}/export", {"format": "onnx"}).status_code == 403
    assert bob.get(f"{job}/exports").status_code == 200
    stranger = api.person("eve")
    for path in ("exports", "evaluation", "evaluation/wrong/val-01.jpg"):
        assert stranger.get(f"{job}/{path}").status_code == 404
    assert stranger.call("POST", f"{job}/predict", **image()).status_code == 404


def test_the_evaluation_is_not_found_before_there_is_one(api: Api, ada: Person) -> None:
    job = f"/training/jobs/{ada.owns['job']}"
    assert ada.get(f"{job}/evaluation").status_code == 404
    whole = {
        "version": 1,
        "task_type": "image_classification",
        "framework": "timm",
        "model_name": "resnet18",
        "attempt": 1,
        "splits": {"val": {"images": 3}},
    }
    keeps(api, ada.owns["job"], "evaluation/evaluation.json", json.dumps(whole).encode())
    assert ada.get(f"{job}/evaluation").json == whole


def test_only_pictures_of_the_evaluation_are_shown(api: Api, ada: Person) -> None:
    job_id = ada.owns["job"]
    keeps(api, job_id, "evaluation/wrong/val-01.jpg", PICTURE)
    keeps(api, job_id, "checkpoints/best.safetensors", b"secret")
    folder = f"/training/jobs/{job_id}/evaluation/wrong"
    shown = ada.get(f"{folder}/val-01.jpg")
    assert (shown.status_code, shown.mimetype, shown.data) == (200, "image/jpeg", PICTURE)
    for name in ("val-02.jpg", "..%2F..%2Fcheckpoints%2Fbest.safetensors", "%2Fetc%2Fpasswd"):
        assert ada.get(f"{folder}/{name}").status_code == 404


def test_what_is_no_form_with_an_image_is_refused_before_anybody_is_asked(
    api: Api, ada: Person
) -> None:
    ends(api, ada.owns["job"])
    predict = f"/training/jobs/{ada.owns['job']}/predict"
    assert ada.post(predict, {"file": "x"}).status_code == 415
    form = "multipart/form-data"
    assert ada.call("POST", predict, data={"file": "x"}, content_type=form).status_code == 422
    two = {**image()["data"], "more": "x"}
    assert ada.call("POST", predict, data=two).status_code == 422
    wrong = {**image()["data"], "threshold": "2"}
    assert ada.call("POST", predict, data=wrong).status_code == 422
    large = (io.BytesIO(b"\0" * (wire.MAX_ASKED_IMAGE_BYTES + 200_000)), "a.png")
    assert ada.call("POST", predict, data={"file": large}).status_code == 413
