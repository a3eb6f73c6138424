"""A job's whole way as a client of the API sees it: gunicorn, Redis, recorder, worker, training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.wire import parse_time
from modelyard.client import Client, StreamEvent
from tests.api import PASSWORD
from tests.services import RedisService, own_port, wait_for
from tests.worker_service import Instance, instance
from webapp.services import accounts

EMAIL = "ada@example.org"
TINY = {
    "framework": "timm",
    "model_name": "test_resnet",
    "task_type": "image_classification",
    "image_size": 32,
    "batch_size": 64,
    "learning_rate": 0.01,
}


class Served:
    """An instance with its web process, and a client that is logged in."""

    def __init__(self, there: Instance) -> None:
        self.there = there
        self.url = f"http://127.0.0.1:{(port := own_port())}"
        there.start(
            "gunicorn", "webapp.wsgi:app", "-k", "gevent", "-w", "1", "--no-control-socket",
            "--graceful-timeout", "2", "--bind", f"127.0.0.1:{port}",
        )  # fmt: skip
        wait_for(self._answers, what="gunicorn")
        self.client = Client(self.url)
        self.client.login(EMAIL, PASSWORD)

    def job(self, **fields: Any) -> dict[str, Any]:
        """Register the digits as a person would, and describe a job on them."""
        project = self.client.post("/projects", {"name": "digits"})["id"]
        body = {"project_id": project, "name": "digits", "path": str(self.there.data / "digits")}
        dataset = self.client.post("/datasets", body)
        assert dataset["status"] == "valid", dataset
        body = {**TINY, "project_id": project, "dataset_id": dataset["id"], **fields}
        made: dict[str, Any] = self.client.post("/training/jobs", body)
        return made

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture
def served(tmp_path: Path, database_url: str, redis_service: RedisService) -> Iterator[Served]:
    with serve(tmp_path, database_url=database_url, redis=redis_service) as served:
        yield served


@pytest.fixture
def on_sqlite(tmp_path: Path, redis_service: RedisService) -> Iterator[Served]:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with serve(tmp_path, database_url=url, redis=redis_service) as served:
        yield served


@contextmanager
def serve(home: Path, *, database_url: str, redis: RedisService) -> Iterator[Served]:
    with instance(home, database_url=database_url, redis=redis) as there:
        accounts.create_user(email=EMAIL, password=PASSWORD, name="Ada")
        there.recorder()
        running = Served(there)
        yield running
        running.client.__exit__(None, None, None)


def delay_seconds(event: StreamEvent) -> float:
    return (datetime.now(UTC) - parse_time(event.data["time"])).total_seconds()


def test_a_job_trains_and_everything_of_it_is_told(served: Served) -> None:
    client = served.client
    job = served.job(epochs=2)
    address = f"/training/jobs/{job['id']}"
    client.post(f"{address}/start")
    waiting = client.get(address)
    assert waiting["queue_position"] == 1
    assert "No worker serves the queue timm" in waiting["waiting_reason"]

    served.there.worker("w1")
    told, delays = [], []
    for event in client.events(job["id"]):
        told.append(event)
        if event.event in ("progress", "metrics"):
            delays.append(delay_seconds(event))
            assert client.get(address)["progress"]["epochs"] == 2

    assert [e.data["epoch"] for e in told if e.event == "metrics"] == [1, 2]
    assert any(e.data.get("eta_seconds") is not None for e in told)
    statuses = [e.data["status"] for e in told if e.event == "status"]
    assert statuses[-2:] == ["running", "completed"]
    ids = [int(e.id) for e in told if e.id is not None]
    assert ids == sorted(set(ids))
    assert sorted(delays)[len(delays) // 2] < 30, delays  # on a busy machine

    done = client.get(address)
    assert done["status"] == "completed"
    assert done["accuracy"] == done["best"]["value"]
    assert (done["attempt"], done["worker"]) == (1, "w1")
    assert done["metrics"].keys() >= {"train_loss", "val_loss", "top1", "top5", "learning_rate"}
    curves = client.get(f"{address}/metrics")
    assert {name: [p["epoch"] for p in curve] for name, curve in curves.items()} == {
        name: [1, 2] for name in curves
    }
    (attempt,) = client.get(f"{address}/attempts")["items"]
    assert (attempt["outcome"], attempt["exit_code"]) == ("completed", 0)
    actors = [change["actor"].partition(":")[0] for change in client.items(f"{address}/history")]
    assert actors == ["user", "user", "worker", "worker"]
    _check_log(client, address, told)
    _check_artifacts(client, address)


def _check_log(client: Client, address: str, told: list[StreamEvent]) -> None:
    text = client._http.get(f"{address}/logs").text
    assert text
    live = [line for e in told if e.event == "log" for line in e.data["lines"]]
    assert text.splitlines()[-len(live) :] == live


def _check_artifacts(client: Client, address: str) -> None:
    artifacts = {item["name"]: item for item in client.items(f"{address}/artifacts")}
    best = next(item for name, item in artifacts.items() if name.startswith("checkpoints/best"))
    answer = client._http.get(f"{address}/artifacts/{best['name']}")
    assert hashlib.sha256(answer.content).hexdigest() == best["sha256"]
    assert len(answer.content) == best["size"]


def test_a_running_job_is_cancelled_through_the_api(on_sqlite: Served) -> None:
    client = on_sqlite.client
    on_sqlite.there.environ["MODELYARD_CANCEL_GRACE_SECONDS"] = "60"  # on a busy machine
    on_sqlite.there.worker("w1")
    job = on_sqlite.job(epochs=500)
    address = f"/training/jobs/{job['id']}"
    client.post(f"{address}/start")
    cancelled_at = None
    for event in client.events(job["id"]):
        if event.event == "metrics" and cancelled_at is None:
            client.post(f"{address}/cancel")
            cancelled_at = datetime.now(UTC)
    done = client.get(address)
    assert done["status"] == "cancelled"
    assert cancelled_at is not None
    assert (parse_time(done["completed_at"]) - cancelled_at).total_seconds() < 100
    names = [item["name"] for item in client.items(f"{address}/artifacts")]
    assert any(name.startswith("checkpoints/last") for name in names)
    client.post(f"{address}/resume")
    for event in client.events(job["id"]):
        if event.event == "metrics" and event.data["attempt"] == 2:
            client.post(f"{address}/cancel", {"mode": "kill"})
            break
    wait_for(lambda: client.get(address)["status"] == "cancelled", what="the second cancel")
    epochs = [point["epoch"] for point in client.get(f"{address}/metrics")["top1"]]
    assert epochs == list(range(1, len(epochs) + 1))  # one curve, none lost, none doubled
