"""The API beside a real Redis: there, away, and back again."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from adapters import wire
from tests.api import PASSWORD, Api, Person, serve
from tests.services import RedisService
from webapp.extensions import db
from webapp.models import Job, JobEvent
from webapp.models.columns import utc_now
from webapp.services import broker, schema
from webapp.services.errors import Unavailable

JOB = "/training/jobs/1"


@pytest.fixture
def api(tmp_path: Path, redis_service: RedisService) -> Iterator[Api]:
    with serve(
        tmp_path,
        TRAINING_EXECUTION_MODE="celery",
        REDIS_URL=redis_service.url,
        MODELYARD_LOGIN_LIMIT="3 per hour",
    ) as served:
        yield served


@pytest.fixture
def ada(api: Api) -> Person:
    """The owner of project 1 and its job 1."""
    person = api.person("ada")
    person.job(person.project(), api.dataset(1))
    return person


def worker(name: str = "gpu1", **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "host": "box",
        "frameworks": ["timm"],
        "versions": {"timm": "1.0.31"},
        "device": "cpu",
        "gpu": [],
        "slots": 1,
        "busy": 0,
        "jobs": [],
        "last_seen": wire.format_time(utc_now()),
        "status": "online",
        **fields,
    }


def publish(service: RedisService, *workers: dict[str, Any]) -> None:
    """Publish workers as they do themselves."""
    with service.client() as client:
        for each in workers:
            client.set(wire.worker_key(each["name"]), json.dumps(each), ex=60)
            client.zadd(wire.WORKERS_KEY, {each["name"]: time.time()})


def put(api: Api, job_id: int, **columns: Any) -> None:
    with api.app.app_context():
        db.session.execute(update(Job).where(Job.id == job_id).values(**columns))
        db.session.commit()


def test_a_started_job_is_a_message_on_its_frameworks_queue(
    ada: Person, redis_service: RedisService
) -> None:
    assert ada.post(f"{JOB}/start").status_code == 200
    with redis_service.client() as client:
        keys = [key for key in client.keys("*") if key.startswith("timm")]
        assert sum(client.llen(key) for key in keys) == 1
    queues = {queue["name"]: queue for queue in ada.get("/queues").json["items"]}
    assert (queues["timm"]["depth"], queues["ultralytics"]["depth"]) == (1, 0)


def test_a_start_while_the_broker_is_down_is_503_and_leaves_the_job_pending(
    ada: Person, redis_service: RedisService
) -> None:
    redis_service.kill()
    answer = ada.post(f"{JOB}/start")
    assert answer.status_code == 503
    assert "broker" in answer.json["detail"]
    assert ada.get(JOB).json["status"] == "pending"
    redis_service.start()
    assert ada.post(f"{JOB}/start").status_code == 200


def test_a_message_that_the_broker_refuses_or_does_not_hear_is_told_as_unavailable(
    api: Api, redis_service: RedisService
) -> None:
    def send(queue: str) -> None:
        with api.app.app_context():
            broker.send({"id": 1}, queue=queue, task_id="job-1-attempt-1", priority=4)

    with redis_service.client() as client:
        client.set("timm", "not a list")  # the broker answers, and takes no message
    with pytest.raises(Unavailable, match="broker"):
        send("timm")
    redis_service.kill()
    with pytest.raises(Unavailable, match="broker"):
        send("timm")


def test_a_broker_that_is_frozen_is_given_up_in_seconds(
    ada: Person, redis_service: RedisService
) -> None:
    redis_service.freeze()
    began = time.monotonic()
    answer = ada.post(f"{JOB}/start")
    took = time.monotonic() - began
    redis_service.thaw()
    assert answer.status_code == 503
    assert took < 100  # three seconds a try: it was given up, and it is not thawed before


def test_readiness_names_what_is_away(api: Api, redis_service: RedisService) -> None:
    with api.app.app_context():
        db.drop_all()
        schema.migrate()
    client = api.app.test_client()
    assert client.get("/readyz").status_code == 200
    redis_service.kill()
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "broker" in answer.json["detail"]
    assert "database" not in answer.json["detail"]
    assert client.get("/healthz").status_code == 200
    assert "modelyard_broker_up 0.0" in client.get("/metrics").text


def test_looks_of_a_health_check_leave_nothing_behind(api: Api) -> None:
    with api.app.app_context():
        db.drop_all()
        schema.migrate()
        remembered: Any = db.engine._compiled_cache
    client = api.app.test_client()
    for _ in range(3):
        assert client.get("/readyz").status_code == 200
    before = len(remembered)
    for _ in range(20):
        assert client.get("/readyz").status_code == 200
    assert len(remembered) == before


def test_events_that_nobody_records_are_counted_for_the_alarm(
    api: Api, redis_service: RedisService
) -> None:
    with redis_service.client() as client:
        client.delete(wire.EVENT_STREAM)
        for _ in range(3):
            client.xadd(wire.EVENT_STREAM, {"event": "one"})
    assert "modelyard_events_waiting 3.0" in api.app.test_client().get("/metrics").text


def test_a_job_that_no_worker_serves_says_so(ada: Person, redis_service: RedisService) -> None:
    ada.post(f"{JOB}/start")
    assert ada.get(JOB).json["waiting_reason"] == (
        "No worker serves the queue timm; start one with: modelyard worker --frameworks timm"
    )
    publish(redis_service, worker(frameworks=["ultralytics"]))
    assert "No worker serves" in ada.get(JOB).json["waiting_reason"]
    publish(redis_service, worker(status="draining"))
    assert "takes no new job: gpu1" in ada.get(JOB).json["waiting_reason"]
    publish(redis_service, worker())
    assert ada.get(JOB).json["waiting_reason"] == "A worker is about to take it"
    publish(redis_service, worker(slots=1, busy=1))
    assert ada.get(JOB).json["waiting_reason"] == "Next in the queue timm; its one slot is busy"
    redis_service.kill()
    answer = ada.get(JOB)
    assert answer.status_code == 200
    assert "broker does not answer" in answer.json["waiting_reason"]


def test_a_start_is_expected_when_the_running_job_says_how_long_it_takes(
    api: Api, ada: Person, redis_service: RedisService
) -> None:
    ada.post(f"{JOB}/start")
    put(api, 1, status="running", worker="gpu1", progress={"epoch": 1, "eta_seconds": 100.0})
    waiting = [ada.job(1, 1)["id"] for _ in range(2)]
    for job_id in waiting:
        ada.post(f"/training/jobs/{job_id}/start")
    publish(redis_service, worker(slots=1, busy=1))
    first = f"/training/jobs/{waiting[0]}"
    assert ada.get(first).json["expected_start"] is None  # when it said so is not known
    told = utc_now()
    with api.app.app_context():
        db.session.add(
            JobEvent(job_id=1, project_id=1, attempt=1, type="progress", time=told, data={})
        )
        db.session.commit()
    expected = wire.parse_time(ada.get(first).json["expected_start"])
    assert (expected - told).total_seconds() == pytest.approx(100, abs=10)
    second = ada.get(f"/training/jobs/{waiting[1]}").json
    assert second["expected_start"] is None  # how long the one before it takes is not known
    assert second["waiting_reason"] == "1 job is ahead in the queue timm"
    publish(redis_service, worker(busy=1, frameworks=["timm", "ultralytics"]))
    assert ada.get(first).json["expected_start"] is None


def test_workers_are_listed_and_drained_by_an_administrator(
    api: Api, ada: Person, redis_service: RedisService
) -> None:
    publish(redis_service, worker(), worker("gpu2", frameworks=["ultralytics"]))
    found = ada.get("/workers").json["items"]
    assert {each["name"]: each["status"] for each in found} == {
        "gpu1": "online",
        "gpu2": "online",
    }
    queues = {queue["name"]: queue for queue in ada.get("/queues").json["items"]}
    assert (queues["timm"]["workers"], queues["timm"]["worker_names"]) == (1, ["gpu1"])
    assert ada.post("/workers/gpu1/drain").status_code == 403
    admin = api.person("root", admin=True)
    assert admin.post("/workers/gpu9/drain").status_code == 404
    assert admin.post("/workers/gpu1/drain").json["status"] == "draining"
    with redis_service.client() as client:
        assert client.exists(wire.drain_key("gpu1"))
    assert admin.delete("/workers/gpu1/drain").json["status"] == "online"
    with redis_service.client() as client:
        assert not client.exists(wire.drain_key("gpu1"))


def test_a_new_priority_of_a_queued_job_reaches_the_broker(
    ada: Person, redis_service: RedisService
) -> None:
    ada.post(f"{JOB}/start")
    assert ada.patch(JOB, {"priority": 9}).json["priority"] == 9
    with redis_service.client() as client:
        first = client.llen("timm")  # what goes before everything else
    assert first == 1


def test_failed_logins_are_counted_in_redis_for_all_processes(
    api: Api, tmp_path: Path, redis_service: RedisService
) -> None:
    wrong = {"email": "ada@example.org", "password": "wrong password"}
    for _ in range(3):
        assert api.nobody.post("/auth/login", wrong).status_code == 401
    with serve(
        tmp_path / "other",
        TRAINING_EXECUTION_MODE="celery",
        REDIS_URL=redis_service.url,
        MODELYARD_LOGIN_LIMIT="3 per hour",
    ) as other:
        assert other.nobody.post("/auth/login", wrong).status_code == 429


def test_logins_work_and_are_limited_while_redis_is_away(
    api: Api, redis_service: RedisService
) -> None:
    api.person_with_password("ada")
    redis_service.kill()
    right = {"email": "ada@example.org", "password": PASSWORD}
    assert api.nobody.post("/auth/login", right).status_code == 200
    wrong = {**right, "password": "wrong password"}
    statuses = [api.nobody.post("/auth/login", wrong).status_code for _ in range(4)]
    assert statuses == [401, 401, 401, 429]


def test_a_cancel_is_kept_while_redis_is_away(ada: Person, redis_service: RedisService) -> None:
    ada.post(f"{JOB}/start")
    redis_service.kill()
    answer = ada.post(f"{JOB}/cancel")
    assert (answer.status_code, answer.json["status"]) == (202, "cancelled")


def test_many_starts_at_once_put_one_message_on_the_queue(
    ada: Person, redis_service: RedisService
) -> None:
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(ada.post(f"{JOB}/start").status_code))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200, 400, 400, 400, 400]
    with redis_service.client() as client:
        keys = [key for key in client.keys("*") if key.startswith("timm")]
        assert sum(client.llen(key) for key in keys) == 1
