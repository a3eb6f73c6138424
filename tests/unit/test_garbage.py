"""What pages leave behind is collected although hardly anything else is new."""

from __future__ import annotations

import gc
import os
import subprocess
from pathlib import Path

from flask.testing import FlaskClient
from jinja2.runtime import Context

from tests.factories import application, environment, make_job
from tests.services import python
from webapp.services import accounts

PASSWORD = "correct horse battery staple"

PROGRAM = """
import gc
import weakref

from webapp import wsgi

class Page:
    def __init__(self):
        self.itself = self

pages = [Page() for _ in range(100)]
for _ in range(2):  # they get old, as those of a slow request do
    gc.collect(1)
left = [weakref.ref(page) for page in pages]
del pages
for _ in range(300_000):  # each is a cycle, so that only the collector takes it away
    young = Page()
print(sum(page() is not None for page in left))
"""


def test_the_web_process_collects_old_cycles_soon(tmp_path: Path) -> None:
    environ = {**os.environ, "MODELYARD_HOME": str(tmp_path), "REDIS_URL": "redis://127.0.0.1:1/0"}
    done = subprocess.run(
        python("-c", PROGRAM), env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "0"


def test_a_page_holds_nothing_once_it_is_answered(tmp_path: Path) -> None:
    environ = environment(tmp_path, database_url=f"sqlite:///{tmp_path / 'modelyard.db'}")
    with application(environ) as app:
        accounts.create_user(email="ada@example.org", password=PASSWORD, name="Ada", is_admin=True)
        job = make_job()
        pages = ["/", "/workers", "/storage", f"/projects/{job.project_id}", f"/jobs/{job.id}"]
    client = app.test_client()
    client.post("/login", data={"email": "ada@example.org", "password": PASSWORD})
    assert {page: _contexts_left(client, page) for page in pages} == dict.fromkeys(pages, 0)


def _contexts_left(client: FlaskClient, page: str) -> int:
    """Look at a page and count what of it is there while the collector is off."""
    gc.collect()
    gc.disable()
    try:
        assert client.get(page).status_code == 200
        contexts = [o for o in gc.get_objects() if type(o) is Context]
    finally:
        gc.enable()
    return sum("user" in context.get_all() for context in contexts)
