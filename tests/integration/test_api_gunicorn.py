"""The API as it is deployed: gunicorn with gevent, on both databases."""

from __future__ import annotations

import signal
import socket
import statistics
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelyard.settings import load_settings
from tests.api import Api, Person
from tests.services import PATIENCE_SECONDS, own_port, python, wait_for
from webapp import create_app
from webapp.extensions import db
from webapp.models import Job, JobStatus
from webapp.models.columns import utc_now
from webapp.services import event_log, schema
from webapp.services.lifecycle import transition

STREAMS = 200


class Server:
    """A gunicorn and, for what a worker would do, an application on the same database."""

    def __init__(self, home: Path, database_url: str, *, processes: int = 2) -> None:
        self.environ = {
            "MODELYARD_HOME": str(home),
            "DATABASE_URL": database_url,
            "TRAINING_EXECUTION_MODE": "subprocess",
        }
        self.app = create_app(load_settings(self.environ))
        with self.app.app_context():
            schema.migrate()
        (home / "data").mkdir()
        self.api = Api(self.app, home)
        self.port = own_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.processes = processes
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            python(
                "-m", "gunicorn", "webapp.wsgi:app", "-k", "gevent", "-w", str(self.processes),
                "--worker-connections", "2000", "--graceful-timeout", "5", "--no-control-socket",
                "--bind", f"127.0.0.1:{self.port}",
            ),
            env={**self.environ, "PATH": "/usr/bin"},
        )  # fmt: skip
        wait_for(self._answers, what="gunicorn")

    def client(self, person: Person) -> httpx.Client:
        headers = {"Authorization": f"Bearer {person.token}"}
        return httpx.Client(
            base_url=f"{self.url}/api/v1", headers=headers, timeout=PATIENCE_SECONDS
        )

    def stop(self) -> None:
        """End it as a supervisor does; it has five seconds, and a minute on a busy machine."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)

    def close(self) -> None:
        if self.process.poll() is None:
            self.stop()
        with self.app.app_context():
            db.session.remove()
            db.engine.dispose()

    def tell(self, job_id: int, type: str, data: dict[str, Any]) -> None:
        """Append an event as the recorder does."""
        with self.app.app_context():
            session = db.session()
            event_log.lock_order(session)
            event_log.append(
                session, job_id=job_id, project_id=1, attempt=1, type=type, time=utc_now(),
                data=data,
            )  # fmt: skip
            session.commit()

    def end(self, job_id: int) -> None:
        with self.app.app_context():
            session = db.session()
            job = session.get(Job, job_id)
            assert job is not None
            assert transition(session, job, to=JobStatus.CANCELLED, actor="t", reason="t")
            session.commit()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("home")
    url = f"sqlite:///{home / 'modelyard.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("_postgres").create_database()
    running = Server(home, url)
    yield running
    running.close()


@pytest.fixture
def ada(server: Server) -> Person:
    """The owner of a project of each test's own; its data set and job are in ``owns``."""
    name = uuid.uuid4().hex
    person = server.api.person(name)
    project = person.project()
    dataset = server.api.dataset(project, name)
    job = person.job(project, dataset)["id"]
    person.owns = {"project": project, "dataset": dataset, "job": job}
    return person


class Browser:
    """An open event stream, read from a plain socket."""

    def __init__(self, server: Server, person: Person) -> None:
        self._socket = socket.create_connection(
            ("127.0.0.1", server.port), timeout=PATIENCE_SECONDS
        )
        self._socket.sendall(
            b"GET /api/v1/training/jobs/%d/events HTTP/1.1\r\nHost: x\r\n"
            b"Authorization: Bearer %s\r\n\r\n" % (person.owns["job"], person.token.encode())
        )
        self.read = b""

    def until(self, text: bytes) -> None:
        while text not in self.read:
            piece = self._socket.recv(65536)
            assert piece, self.read[-500:]
            self.read += piece

    def close(self) -> None:
        self._socket.close()


def test_hundreds_follow_a_job_and_each_gets_every_event_in_time(
    server: Server, ada: Person
) -> None:
    browsers = [Browser(server, ada) for _ in range(STREAMS)]
    for browser in browsers:
        browser.until(b"event: snapshot")
    delays = []
    for epoch in (1, 2, 3):
        began = time.monotonic()
        server.tell(ada.owns["job"], "metrics", {"epoch": epoch, "values": {"top1": 0.5}})
        for browser in browsers:
            browser.until(b'"epoch":%d' % epoch)
        delays.append(time.monotonic() - began)
    server.end(ada.owns["job"])
    for browser in browsers:
        browser.until(b"event: status")
        assert browser.read.count(b"event: metrics") == 3
        browser.close()
    assert statistics.median(delays) < 30, delays  # on a busy machine


LOOP = """
from gevent import monkey
monkey.patch_all()
import gevent
from webapp.services import passwords

def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.001)

ticks = []
gevent.spawn(tick)
gevent.sleep(0)
kept = passwords.hash_password("correct horse battery")
assert len(ticks) > 5, ticks
ticks.clear()
assert passwords.verify_password("correct horse battery", kept)
assert len(ticks) > 5, ticks
"""


def test_the_loop_goes_round_while_a_password_is_hashed() -> None:
    subprocess.run(python("-c", LOOP), check=True)


def test_other_requests_are_answered_while_a_data_set_is_looked_at(
    server: Server, ada: Person
) -> None:
    path = server.client(ada).get(f"/datasets/{ada.owns['dataset']}").json()["path"]
    body = {"project_id": ada.owns["project"], "name": "again", "path": path}
    with server.client(ada) as client, ThreadPoolExecutor(8) as pool:
        looks = [
            pool.submit(httpx.post, f"{server.url}/api/v1/datasets", json=body,
                        headers=client.headers, timeout=PATIENCE_SECONDS)
            for _ in range(6)
        ]  # fmt: skip
        answered = 0
        while not all(look.done() for look in looks):
            assert client.get("/auth/me").status_code == 200
            answered += 1
    assert {look.result().status_code for look in looks} == {201}
    assert answered > 5


def test_of_two_starts_through_two_processes_one_wins(server: Server, ada: Person) -> None:
    gate = threading.Barrier(8)

    def start() -> int:
        with server.client(ada) as client:
            gate.wait()
            return client.post(f"/training/jobs/{ada.owns['job']}/start").status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = [future.result() for future in [pool.submit(start) for _ in range(8)]]
    assert sorted(statuses) == [200, *[400] * 7]


def test_writers_in_both_processes_at_once_all_get_through(server: Server, ada: Person) -> None:
    def write(i: int) -> int:
        with server.client(ada) as client:
            body = {"name": f"name {i}", "priority": i % 10}
            return client.patch(f"/training/jobs/{ada.owns['job']}", json=body).status_code

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(write, range(40))) == {200}


def test_it_ends_soon_though_browsers_follow_and_counts_its_requests(
    server: Server, ada: Person
) -> None:
    browsers = [Browser(server, ada) for _ in range(4)]
    for browser in browsers:
        browser.until(b"event: snapshot")
    before = _counted(server, "/auth/tokens")
    with server.client(ada) as client:
        for _ in range(20):
            client.get("/auth/tokens")
    assert _counted(server, "/auth/tokens") - before == 20  # of both processes together
    server.stop()
    for browser in browsers:
        browser.close()
    server.start()  # for whichever test comes next


def _counted(server: Server, route: str) -> float:
    text = httpx.get(f"{server.url}/metrics", timeout=PATIENCE_SECONDS).text
    counts = [
        line.rpartition(" ")[2]
        for line in text.splitlines()
        if line.startswith("modelyard_http_requests_total") and f'{route}"' in line
    ]
    return float(counts[0]) if counts else 0.0
