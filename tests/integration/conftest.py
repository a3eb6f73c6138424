"""Fixtures that several tests of the recorder's side share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.factories import application, environment, make_job
from tests.services import RedisService
from webapp.models import Job
from webapp.services import job_actions


@pytest.fixture
def redis(redis_service: RedisService, monkeypatch: pytest.MonkeyPatch) -> RedisService:
    """A server of the test's own that the reaper trusts, though it is seconds old."""
    monkeypatch.setattr("webapp.services.reaper._redis_is_fresh", lambda: False)
    return redis_service


@pytest.fixture
def job(tmp_path: Path, database_url: str, redis: RedisService) -> Iterator[Job]:
    """A job that the database calls queued, at its first attempt, in an application at work."""
    environ = environment(tmp_path, database_url=database_url, redis_url=redis.url)
    with application(environ):
        job = make_job()
        job_actions.start(job, actor="test")
        yield job
