"""`modelyard health`: what a person reads where a service does not do its work."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from werkzeug.serving import make_server

from modelyard.health import Unhealthy, check
from modelyard.settings import Settings, load_settings
from tests.factories import environment
from tests.services import PATIENCE_SECONDS, own_port
from webapp import create_app


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.health.ANSWER_SECONDS", PATIENCE_SECONDS)


def instance(home: Path, redis_url: str, **more: str) -> Settings:
    url = f"sqlite:///{home / 'modelyard.db'}"
    return load_settings(environment(home, database_url=url, redis_url=redis_url, **more))


def test_a_web_process_that_is_not_there_is_named_by_its_address(tmp_path: Path) -> None:
    port = own_port()
    settings = load_settings({"MODELYARD_HOME": str(tmp_path), "MODELYARD_PORT": str(port)})
    with pytest.raises(Unhealthy, match=f"127.0.0.1:{port}/readyz does not answer: .*refused"):
        check("web", settings)


def test_a_web_process_that_is_not_ready_says_what_is_away(tmp_path: Path) -> None:
    gone = f"redis://127.0.0.1:{own_port()}/0"
    server = make_server("127.0.0.1", 0, create_app(instance(tmp_path, gone)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        settings = instance(tmp_path, gone, MODELYARD_PORT=str(server.port))
        with pytest.raises(Unhealthy, match=r"readyz answers 503: database: .*; broker: "):
            check("web", settings)
    finally:
        server.shutdown()
        thread.join()


def test_a_redis_that_no_recorder_has_ever_read_is_no_redis_that_is_away(
    tmp_path: Path, redis_url: str
) -> None:
    with pytest.raises(Unhealthy, match="no recorder reads the event stream"):
        check("recorder", instance(tmp_path, redis_url))


@pytest.mark.parametrize("service", ["worker", "recorder"])
def test_where_redis_is_away_the_setting_is_named(tmp_path: Path, service: str) -> None:
    gone = f"redis://127.0.0.1:{own_port()}/0"
    with pytest.raises(Unhealthy, match=f"{service} cannot be asked, .* look at REDIS_URL"):
        check(service, instance(tmp_path, gone))
