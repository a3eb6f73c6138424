"""Web processes killed while they are asked and followed, and several of them asked at once."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest
import sqlalchemy as sa

from modelyard import launch
from modelyard.client import ApiError, Client, ClientError, StreamEvent, Unreachable
from modelyard.ports import free_port
from tests.faults.site import Site, ended, in_epoch, kill, training
from tests.services import PATIENCE_SECONDS, wait_for
from tests.worker_service import job_is
from webapp.extensions import db
from webapp.models import Job, JobEvent, StatusChange
from webapp.services import accounts

EMAIL, PASSWORD = "ada@example.org", "correct horse battery staple"
KEPT = ("status", "metrics", "log", "artifact", "decided")  # never superseded by a later one


class WebSite:
    """A site with gunicorn in front: two web processes, two recorders, one worker."""

    def __init__(self, there: Site) -> None:
        self.there = there
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        accounts.create_user(email=EMAIL, password=PASSWORD, name="Ada", is_admin=True)
        self.start()
        there.recorder()
        there.quick_worker("w1")
        self.client = Client(self.url)
        self.insist(lambda: self.client.login(EMAIL, PASSWORD))
        self.project = self.client.post("/projects", {"name": "faults"})["id"]

    def start(self) -> None:
        command = launch.web_command(host="127.0.0.1", port=self.port, processes=2)
        self.master = self.there.start(*command[2:])

    def kill_processes(self) -> None:
        """Kill the processes that answer; gunicorn starts another for each that dies."""
        for process in psutil.Process(self.master.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def insist(self, ask: Callable[[], Any]) -> Any:
        """Ask until there is an answer."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return ask()
            except ClientError as error:
                if isinstance(error, ApiError) and error.status < 500:
                    raise
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def answer(self, job_id: int, verb: str, body: dict[str, str] | None = None) -> int:
        """Ask for a change of a job's status on a new connection; return the answer's status.

        Raises Unreachable.
        """
        headers = {"Authorization": self.client._http.headers["Authorization"]}
        address = f"{self.url}/api/v1/training/jobs/{job_id}/{verb}"
        try:
            answer = httpx.post(address, json=body or {}, headers=headers, timeout=PATIENCE_SECONDS)
            return answer.status_code
        except httpx.TransportError as error:
            raise Unreachable(str(error)) from error

    def job(self, *, epochs: int, **hyperparameters: Any) -> Job:
        body = {
            "project_id": self.project, "framework": "quick", "model_name": "lcg",
            "task_type": "image_classification", "dataset_path": str(self.there.data / "tiny"),
            "epochs": epochs, "batch_size": 8, "learning_rate": 0.1,
            "hyperparameters": hyperparameters,
        }  # fmt: skip
        job_id = self.insist(lambda: self.client.post("/training/jobs", body))["id"]
        self.there.expected[job_id] = "completed"
        db.session.rollback()
        return db.session.get_one(Job, job_id)


@pytest.fixture
def web(there: Site) -> Iterator[WebSite]:
    web = WebSite(there)
    yield web
    web.client._http.close()


class Follower:
    """A browser that follows a job and reconnects with the id of the last event it saw."""

    def __init__(self, web: WebSite, job: Job) -> None:
        self.seen: list[StreamEvent] = []
        self._client = Client(web.url)
        self._client.login(EMAIL, PASSWORD)
        self._thread = threading.Thread(target=self._follow, args=(job.id,), daemon=True)
        self._thread.start()

    def _follow(self, job_id: int) -> None:
        for event in self._client.events(job_id, sleep=lambda _: time.sleep(0.2)):
            self.seen.append(event)

    def connections(self) -> int:
        """Return how many streams it has had so far: each begins with a snapshot."""
        return sum(event.event == "snapshot" for event in self.seen)

    def join(self) -> list[StreamEvent]:
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive(), "the stream did not end with its job"
        return self.seen


def test_a_browser_misses_nothing_while_web_processes_are_killed(web: WebSite) -> None:
    job = web.job(epochs=30, step_seconds=0.005)
    web.there.hold(job.id, epoch=5)
    web.client.post(f"/training/jobs/{job.id}/start")
    follower = Follower(web, job)
    for number, epoch in ((1, 5), (2, 10), (3, 15)):
        web.there.wait(job, in_epoch(epoch))
        wait_for(lambda: follower.connections() >= number, what="a browser that follows")  # noqa: B023
        web.there.hold(job.id, epoch=epoch + 5)
        if number < 3:
            web.kill_processes()
    kill(web.master)  # and its processes with it, or a while later
    web.there.let_go(job.id)
    wait_for(lambda: not _listens(web.port), what="a free port")
    web.start()
    web.there.wait(job, ended)
    seen = follower.join()
    told = [event for event in seen if event.event in KEPT]
    assert len({event.id for event in told}) == len(told)
    numbers = [int(str(event.id)) for event in told]
    assert numbers == sorted(numbers)
    stored = db.session.scalars(
        sa.select(JobEvent.id).where(JobEvent.job_id == job.id, JobEvent.type.in_(KEPT))
    )
    first = int(str(seen[0].id))  # of the snapshot: what came before is in it
    assert numbers == sorted(id for id in stored if id > first)
    assert follower.connections() >= 3


def test_starts_through_dying_web_processes_lose_no_job_and_double_none(web: WebSite) -> None:
    chance = random.Random(7)
    jobs = [web.job(epochs=2) for _ in range(8)]
    for job in jobs:
        starter = threading.Thread(target=_start_once, args=(web, job.id))
        starter.start()
        time.sleep(chance.uniform(0, 0.03))
        web.kill_processes()
        starter.join()
    # A person who got no answer asks again, and is told where the first time sufficed.
    for job in jobs:
        answer = web.insist(lambda: web.answer(job.id, "start"))  # noqa: B023
        assert answer in (200, 400)
    for job in jobs:
        web.there.wait(job, ended)
        assert (job.status, job.attempt) == ("completed", 1)


def test_of_many_who_ask_at_once_one_is_obeyed(web: WebSite) -> None:
    jobs = [web.job(epochs=2) for _ in range(3)]
    for job in jobs:
        web.there.hold(job.id, epoch=1)
    with ThreadPoolExecutor(12) as people:

        def ask(verb: str, body: dict[str, str] | None = None) -> dict[int, list[int]]:
            asked = [(job.id, people.submit(web.answer, job.id, verb, body)) for job in jobs * 4]
            answers: dict[int, list[int]] = {}
            for job_id, answer in asked:
                answers.setdefault(job_id, []).append(answer.result())
            return answers

        for answers in ask("start").values():
            assert sorted(answers) == [200, 400, 400, 400]
        some = [job_is(job, training) for job in jobs]
        wait_for(lambda: any(trains() for trains in some), what="one in training")
        for answers in ask("cancel", {"mode": "now"}).values():
            assert sorted(answers) == [202, 400, 400, 400]
        for job in jobs:
            web.there.wait(job, ended)
            assert job.status == "cancelled"
        for answers in ask("resume").values():
            assert sorted(answers) == [200, 400, 400, 400]
        for answers in ask("cancel", {"mode": "kill"}).values():
            assert 202 in answers
    for job in jobs:
        web.there.expected[job.id] = "cancelled"
        web.there.wait(job, ended)
        rows = db.session.scalars(sa.select(StatusChange).filter_by(job_id=job.id))
        assert all(row.actor and row.reason for row in rows)


def _start_once(web: WebSite, job_id: int) -> None:
    """Ask one time, whatever comes of it."""
    with contextlib.suppress(Unreachable):
        web.answer(job_id, "start")


def _listens(port: int) -> bool:
    return any(
        connection.laddr.port == port and connection.status == psutil.CONN_LISTEN
        for connection in psutil.net_connections("tcp")
    )
