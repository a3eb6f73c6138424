"""`modelyard doctor` and the store: what is wrong with it, in words, and no secret among them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.checks import Finding, Level, folders
from modelyard.checks import store as checks
from modelyard.settings import Settings, load_settings
from modelyard.storage import StorageError, Store
from tests.services import PATIENCE_SECONDS, S3Service, own_port

SECRET = "the-secret-of-this-test"


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "ANSWER_SECONDS", PATIENCE_SECONDS)


@pytest.fixture
def reaching(s3: S3Service, monkeypatch: pytest.MonkeyPatch) -> S3Service:
    for name, value in {**s3.environ, "AWS_SECRET_ACCESS_KEY": SECRET}.items():
        monkeypatch.setenv(name, value)
    return s3


def settings_with(tmp_path: Path, url: str | None, **variables: str) -> Settings:
    store = {} if url is None else {"MODELYARD_STORE": url}
    return load_settings({"MODELYARD_HOME": str(tmp_path / "home"), **store, **variables})


def finding(tmp_path: Path, url: str) -> Finding:
    (found,) = checks.store(settings_with(tmp_path, url))
    assert SECRET not in f"{found.text} {found.remedy}"
    return found


def test_a_store_that_works_is_fine_and_is_left_as_it_was(
    tmp_path: Path, reaching: S3Service
) -> None:
    bucket = reaching.create_bucket()
    assert finding(tmp_path, f"s3://{bucket}/modelyard").level == Level.OK
    assert "Contents" not in reaching.client().list_objects_v2(Bucket=bucket)


def test_a_folder_is_a_store_too(tmp_path: Path) -> None:
    assert finding(tmp_path, f"file://{tmp_path}/store").level == Level.OK
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


def test_a_bucket_that_is_not_there_is_told(tmp_path: Path, reaching: S3Service) -> None:
    found = finding(tmp_path, "s3://no-such-bucket/modelyard")
    assert found.level == Level.PROBLEM
    assert "no such bucket" in found.text
    assert "make the bucket" in found.remedy


def test_a_wrong_key_is_told(
    tmp_path: Path, reaching: S3Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "stranger")
    found = finding(tmp_path, f"s3://{reaching.create_bucket()}/modelyard")
    assert found.level == Level.PROBLEM
    assert "not allowed" in found.text
    assert "AWS_ACCESS_KEY_ID" in found.remedy
    assert "stranger" not in found.text


def test_missing_credentials_are_told(
    tmp_path: Path, s3: S3Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.environ["AWS_ENDPOINT_URL"])
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    found = finding(tmp_path, f"s3://{s3.create_bucket()}/modelyard")
    assert found.level == Level.PROBLEM
    assert "no credentials" in found.text


def test_a_server_that_is_not_there_is_told(
    tmp_path: Path, reaching: S3Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{own_port()}")
    found = finding(tmp_path, "s3://bucket/modelyard")
    assert found.level == Level.PROBLEM
    assert "cannot be written: Could not connect" in found.text
    assert "AWS_ENDPOINT_URL" in found.remedy


def test_what_a_library_says_of_secrets_is_not_repeated(
    tmp_path: Path, reaching: S3Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def talkative(self: Store, key: str, content: bytes) -> None:
        said = f"cannot reach http://user:hidden@host/ with {SECRET}"
        raise StorageError("x") from OSError(said)

    monkeypatch.setattr(Store, "write", talkative)
    found = finding(tmp_path, "s3://bucket/modelyard")
    assert "cannot reach http://…@host/ with …" in found.text


def test_a_secret_of_one_letter_leaves_the_words_that_hold_it(
    tmp_path: Path, reaching: S3Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def talkative(self: Store, key: str, content: bytes) -> None:
        raise StorageError("x") from OSError("the key k was not taken back")

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setattr(Store, "write", talkative)
    found = finding(tmp_path, "s3://bucket/modelyard")
    assert found.text.endswith("cannot be written: the key … was not taken back")


def test_a_server_that_says_nothing_is_not_waited_for(
    tmp_path: Path, reaching: S3Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "ANSWER_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        found = finding(tmp_path, "s3://bucket/modelyard")
    assert found.level == Level.PROBLEM
    assert "does not answer within 1 s" in found.text


def test_a_key_that_may_not_delete_is_told(
    tmp_path: Path, reaching: S3Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Store, prefix: str) -> None:
        raise StorageError("refused") from PermissionError("Access Denied")

    monkeypatch.setattr(Store, "delete", refused)  # the server knows no rights of keys
    found = finding(tmp_path, f"s3://{reaching.create_bucket()}/modelyard")
    assert found.level == Level.PROBLEM
    assert "cannot be deleted: not allowed" in found.text


def test_without_a_store_nothing_is_said_of_it(tmp_path: Path) -> None:
    assert list(checks.store(settings_with(tmp_path, None))) == []


def test_in_subprocess_mode_it_is_not_asked_for(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, "s3://nobody/asks", TRAINING_EXECUTION_MODE="subprocess")
    (found,) = checks.store(settings)
    assert found.level == Level.OK


def test_hosts_with_a_store_need_not_share_their_outputs(tmp_path: Path, redis_url: str) -> None:
    for host in ("web", "gpu"):
        (tmp_path / host).mkdir()
        settings = settings_with(
            tmp_path, f"file://{tmp_path}/store",
            REDIS_URL=redis_url, MODELYARD_OUTPUTS=str(tmp_path / host),
        )  # fmt: skip
        assert list(folders.shared_outputs(settings)) == []


def test_the_command_tells_of_a_store_that_does_not_work(
    tmp_path: Path, reaching: S3Service
) -> None:
    environ = {**os.environ, "MODELYARD_HOME": str(tmp_path)}
    environ |= {"MODELYARD_STORE": "s3://no-such-bucket/modelyard", "REDIS_URL": ""}
    done = subprocess.run(
        [sys.executable, "-m", "modelyard", "doctor"],
        env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "FAIL  store" in done.stdout
    assert SECRET not in done.stdout + done.stderr
