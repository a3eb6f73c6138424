"""Fixtures that start real services; see ``services.py``."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import hypothesis
import pytest

from tests.services import PostgresService, RedisService, S3Service, chromium

# Before torch is imported, here or in a process that a test starts. Tests share the machine: a
# second thread only waits for the first, and burns a core that another test needs.
os.environ["OMP_NUM_THREADS"] = "1"

# The same examples in each run: a fault that one in ten thousand shows is found by looking for it
# (--hypothesis-profile=default, with more examples) and not by somebody whose change is another.
# Of these, too, none fails for being slow on a machine that others use.
hypothesis.settings.register_profile(
    "repeatable",
    derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow],
)  # fmt: skip
hypothesis.settings.load_profile("repeatable")

# Files that take more than a minute are begun first, in this order, that no process has one left
# when the others have nothing; of those at work together some wait and some compute.
LONGEST = (
    "e2e/test_demo.py",
    "faults/test_faults.py",
    "integration/test_matrix.py",
    "integration/test_worker.py",
    "faults/test_preemption.py",
    "integration/test_ultralytics_tasks.py",
    "integration/test_up.py",
    "faults/test_chaos.py",
    "integration/test_ultralytics_adapter.py",
    "integration/test_storage.py",
    "integration/test_huggingface_adapter.py",
    "faults/test_timm_faults.py",
    "integration/test_timm_tasks.py",
    "integration/test_api_training.py",
    "integration/test_timm_adapter.py",
    "faults/test_drain.py",
    "integration/test_huggingface_ranks.py",
    "e2e/test_real_training.py",
    "faults/test_gpu_faults.py",
)

# Settings of the machine or of a .env file must not decide a test.
_SETTINGS = ("REDIS_URL", "DATABASE_URL", "TRAINING_EXECUTION_MODE")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests by their files, as LONGEST has them."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("MODELYARD_") or name in _SETTINGS:
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def _redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisService]:
    service = RedisService(tmp_path_factory.mktemp("redis"))
    service.start()
    yield service
    service.stop()


@pytest.fixture
def redis_url(_redis: RedisService) -> str:
    """URL, password in it, of a real server shared by the session and emptied before each test."""
    with _redis.client() as client:
        client.flushall()
    return _redis.url


@pytest.fixture
def redis_service(tmp_path: Path) -> Iterator[RedisService]:
    """A real, started server of the test's own: to be killed, frozen, started again."""
    service = RedisService(tmp_path / "redis")
    service.start()
    yield service
    service.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes file systems of a size as mount takes it ('500k'), where one can be mounted."""
    made: list[Path] = []

    def make(size: str) -> Path:
        folder = tmp_path / f"disk-{len(made)}"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        made.append(folder)
        return folder

    yield make
    for folder in made:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Service]:
    """A real S3 server shared by the session; each test makes a bucket of its own."""
    service = S3Service(tmp_path_factory.mktemp("s3"))
    service.start()
    yield service
    service.stop()


@pytest.fixture(scope="session")
def _postgres() -> Iterator[PostgresService]:
    try:
        service = PostgresService()
    except FileNotFoundError as error:
        _missing(error)
    service.start()
    yield service
    service.stop()


@pytest.fixture
def postgres_url(_postgres: PostgresService) -> Iterator[str]:
    """URL of a fresh, empty database in a real PostgreSQL."""
    url = _postgres.create_database()
    yield url
    _postgres.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a fresh, empty database; the test runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'modelyard.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Path of a real Chromium, for the tests in a browser."""
    try:
        return chromium()
    except FileNotFoundError as error:
        _missing(error)


def _missing(error: FileNotFoundError) -> NoReturn:
    """Skip at home, fail where the whole suite has to run."""
    if os.environ.get("CI"):
        pytest.fail(str(error))
    pytest.skip(str(error))
