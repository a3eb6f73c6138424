"""Data sets by their path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from tests.api import Api, Person, serve
from webapp.extensions import db
from webapp.models import Job


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with serve(tmp_path) as served:
        yield served


@pytest.fixture
def ada(api: Api) -> Person:
    person = api.person("ada")
    assert person.project() == 1
    return person


def register(person: Person, path: str, **fields: object) -> object:
    return person.post("/datasets", {"project_id": 1, "name": "shades", "path": path, **fields})


def test_a_folder_is_registered_with_its_counts(api: Api, ada: Person) -> None:
    folder = api.image_folder()
    answer = register(ada, str(folder))
    assert answer.status_code == 201
    found = answer.json
    assert found["format"] == "imagefolder"
    assert found["task_type"] == "image_classification"
    assert (found["num_images"], found["num_classes"]) == (12, 2)
    assert found["classes"] == ["dark", "light"]
    assert found["splits"] == {"train": 8, "val": 4}
    assert (found["status"], found["problems"]) == ("valid", [])
    assert found["path"] == str(folder)
    assert ada.get(f"/datasets/{found['id']}").json == found
    assert ada.get("/datasets", project_id=1).json["items"] == [found]


def test_what_lies_outside_the_data_roots_is_refused(api: Api, ada: Person, tmp_path: Path) -> None:
    folder = api.image_folder()
    outside = tmp_path / "outside"
    folder.rename(outside)
    (api.data / "link").symlink_to(outside)
    for path in (str(outside), "../outside", f"{api.data}/../outside", "link", "/etc", "a\0b"):
        answer = register(ada, path)
        assert answer.status_code == 422, path
        assert list(answer.json["errors"]) == ["path"]
    assert ada.get("/datasets").json["total"] == 0


def test_a_folder_that_is_no_data_set_is_refused(api: Api, ada: Person) -> None:
    (api.data / "empty").mkdir()
    assert register(ada, "empty").status_code == 422
    assert register(ada, "missing").status_code == 422
    api.image_folder()
    assert register(ada, "shades", format="yolo").status_code == 422
    assert register(ada, "shades", task_type="object_detection").status_code == 422
    assert ada.get("/datasets").json["total"] == 0


def test_a_data_set_with_errors_is_registered_and_says_them(api: Api, ada: Person) -> None:
    folder = api.image_folder()
    (folder / "train" / "empty").mkdir()
    (folder / "train" / "dark" / "0.png").write_bytes(b"no image")
    found = register(ada, "shades").json
    assert found["status"] == "invalid"
    files = {problem["file"] for problem in found["problems"]}
    assert "train/dark/0.png" in files
    assert any("empty" in problem["message"] for problem in found["problems"])


def test_a_second_look_sees_what_was_put_right(api: Api, ada: Person) -> None:
    folder = api.image_folder()
    broken = folder / "train" / "dark" / "0.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"no image")
    found = register(ada, "shades").json
    assert found["status"] == "invalid"
    broken.write_bytes(whole)
    again = ada.post(f"/datasets/{found['id']}/validate").json
    assert again["status"] == "valid"
    assert again["fingerprint"] != found["fingerprint"]


def test_a_data_set_stays_while_a_job_under_way_uses_it(api: Api, ada: Person) -> None:
    dataset = api.dataset(1)
    job = ada.job(1, dataset)
    ada.post(f"/training/jobs/{job['id']}/start")
    assert ada.delete(f"/datasets/{dataset}").status_code == 409
    with api.app.app_context():
        db.session.execute(update(Job).values(status="completed"))
        db.session.commit()
    assert ada.delete(f"/datasets/{dataset}").status_code == 204
    kept = ada.get(f"/training/jobs/{job['id']}").json
    assert (kept["dataset_id"], kept["dataset_path"]) == (None, str(api.data / "shades"))
    assert (api.data / "shades").is_dir()


def test_only_members_see_a_data_set_and_only_editors_make_one(api: Api, ada: Person) -> None:
    dataset = api.dataset(1)
    viewer, stranger = api.person("viewer"), api.person("stranger")
    ada.post("/projects/1/members", {"email": viewer.email, "role": "viewer"})
    assert viewer.get(f"/datasets/{dataset}").status_code == 200
    assert stranger.get(f"/datasets/{dataset}").status_code == 404
    assert stranger.get("/datasets").json["total"] == 0
    assert register(viewer, "shades").status_code == 403
    assert register(stranger, "shades").status_code == 404
    assert viewer.post(f"/datasets/{dataset}/validate").status_code == 403
    assert viewer.delete(f"/datasets/{dataset}").status_code == 403
