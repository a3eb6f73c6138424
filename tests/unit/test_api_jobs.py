"""Jobs: described with everything checked, listed, changed, started, cancelled, deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from sqlalchemy import update

from adapters.contract import DatasetFormat, TaskType
from tests.api import JOB, Api, Person, serve
from webapp.api.schemas.jobs import SortName, StatusName
from webapp.extensions import db
from webapp.fields import FormatName, TaskName
from webapp.models import Job, JobStatus
from webapp.services import deletion
from webapp.services.jobs import SORTS

JOBS = "/training/jobs"


def put(api: Api, job_id: int, **columns: Any) -> None:
    """Bring a job where only a worker would bring it."""
    with api.app.app_context():
        db.session.execute(update(Job).where(Job.id == job_id).values(**columns))
        db.session.commit()


def test_the_names_spelt_out_in_schemas_are_those_of_the_enums() -> None:
    assert set(get_args(TaskName)) == set(TaskType)
    assert set(get_args(FormatName)) == set(DatasetFormat)
    assert set(get_args(StatusName)) == set(JobStatus)
    assert set(get_args(SortName)) == set(SORTS)


def test_a_job_is_pending_with_all_that_was_asked_for(api: Api, ada: Person) -> None:
    asked = {
        "optimizer": "sgd",
        "image_size": 64,
        "seed": 7,
        "device": "cpu",
        "priority": 9,
        "hyperparameters": {"mixup": 0.2},
        "tags": ["first"],
        "notes": "two\nlines",
        "name": "mine",
    }
    job = ada.job(1, 1, **asked)
    assert {name: job[name] for name in asked} == asked
    assert {name: job[name] for name in JOB} == JOB
    assert (job["status"], job["attempt"], job["queue"]) == ("pending", 0, "timm")
    assert job["dataset_path"] == str(api.data / "shades")
    assert job["output_dir"].endswith(f"/outputs/jobs/{job['id']}")
    assert job["progress"]["epochs"] == 4
    assert ada.get(f"{JOBS}/{job['id']}").json == job


def test_what_was_not_asked_for_has_a_default(ada: Person) -> None:
    job = ada.job(1, 1)
    assert (job["name"], job["priority"], job["device"]) == ("resnet18 on shades", 4, "auto")
    assert (job["optimizer"], job["image_size"], job["hyperparameters"]) == (None, None, {})


def test_a_folder_may_be_named_in_place_of_a_data_set(api: Api, ada: Person) -> None:
    body = {**JOB, "project_id": 1, "dataset_path": "shades", "dataset_format": "imagefolder"}
    job = ada.post(JOBS, body).json
    assert (job["dataset_id"], job["dataset_path"]) == (None, str(api.data / "shades"))


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"framework": "tim"}, "framework"),
        ({"model_name": "resnet81"}, "model_name"),
        ({"model_name": "../../etc/passwd"}, "model_name"),
        ({"task_type": "object_detection"}, "task_type"),
        ({"task_type": "juggling"}, "task_type"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": 10**9}, "epochs"),
        ({"epochs": 1.5}, "epochs"),
        ({"epochs": "4"}, "epochs"),
        ({"epochs": True}, "epochs"),
        ({"batch_size": -1}, "batch_size"),
        ({"batch_size": 4097}, "batch_size"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"learning_rate": -0.1}, "learning_rate"),
        ({"learning_rate": 11}, "learning_rate"),
        ({"image_size": 8}, "image_size"),
        ({"optimizer": "magic"}, "optimizer"),
        ({"hyperparameters": {"mixup": -1}}, "hyperparameters.mixup"),
        ({"hyperparameters": {"mixup": "0.1"}}, "hyperparameters.mixup"),
        ({"hyperparameters": {"nonsense": 1}}, "hyperparameters.nonsense"),
        ({"device": "tpu"}, "device"),
        ({"priority": 10}, "priority"),
        ({"seed": -1}, "seed"),
        ({"tags": ["x"] * 21}, "tags"),
        ({"tags": ["x" * 51]}, "tags.0"),
        ({"colour": "red"}, "colour"),
        ({"dataset_id": 99}, "dataset_id"),
        ({"dataset_id": None}, "body"),
        ({"dataset_path": "shades"}, "body"),
        ({"status": "completed"}, "status"),
    ],
)
def test_each_wrong_field_is_named_and_nothing_is_made(
    ada: Person, fields: dict[str, Any], wrong: str
) -> None:
    answer = ada.post(JOBS, {**JOB, "project_id": 1, "dataset_id": 1, **fields})
    assert answer.status_code == 422
    assert answer.mimetype == "application/problem+json"
    assert list(answer.json["errors"]) == [wrong]
    assert ada.get(JOBS).json["total"] == 0


def test_a_name_that_is_too_long_is_told_in_characters(ada: Person) -> None:
    answer = ada.post(JOBS, {**JOB, "project_id": 1, "dataset_id": 1, "name": "n" * 201})
    assert answer.json["errors"]["name"] == ["Value should have at most 200 characters, not 201"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_none_is_refused(ada: Person, number: str) -> None:
    body = (
        '{"project_id":1,"dataset_id":1,"framework":"timm","model_name":"resnet18",'
        f'"task_type":"image_classification","epochs":1,"batch_size":1,"learning_rate":{number}}}'
    )
    answer = ada.call("POST", JOBS, data=body, content_type="application/json")
    assert answer.status_code == 422


def test_a_misspelt_model_is_answered_with_what_may_have_been_meant(ada: Person) -> None:
    body = {**JOB, "project_id": 1, "dataset_id": 1, "model_name": "resnet81"}
    assert "resnet18" in ada.post(JOBS, body).json["detail"]


def test_a_framework_must_read_the_data_sets_format(ada: Person) -> None:
    fields = {
        "framework": "ultralytics",
        "model_name": "yolo11n",
        "task_type": "object_detection",
    }
    answer = ada.post(JOBS, {**JOB, "project_id": 1, "dataset_id": 1, **fields})
    assert answer.status_code == 422
    assert list(answer.json["errors"]) == ["dataset_id"]
    assert "yolo" in answer.json["detail"]
    odd = ada.post(JOBS, {**JOB, "project_id": 1, "dataset_id": 1, **fields, "image_size": 100})
    assert list(odd.json["errors"]) == ["image_size"]


def test_an_invalid_data_set_is_refused_with_file_and_reason(api: Api, ada: Person) -> None:
    broken = api.image_folder("broken")
    (broken / "train" / "dark" / "0.png").write_bytes(b"no image")
    dataset = ada.post("/datasets", {"project_id": 1, "name": "broken", "path": "broken"}).json
    for body in ({"dataset_id": dataset["id"]}, {"dataset_path": "broken"}):
        answer = ada.post(JOBS, {**JOB, "project_id": 1, **body})
        assert answer.status_code == 422
        assert any(
            "train/dark/0.png" in text for text in next(iter(answer.json["errors"].values()))
        )


def test_a_data_set_of_another_project_is_not_to_be_had(api: Api, ada: Person) -> None:
    bob = api.person("bob")
    other = bob.project()
    answer = bob.post(JOBS, {**JOB, "project_id": other, "dataset_id": 1})
    assert list(answer.json["errors"]) == ["dataset_id"]


def test_start_answers_as_agreed_and_only_once(ada: Person) -> None:
    job = ada.job(1, 1)
    answer = ada.post(f"{JOBS}/{job['id']}/start")
    assert answer.status_code == 200
    assert answer.json == {"message": "Training started", "job_id": job["id"], "status": "queued"}
    again = ada.post(f"{JOBS}/{job['id']}/start")
    assert again.status_code == 400
    assert again.json["detail"] == "Cannot start job with status 'queued'"
    assert ada.post(f"{JOBS}/99/start").status_code == 404


def test_a_pending_and_a_queued_job_are_cancelled_at_once(ada: Person) -> None:
    for start in (False, True):
        job = ada.job(1, 1)
        if start:
            ada.post(f"{JOBS}/{job['id']}/start")
        answer = ada.call("POST", f"{JOBS}/{job['id']}/cancel")  # no body at all
        assert (answer.status_code, answer.json["status"]) == (202, "cancelled")
        assert ada.post(f"{JOBS}/{job['id']}/cancel").status_code == 400


def test_a_running_job_goes_cancelling(api: Api, ada: Person) -> None:
    job = ada.job(1, 1)
    ada.post(f"{JOBS}/{job['id']}/start")
    put(api, job["id"], status="running")
    answer = ada.post(f"{JOBS}/{job['id']}/cancel", {"mode": "after_epoch"})
    assert (answer.status_code, answer.json["status"]) == (202, "cancelling")
    assert ada.post(f"{JOBS}/{job['id']}/cancel", {"mode": "quickly"}).status_code == 422


def test_a_failed_job_is_resumed_as_its_next_attempt(api: Api, ada: Person) -> None:
    job = ada.job(1, 1)
    assert ada.post(f"{JOBS}/{job['id']}/resume").status_code == 400
    ada.post(f"{JOBS}/{job['id']}/start")
    put(api, job["id"], status="failed", error={"kind": "nan_loss", "message": "m", "hint": "h"})
    assert ada.get(f"{JOBS}/{job['id']}").json["error"]["kind"] == "nan_loss"
    assert ada.post(f"{JOBS}/{job['id']}/resume").status_code == 200
    resumed = ada.get(f"{JOBS}/{job['id']}").json
    assert (resumed["status"], resumed["attempt"], resumed["error"]) == ("queued", 2, None)
    numbers = [item["number"] for item in ada.get(f"{JOBS}/{job['id']}/attempts").json["items"]]
    assert numbers == [1, 2]


def test_history_says_who_changed_what(ada: Person) -> None:
    job = ada.job(1, 1)
    ada.post(f"{JOBS}/{job['id']}/start")
    changes = ada.get(f"{JOBS}/{job['id']}/history").json["items"]
    assert [(c["previous"], c["status"]) for c in changes] == [
        (None, "pending"),
        ("pending", "queued"),
    ]
    assert {c["actor"] for c in changes} == {f"user:{ada.id} {ada.email}"}


def test_a_clone_is_a_new_pending_job_but_for_its_overrides(ada: Person) -> None:
    job = ada.job(1, 1, hyperparameters={"mixup": 0.2}, tags=["a"])
    ada.post(f"{JOBS}/{job['id']}/start")
    copy = ada.post(f"{JOBS}/{job['id']}/clone", {"overrides": {"epochs": 7}})
    assert copy.status_code == 201
    assert (copy.json["status"], copy.json["epochs"]) == ("pending", 7)
    assert (copy.json["hyperparameters"], copy.json["tags"]) == ({"mixup": 0.2}, ["a"])
    by_path = ada.post(f"{JOBS}/{job['id']}/clone", {"overrides": {"dataset_path": "shades"}})
    assert by_path.json["dataset_id"] is None
    for overrides, wrong in (
        ({"epochs": 0}, "overrides.epochs"),
        ({"optimizer": "magic"}, "overrides.optimizer"),
        ({"status": "completed"}, "overrides.status"),
    ):
        answer = ada.post(f"{JOBS}/{job['id']}/clone", {"overrides": overrides})
        assert list(answer.json["errors"]) == [wrong]


def test_name_notes_and_tags_may_change_at_any_time_priority_while_it_waits(
    api: Api, ada: Person
) -> None:
    job = ada.job(1, 1)
    address = f"{JOBS}/{job['id']}"
    changed = ada.patch(address, {"name": "new", "tags": [], "priority": 0}).json
    assert (changed["name"], changed["tags"], changed["priority"]) == ("new", [], 0)
    assert ada.patch(address, {}).status_code == 200
    put(api, job["id"], status="running")
    assert ada.patch(address, {"notes": "good"}).json["notes"] == "good"
    assert ada.patch(address, {"priority": 9}).status_code == 409
    for field, value in (("status", "completed"), ("accuracy", 1.0), ("name", None)):
        assert ada.patch(address, {field: value}).status_code == 422


def finish_deletions(api: Api) -> None:
    """Do what the recorder's tidier does soon after."""
    with api.app.app_context():
        assert deletion.finish()


@pytest.mark.parametrize("status", list(JobStatus))
def test_a_job_is_deleted_with_its_files_unless_it_is_under_way(
    api: Api, ada: Person, status: str
) -> None:
    job = ada.job(1, 1)
    put(api, job["id"], status=status)
    folder = Path(job["output_dir"])
    (folder / "checkpoints").mkdir(parents=True)
    under_way = status in ("queued", "running", "cancelling")
    assert ada.delete(f"{JOBS}/{job['id']}").status_code == (409 if under_way else 204)
    assert ada.get(f"{JOBS}/{job['id']}").status_code == (200 if under_way else 404)
    finish_deletions(api)
    assert folder.exists() == under_way


@pytest.mark.parametrize("status", list(JobStatus))
def test_a_project_is_deleted_with_its_jobs_files_unless_one_is_under_way(
    api: Api, ada: Person, status: str
) -> None:
    job = ada.job(1, 1)
    put(api, job["id"], status=status)
    folder = Path(job["output_dir"])
    folder.mkdir(parents=True)
    under_way = status in ("queued", "running", "cancelling")
    assert ada.delete("/projects/1").status_code == (409 if under_way else 204)
    assert ada.get("/projects/1").status_code == (200 if under_way else 404)
    finish_deletions(api)
    assert folder.exists() == under_way


def test_the_id_of_a_deleted_job_is_not_used_again(ada: Person) -> None:
    first = ada.job(1, 1)["id"]
    ada.delete(f"{JOBS}/{first}")
    assert ada.job(1, 1)["id"] > first


def test_a_list_is_filtered_searched_and_sorted(api: Api, ada: Person) -> None:
    a = ada.job(1, 1, name="Alpha 100%")["id"]
    b = ada.job(1, 1, name="beta", priority=9)["id"]
    c = ada.job(1, 1, name="gamma", notes="like alpha")["id"]
    put(api, a, accuracy=0.0, status="running")
    put(api, b, accuracy=0.9)

    def ids(**query: Any) -> list[int]:
        return [job["id"] for job in ada.get(JOBS, **query).json["items"]]

    assert ids() == [c, b, a]
    assert ids(sort="created_at") == [a, b, c]
    assert ids(status="running") == [a]
    assert ids(status=["running", "pending"]) == [c, b, a]
    assert ids(q="ALPHA") == [c, a]
    assert ids(q="100%") == [a]
    assert ids(q="_") == []
    assert ids(sort="-accuracy") == [b, a, c]
    assert ids(sort="accuracy") == [a, b, c]
    assert ids(sort="-priority") == [b, c, a]
    assert ids(framework="ultralytics") == []
    assert ids(project_id=2) == []
    assert ada.get(JOBS, sort="colour").status_code == 422
    assert ada.get(JOBS, status="lost").status_code == 422
    assert ada.get(JOBS, colour="red").status_code == 422


@pytest.mark.parametrize("sort", sorted(SORTS))
def test_pages_in_every_order_hold_each_job_once(api: Api, ada: Person, sort: str) -> None:
    ids = {ada.job(1, 1, name=f"job {i % 2}", priority=i % 3)["id"] for i in range(5)}
    put(api, min(ids), accuracy=0.5, loss=1.5)
    seen: list[int] = []
    cursor: str | None = None
    while True:
        query = {"limit": 2, "sort": sort} | ({"cursor": cursor} if cursor else {})
        page = ada.get(JOBS, **query).json
        seen += [job["id"] for job in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    whole = [job["id"] for job in ada.get(JOBS, sort=sort).json["items"]]
    assert seen == whole
    assert set(seen) == ids


def test_a_queued_job_tells_its_place_by_priority_and_time(ada: Person) -> None:
    ids = [ada.job(1, 1, priority=priority)["id"] for priority in (4, 4, 9)]
    for job_id in ids:
        ada.post(f"{JOBS}/{job_id}/start")
    jobs = {job["id"]: job for job in ada.get(JOBS).json["items"]}
    assert [jobs[job_id]["queue_position"] for job_id in ids] == [2, 3, 1]
    assert jobs[ids[1]]["waiting_reason"] == "2 jobs are ahead in the queue timm"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", JOBS, {**JOB, "project_id": 1, "dataset_id": 1}),
        ("PATCH", f"{JOBS}/1", {"name": "b"}),
        ("DELETE", f"{JOBS}/1", None),
        ("POST", f"{JOBS}/1/start", {}),
        ("POST", f"{JOBS}/1/cancel", {}),
        ("POST", f"{JOBS}/1/resume", {}),
        ("POST", f"{JOBS}/1/clone", {}),
    ],
)
def test_changing_a_job_needs_an_editor(
    api: Api, ada: Person, method: str, path: str, body: Any
) -> None:
    ada.job(1, 1)
    viewer, stranger = api.person("viewer"), api.person("stranger")
    ada.post("/projects/1/members", {"email": viewer.email, "role": "viewer"})
    assert viewer.call(method, path, json=body).status_code == 403
    assert stranger.call(method, path, json=body).status_code == 404
    assert api.nobody.call(method, path, json=body).status_code == 401


@pytest.mark.parametrize(
    "part", ["", "/metrics", "/logs", "/attempts", "/history", "/artifacts", "/artifacts/x"]
)
def test_reading_a_job_needs_a_member(api: Api, ada: Person, part: str) -> None:
    ada.job(1, 1)
    assert api.person("stranger").get(f"{JOBS}/1{part}").status_code == 404
    assert api.nobody.get(f"{JOBS}/1{part}").status_code == 401


def test_models_and_frameworks_are_known_without_a_worker(api: Api, ada: Person) -> None:
    found = ada.get("/models", framework="timm", q="resnet 18", limit=5).json
    assert "resnet18" in [model["name"] for model in found["items"]]
    detectors = ada.get("/models", task_type="object_detection", limit=200).json["items"]
    assert {model["framework"] for model in detectors} == {"huggingface", "ultralytics"}
    first = ada.get("/models", limit=1).json
    second = ada.get("/models", limit=1, cursor=first["next_cursor"]).json
    assert first["items"] != second["items"]
    frameworks = {item["name"]: item for item in ada.get("/frameworks").json["items"]}
    assert set(frameworks) == {"timm", "ultralytics", "huggingface"}
    assert "mixup" in frameworks["timm"]["hyperparameters"]["properties"]
    assert (frameworks["timm"]["multi_label"], frameworks["timm"]["version"]) == (True, "1.0.31")
    for framework in frameworks.values():
        assert set(framework["formats"]) == set(framework["task_types"])
        fields = framework["hyperparameters"]["properties"]
        assert all(field["description"] for field in fields.values())
        assert set(framework["hyperparameters"]["groups"]) <= set(fields)


def test_a_model_tells_where_its_weights_would_come_from(tmp_path: Path) -> None:
    with serve(tmp_path) as api:
        (tmp_path / "weights" / "timm").mkdir(parents=True)
        (tmp_path / "weights" / "timm" / "resnet18.safetensors").write_bytes(b"")
        ada = api.person("ada")
        models = ada.get("/models", framework="timm", q="resnet18").json["items"]
        assert {m["name"]: m["pretrained"] for m in models}["resnet18"] == "cached"
        assert ada.get("/models", q="resnet50").json["items"][0]["pretrained"] == "download"


def member(api: Api, ada: Person, role: str) -> Person:
    person = api.person(role)
    answer = ada.post("/projects/1/members", {"email": f"{role}@example.org", "role": role})
    assert answer.status_code == 201, answer.json
    return person


def test_an_urgent_job_may_be_given_the_right_to_take_anothers_place(ada: Person) -> None:
    plain = ada.job(1, 1)
    assert (plain["preempt"], plain["displaced_by"]) == (False, None)
    job = ada.job(1, 1, priority=9, preempt=True)
    assert job["preempt"] is True
    copy = ada.post(f"{JOBS}/{job['id']}/clone", {}).json
    assert (copy["preempt"], copy["priority"]) == (True, 9)
    other = ada.post(f"{JOBS}/{job['id']}/clone", {"overrides": {"preempt": False}}).json
    assert other["preempt"] is False
    assert ada.get(JOBS, sort="-preempt").json["items"][-1]["id"] == plain["id"]


def test_only_a_job_above_the_default_priority_may_take_anothers_place(ada: Person) -> None:
    body = {**JOB, "project_id": 1, "dataset_id": 1, "preempt": True}
    for priority in ({}, {"priority": 4}, {"priority": 0}):
        answer = ada.post(JOBS, {**body, **priority})
        assert answer.status_code == 422
        assert "Only a job of priority 5 or more" in answer.json["errors"]["preempt"][0]
    address = f"{JOBS}/{ada.job(1, 1)['id']}"
    answer = ada.patch(address, {"preempt": True})
    assert list(answer.json["errors"]) == ["preempt"]
    both = ada.patch(address, {"preempt": True, "priority": 5}).json
    assert (both["preempt"], both["priority"]) == (True, 5)
    assert list(ada.patch(address, {"priority": 4}).json["errors"]) == ["priority"]
    assert ada.patch(address, {"priority": 4, "preempt": False}).json["preempt"] is False


def test_preempt_is_changed_only_while_the_job_waits(api: Api, ada: Person) -> None:
    job = ada.job(1, 1, priority=9)
    put(api, job["id"], status="running")
    answer = ada.patch(f"{JOBS}/{job['id']}", {"preempt": True})
    assert answer.status_code == 409
    assert "waits no more" in answer.json["detail"]


def test_only_owners_let_jobs_take_others_places(api: Api, ada: Person) -> None:
    eve = member(api, ada, "editor")
    body = {**JOB, "project_id": 1, "dataset_id": 1, "preempt": True, "priority": 9}
    answer = eve.post(JOBS, body)
    assert answer.status_code == 403
    assert "needs the role owner" in answer.json["detail"]
    mine = eve.job(1, 1, priority=9)
    assert eve.patch(f"{JOBS}/{mine['id']}", {"preempt": True}).status_code == 403
    urgent = ada.job(1, 1, priority=8, preempt=True)
    assert eve.patch(f"{JOBS}/{urgent['id']}", {"priority": 9}).status_code == 403
    assert eve.patch(f"{JOBS}/{urgent['id']}", {"notes": "hm"}).status_code == 200
    wanted = {"overrides": {"preempt": True}}
    assert eve.post(f"{JOBS}/{urgent['id']}/clone", wanted).status_code == 403
    dropped = eve.patch(f"{JOBS}/{urgent['id']}", {"preempt": False})
    assert dropped.json["preempt"] is False


def test_a_clone_by_who_may_not_give_it_takes_nobodys_place_and_its_history_says_so(
    api: Api, ada: Person
) -> None:
    eve = member(api, ada, "editor")
    urgent = ada.job(1, 1, priority=8, preempt=True)
    copy = eve.post(f"{JOBS}/{urgent['id']}/clone", {}).json
    assert (copy["preempt"], copy["priority"]) == (False, 8)
    first = eve.get(f"{JOBS}/{copy['id']}/history").json["items"][0]["reason"]
    assert first.startswith(f"cloned from job {urgent['id']}; it takes nobody's place")
    assert first.endswith("needs the role owner")
    whole = ada.post(f"{JOBS}/{urgent['id']}/clone", {}).json
    assert whole["preempt"] is True
    history = ada.get(f"{JOBS}/{whole['id']}/history").json["items"]
    assert history[0]["reason"] == f"cloned from job {urgent['id']}"
