"""The OpenAPI document, the pages about it, and what every answer carries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api import Api
from tests.worker_service import ROOT
from webapp.extensions import db


@pytest.fixture
def document(api: Api) -> dict[str, Any]:
    found: dict[str, Any] = api.nobody.get("/openapi.json").json
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def test_the_document_describes_every_route_of_the_api(api: Api, document: dict[str, Any]) -> None:
    described = {(method.upper(), path) for method, path, _ in operations(document)}
    routes = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in api.app.url_map.iter_rules()
        if rule.rule.startswith("/api/v1/") and not rule.rule.endswith("openapi.json")
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert routes <= described
    assert document["openapi"] == "3.1.0"


def test_every_call_has_a_name_of_its_own_and_a_summary(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    assert all(operation["summary"] for _, _, operation in operations(document))


def test_no_two_schemas_share_a_name() -> None:
    """Of two of one name the document would keep one, and describe the other's answers by it."""
    pattern = re.compile(r"^class (\w+)\(", re.MULTILINE)
    files = [*(ROOT / "webapp/api/schemas").glob("*.py"), ROOT / "webapp/services/job_request.py"]
    names = [name for file in files for name in pattern.findall(file.read_text())]
    assert sorted(names) == sorted(set(names))


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str):
                yield part["$ref"]
            for value in part.values():
                yield from references(value)
        elif isinstance(part, list):
            for value in part:
                yield from references(value)

    schemas = document["components"]["schemas"]
    for reference in references(document):
        prefix, _, name = reference.rpartition("/")
        assert prefix == "#/components/schemas"
        assert name in schemas


def test_every_refusal_is_described_as_a_problem(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert list(response["content"]) == ["application/problem+json"], (method, path)


def test_calls_need_a_token_but_those_that_say_so(api: Api, document: dict[str, Any]) -> None:
    assert document["security"] == [{"bearer": []}]
    for method, path, operation in operations(document):
        if not path.startswith("/api/") or path.endswith(("/events", "/login", "/register")):
            continue
        address = re.sub(r"\{\w+\}", "1", path)
        assert api.nobody.call(method.upper(), address).status_code == 401, (method, path)
        assert "security" not in operation


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/nothing", 404),
        ("PUT", "/api/v1/projects", 405),
        ("GET", "/api/v1/training/jobs/1", 401),
    ],
)
def test_errors_are_problems_everywhere(api: Api, method: str, path: str, status: int) -> None:
    answer = api.nobody.call(method, path)
    assert answer.status_code == status
    assert answer.mimetype == "application/problem+json"
    assert answer.json["status"] == status
    assert set(answer.json) >= {"type", "title", "status", "detail"}
    if status == 405:
        assert "GET" in answer.headers["Allow"]


def test_a_mistake_of_ours_is_a_problem_that_tells_nothing(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("webapp.services.accounts.register", broken)
    api.app.config["PROPAGATE_EXCEPTIONS"] = False
    answer = api.nobody.post(
        "/auth/register", {"email": "a@b.org", "password": "long enough it is", "name": "a"}
    )
    assert answer.status_code == 500
    assert answer.mimetype == "application/problem+json"
    assert "secret" not in answer.text
    assert answer.headers["X-Request-Id"] in answer.json["detail"]


def test_a_database_that_is_away_is_503(api: Api) -> None:
    ada = api.person("ada")
    with api.app.app_context():
        db.drop_all()
    answer = ada.get("/projects")
    assert answer.status_code == 503
    assert "database" in answer.json["detail"]


@pytest.mark.parametrize("path", ["/api/v1/projects", "/api/v1/nothing", "/api/docs", "/healthz"])
def test_every_answer_carries_the_security_headers(api: Api, path: str) -> None:
    headers = api.app.test_client().get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    assert "style-src 'self';" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "same-origin"


def test_the_docs_come_from_here_alone(api: Api) -> None:
    client = api.app.test_client()
    page = client.get("/api/docs")
    assert page.status_code == 200
    sources = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert all(source.startswith(("/", "data:,")) for source in sources)
    for source in sources:
        if source.startswith("/"):
            assert client.get(source).status_code == 200, source
    assert not re.search(r"<script(?![^>]*src=)", page.text)
    assert client.get("/api/docs/swagger/../plugins.py").status_code == 404


def test_what_watches_over_the_service_is_answered(api: Api) -> None:
    client = api.app.test_client()
    assert client.get("/healthz").status_code == 200
    not_migrated = client.get("/readyz")
    assert not_migrated.status_code == 503
    assert "database" in not_migrated.json["detail"]
    metrics = client.get("/metrics")
    assert 'modelyard_jobs{status="running"} 0.0' in metrics.text
    assert 'route="/healthz"' in metrics.text
