"""The OpenAPI document is true: generated requests find no answer that it does not describe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.api import Api, Person, serve

EXAMPLES = 15

# What a schema cannot say is refused with a described 422: that a cursor is one of ours, that
# somebody has an address, that a folder, a model or an archive is there, that a password is no
# common one, that a job is urgent enough to take another's place.
MEANING_IS_CHECKED = {
    "GET /api/v1/auth/tokens",
    "GET /api/v1/datasets",
    "GET /api/v1/models",
    "GET /api/v1/projects",
    "GET /api/v1/projects/{project_id}/members",
    "GET /api/v1/training/jobs",
    "GET /api/v1/training/jobs/{job_id}/artifacts",
    "GET /api/v1/training/jobs/{job_id}/history",
    "POST /api/v1/auth/register",
    "GET /api/v1/datasets/{dataset_id}/preview",
    "POST /api/v1/datasets",
    "POST /api/v1/datasets/upload",
    "POST /api/v1/datasets/{dataset_id}/validate",
    "POST /api/v1/projects/{project_id}/members",
    "POST /api/v1/training/jobs",
    "PATCH /api/v1/training/jobs/{job_id}",
    "POST /api/v1/training/jobs/{job_id}/clone",
    "POST /api/v1/training/jobs/{job_id}/predict",
}
# Streams do not end by themselves; a logout would end the tester's own login.
LEFT_OUT = {
    "GET /api/v1/training/jobs/{job_id}/events",
    "GET /api/v1/projects/{project_id}/events",
    "POST /api/v1/auth/logout",
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with serve(tmp_path_factory.mktemp("home"), config={"RATELIMIT_ENABLED": False}) as served:
        with served.app.app_context():
            from webapp.extensions import db
            from webapp.services import schema

            db.drop_all()
            schema.migrate()
        yield served


@pytest.fixture(scope="module")
def tester(api: Api) -> Person:
    """An administrator, with things of every kind for generated ids to meet."""
    person = api.person("tester", admin=True)
    for _ in range(3):
        project = person.project()
    dataset = api.dataset(project)
    for _ in range(3):
        person.job(project, dataset)
    return person


def test_every_answer_to_generated_requests_is_as_described(api: Api, tester: Person) -> None:
    load_all_checks()
    description = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", api.app)
    problems = []
    tried = 0
    for result in description.get_all_operations():
        operation = result.ok()
        if operation.label in LEFT_OUT:
            continue
        tried += 1
        try:
            _probe(operation, tester)
        except Exception as problem:
            problems.append(f"{operation.label}: {problem}")
    assert not problems, "\n\n".join(problems)
    assert tried > 35


def _probe(operation: Any, tester: Person) -> None:
    excluded = [positive_data_acceptance] if operation.label in MEANING_IS_CHECKED else []

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=operation.as_strategy())
    def probe(case: Any) -> None:
        case.headers = {**dict(case.headers or {}), "Authorization": f"Bearer {tester.token}"}
        case.call_and_validate(excluded_checks=excluded)

    probe()
