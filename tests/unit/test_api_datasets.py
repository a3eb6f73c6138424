"""Data sets by their path, how far looks at them are, and pictures of them."""

from __future__ import annotations

import base64
import io
import os
import shutil
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import update

from tests.api import Api, Person
from webapp.extensions import db
from webapp.models import Dataset, DatasetCheck, Job, User
from webapp.models.columns import utc_now
from webapp.services import checks, previews
from webapp.services.errors import Conflict


@pytest.fixture
def ada(api: Api) -> Person:
    person = api.person("ada")
    assert person.project() == 1
    return person


def register(person: Person, path: str, **fields: object) -> Any:
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


def test_what_was_looked_at_tells_its_tasks_and_numbers(api: Api, ada: Person) -> None:
    api.image_folder()
    found = register(ada, "shades").json
    assert found["task_types"] == ["image_classification"]
    assert found["statistics"]["classes"]["train"]["images"] == [4, 4]
    assert (found["uploaded"], found["multi_label"], found["keypoints"]) == (False, False, None)


def test_a_split_is_chosen_at_registration_and_kept_at_another_look(api: Api, ada: Person) -> None:
    folder = api.image_folder()
    shutil.rmtree(folder / "val")
    for label in ("dark", "light"):
        (folder / "train" / label).rename(folder / label)
    (folder / "train").rmdir()
    found = register(ada, "shades", val_share=0.25, split_seed=7).json
    assert found["splits"] == {"train": 6, "val": 2}
    assert "seed 7" in found["split_rule"]
    again = ada.post(f"/datasets/{found['id']}/validate").json
    assert (again["splits"], again["split_rule"]) == (found["splits"], found["split_rule"])
    for field, value in (("val_share", 0), ("val_share", 1), ("split_seed", -1)):
        assert register(ada, "shades", **{field: value}).status_code == 422


def test_a_row_of_an_older_version_is_told_like_any_other(api: Api, ada: Person) -> None:
    dataset = api.dataset(1)
    with api.app.app_context():
        db.session.execute(update(Dataset).values(task_types=None, statistics=None))
        db.session.commit()
    found = ada.get(f"/datasets/{dataset}").json
    assert (found["task_types"], found["statistics"]) == (["image_classification"], {})


def test_how_far_a_look_is_is_told_to_who_began_it_alone(api: Api, ada: Person) -> None:
    api.image_folder()
    check = str(uuid.uuid4())
    assert ada.get(f"/datasets/checks/{check}").status_code == 404
    assert register(ada, "shades", check_id=check).status_code == 201
    assert ada.get(f"/datasets/checks/{check}").json["phase"] == "done"
    assert api.person("eve", admin=True).get(f"/datasets/checks/{check}").status_code == 404
    taken = register(ada, "shades", check_id=check)
    assert (taken.status_code, list(taken.json["errors"])) == (422, ["check_id"])
    assert register(ada, "shades", check_id="mine").status_code == 422


def test_a_look_tells_how_far_it_is_a_few_times_a_second(api: Api, ada: Person) -> None:
    now = 0.0
    check = str(uuid.uuid4())
    with api.app.app_context():
        user = db.session.get(User, ada.id)
        assert user is not None
        checks.start(check, user=user, phase=checks.Phase.CHECKING)
        teller = checks.Check(check, clock=lambda: now)
        teller.begin(checks.Phase.UNPACKING)
        for now, done, seen in ((0.1, 10, 0), (0.4, 20, 20), (0.5, 30, 20), (0.8, 40, 40)):
            teller(done, 100)
            told = ada.get(f"/datasets/checks/{check}").json
            assert (told["done"], told["phase"]) == (seen, "unpacking"), now


def test_a_look_that_is_given_up_ends_at_its_next_word(api: Api, ada: Person) -> None:
    check = str(uuid.uuid4())
    with api.app.app_context():
        user = db.session.get(User, ada.id)
        assert user is not None
        teller = checks.start(check, user=user, phase=checks.Phase.CHECKING)
        teller.begin(checks.Phase.CHECKING)
    assert api.person("eve").delete(f"/datasets/checks/{check}").status_code == 404
    assert ada.delete(f"/datasets/checks/{check}").status_code == 204
    with api.app.app_context():
        with pytest.raises(Conflict):
            teller.begin(checks.Phase.CHECKING)
        teller.end()  # the end of the request: nothing more goes wrong


def test_checks_are_forgotten_a_day_later(api: Api, ada: Person) -> None:
    api.image_folder()
    old, new = str(uuid.uuid4()), str(uuid.uuid4())
    register(ada, "shades", check_id=old)
    with api.app.app_context():
        yesterday = utc_now() - checks.KEPT - timedelta(seconds=1)
        db.session.execute(update(DatasetCheck).values(updated_at=yesterday))
        db.session.commit()
    register(ada, "shades", check_id=new)
    assert ada.get(f"/datasets/checks/{old}").status_code == 404
    assert ada.get(f"/datasets/checks/{new}").status_code == 200


def test_a_preview_shows_images_of_a_split_and_is_made_once(
    api: Api, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = api.dataset(1)
    shown = ada.get(f"/datasets/{dataset}/preview", split="val", limit=3).json
    assert shown["split"] == "val"
    assert len(shown["items"]) == 3
    assert {item["file"].split("/")[0] for item in shown["items"]} == {"val"}
    with Image.open(io.BytesIO(base64.b64decode(shown["items"][0]["thumbnail"]))) as image:
        assert image.size == (24, 24)
    monkeypatch.setattr(previews, "preview_apart", None)  # a second one would fail
    assert ada.get(f"/datasets/{dataset}/preview", split="val", limit=3).json == shown


def test_what_cannot_be_previewed_is_said(api: Api, ada: Person) -> None:
    dataset = api.dataset(1)
    missing = ada.get(f"/datasets/{dataset}/preview", split="test")
    assert (missing.status_code, list(missing.json["errors"])) == (422, ["split"])
    assert ada.get(f"/datasets/{dataset}/preview", limit=61).status_code == 422
    assert api.person("eve").get(f"/datasets/{dataset}/preview").status_code == 404
    shutil.rmtree(api.data / "shades")
    gone = ada.get(f"/datasets/{dataset}/preview")
    assert (gone.status_code, list(gone.json["errors"])) == (422, ["path"])


def test_the_previews_kept_are_bounded_and_the_longest_unused_go(
    api: Api, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = api.dataset(1)
    folder = api.data.parent / "cache" / "previews"
    ada.get(f"/datasets/{dataset}/preview", limit=1)
    (first,) = folder.iterdir()
    os.utime(first, (1, 1))
    monkeypatch.setattr(previews, "CACHE_BYTES", first.stat().st_size * 5 // 2)
    ada.get(f"/datasets/{dataset}/preview", limit=2)
    assert first not in set(folder.iterdir())
    assert len(list(folder.iterdir())) == 1
