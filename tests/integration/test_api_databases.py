"""What two databases must both do: the schema, and deciding who of two comes first."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import event, func, select
from sqlalchemy.orm import Session

from modelyard.settings import load_settings
from tests.api import Api, Person, serve
from tests.services import PATIENCE_SECONDS, python
from webapp import create_app
from webapp.extensions import db
from webapp.models import Dataset, Job, StatusChange, User
from webapp.services import deletion, schema
from webapp.services.errors import Unavailable


@pytest.fixture
def api(tmp_path: Path, database_url: str) -> Iterator[Api]:
    environ = {
        "MODELYARD_HOME": str(tmp_path),
        "DATABASE_URL": database_url,
        "TRAINING_EXECUTION_MODE": "subprocess",
    }
    app = create_app(load_settings(environ))
    (tmp_path / "data").mkdir()
    with app.app_context():
        schema.migrate()
    yield Api(app, tmp_path)
    with app.app_context():
        db.session.remove()
        db.engine.dispose()


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Return what calls answer that are made at the same moment."""
    gate = threading.Barrier(len(calls))
    answers: list[Any] = [None] * len(calls)

    def call(i: int) -> None:
        gate.wait()
        answers[i] = calls[i]()

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def with_job(api: Api) -> Person:
    """Return the owner of project 1 with its job 1."""
    ada = api.person("ada")
    ada.job(ada.project(), api.dataset(1))
    return ada


def test_the_migrations_make_what_the_models_say(api: Api) -> None:
    with api.app.app_context():
        context = MigrationContext.configure(
            db.session.connection(), opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, db.metadata) == []
        schema.check()


def test_migrating_twice_and_from_two_processes_does_no_harm(
    tmp_path: Path, database_url: str
) -> None:
    environ = {
        "MODELYARD_HOME": str(tmp_path),
        "DATABASE_URL": database_url,
        "TRAINING_EXECUTION_MODE": "subprocess",
        "PATH": "/usr/bin",
    }
    command = python("-m", "webapp.manage", "migrate")
    both = [subprocess.Popen(command, env=environ) for _ in range(2)]
    assert [process.wait(timeout=PATIENCE_SECONDS) for process in both] == [0, 0]
    assert subprocess.run(command, env=environ, check=False).returncode == 0


def test_a_database_without_the_newest_revision_is_not_ready(
    tmp_path: Path, database_url: str
) -> None:
    environ = {
        "MODELYARD_HOME": str(tmp_path),
        "DATABASE_URL": database_url,
        "TRAINING_EXECUTION_MODE": "subprocess",
    }
    app = create_app(load_settings(environ))
    with app.app_context():
        with pytest.raises(Unavailable, match=": modelyard release"):
            schema.check()
        assert app.test_client().get("/readyz").status_code == 503
        schema.migrate()
        assert app.test_client().get("/readyz").status_code == 200
        db.session.remove()
        db.engine.dispose()


def test_the_administrator_is_made_once_by_the_command(tmp_path: Path, database_url: str) -> None:
    environ = {
        "MODELYARD_HOME": str(tmp_path),
        "DATABASE_URL": database_url,
        "TRAINING_EXECUTION_MODE": "subprocess",
        "PATH": "/usr/bin",
    }

    def run(command: str) -> str:
        return subprocess.run(
            python("-m", "webapp.manage", command),
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    run("migrate")
    first = run("ensure-admin")
    assert first.startswith("Administrator admin@modelyard.local, password ")
    assert run("ensure-admin") == ""


def test_of_many_starts_at_once_exactly_one_wins(api: Api) -> None:
    ada = with_job(api)
    start = lambda: ada.post("/training/jobs/1/start").status_code  # noqa: E731
    assert sorted(at_once(*[start] * 6)) == [200, *[400] * 5]
    with api.app.app_context():
        job = db.session.get(Job, 1)
        assert job is not None
        assert (job.status, job.attempt) == ("queued", 1)
        queued = select(func.count()).where(StatusChange.status == "queued")
        assert db.session.scalar(queued) == 1


def test_of_a_start_and_a_deletion_at_once_one_wins(api: Api) -> None:
    ada = with_job(api)
    started, deleted = at_once(
        lambda: ada.post("/training/jobs/1/start").status_code,
        lambda: ada.delete("/training/jobs/1").status_code,
    )
    assert (started, deleted) in [(200, 409), (404, 204), (400, 204)]
    assert ada.get("/training/jobs/1").status_code == (404 if deleted == 204 else 200)


def test_data_sets_that_are_registered_in_a_project_at_once_are_all_kept(
    tmp_path: Path, postgres_url: str
) -> None:
    gate = threading.Barrier(2)

    def wait_for_the_other(session: Session, context: object) -> None:
        if any(isinstance(made, Dataset) for made in session.new):
            gate.wait()

    with serve(tmp_path, DATABASE_URL=postgres_url) as api:
        ada = api.person("ada")
        body = {"project_id": ada.project(), "name": "shades", "path": str(api.image_folder())}
        register = lambda: ada.post("/datasets", body).status_code  # noqa: E731
        event.listen(Session, "after_flush", wait_for_the_other)
        try:
            assert at_once(register, register) == [201, 201]
        finally:
            event.remove(Session, "after_flush", wait_for_the_other)


def test_of_two_refreshes_at_once_one_wins_and_its_tokens_live(api: Api) -> None:
    person = api.person_with_password("ada")
    body = {"email": person.email, "password": "correct horse battery"}
    pair = api.nobody.post("/auth/login", body).json
    headers = {"Authorization": f"Bearer {pair['refresh_token']}"}
    refresh = lambda: api.nobody.call("POST", "/auth/refresh", headers=headers)  # noqa: E731
    answers = at_once(refresh, refresh, refresh)
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401]
    (won,) = [answer.json for answer in answers if answer.status_code == 200]
    assert Person(api.app, token=won["access_token"]).get("/auth/me").status_code == 200


def test_of_two_registrations_at_once_one_wins(api: Api) -> None:
    body = {"email": "ada@example.org", "password": "correct horse battery", "name": "Ada"}
    register = lambda: api.nobody.post("/auth/register", body).status_code  # noqa: E731
    assert sorted(at_once(register, register)) == [201, 409]
    with api.app.app_context():
        assert db.session.scalar(select(func.count()).select_from(User)) == 1


def test_of_two_owners_who_leave_at_once_one_stays(api: Api) -> None:
    ada, bob = api.person("ada"), api.person("bob")
    project = ada.project()
    ada.post(f"/projects/{project}/members", {"email": bob.email, "role": "owner"})
    leave = [
        lambda person=person: person.delete(f"/projects/{project}/members/{person.id}").status_code
        for person in (ada, bob)
    ]
    assert sorted(at_once(*leave)) == [204, 409]


def test_lists_filters_and_positions_work_alike(api: Api) -> None:
    ada = with_job(api)
    ids = [1, ada.job(1, 1, priority=9)["id"], ada.job(1, 1, name="100%_x")["id"]]
    for job_id in ids:
        assert ada.post(f"/training/jobs/{job_id}/start").status_code == 200
    page = ada.get("/training/jobs", sort="-accuracy", limit=2).json
    rest = ada.get("/training/jobs", sort="-accuracy", limit=2, cursor=page["next_cursor"]).json
    jobs = {job["id"]: job for job in page["items"] + rest["items"]}
    assert {i: job["queue_position"] for i, job in jobs.items()} == {1: 2, 2: 1, 3: 3}
    found = ada.get("/training/jobs", q="100%_").json["items"]
    assert [job["id"] for job in found] == [3]
    assert ada.get("/training/jobs", q="\ud55c").json["total"] == 0
    assert ada.delete("/datasets/1").status_code == 409
    assert ada.delete("/projects/1").status_code == 409
    for job_id in ids:
        ada.post(f"/training/jobs/{job_id}/cancel")
    assert ada.delete("/training/jobs/1").status_code == 204
    assert ada.delete("/projects/1").status_code == 204
    with api.app.app_context():
        assert deletion.finish()
        assert db.session.scalar(select(func.count()).select_from(StatusChange)) == 0
