"""`modelyard doctor` against what is really there, and what is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.checks import Finding, Level, folders, frameworks, services
from modelyard.settings import Settings, load_settings
from tests.services import RedisService, own_port


def settings_with(tmp_path: Path, **variables: str) -> Settings:
    return load_settings({"MODELYARD_HOME": str(tmp_path / "home"), **variables})


def levels(findings: list[Finding]) -> list[Level]:
    return [finding.level for finding in findings]


def test_a_redis_that_keeps_its_log_is_fine(tmp_path: Path, redis_url: str) -> None:
    findings = list(services.redis(settings_with(tmp_path, REDIS_URL=redis_url)))
    assert levels(findings) == [Level.OK]
    assert "answers" in findings[0].text


def test_a_redis_that_can_lose_the_queue_is_pointed_out(
    tmp_path: Path, redis_service: RedisService
) -> None:
    with redis_service.client() as client:
        client.config_set("appendonly", "no")
        client.config_set("maxmemory-policy", "allkeys-lru")
    findings = list(services.redis(settings_with(tmp_path, REDIS_URL=redis_service.url)))
    assert levels(findings) == [Level.OK, Level.WARNING, Level.WARNING]
    assert "appendonly yes" in findings[1].remedy


def test_a_redis_that_wants_a_password_says_so(tmp_path: Path, redis_url: str) -> None:
    without = "redis://" + redis_url.rpartition("@")[2]
    (finding,) = services.redis(settings_with(tmp_path, REDIS_URL=without))
    assert finding.level == Level.PROBLEM
    assert "REDIS_URL" in finding.remedy


def test_a_redis_that_is_away_is_a_problem_with_a_remedy(tmp_path: Path) -> None:
    url = f"redis://:secret@127.0.0.1:{own_port()}/0"
    (finding,) = services.redis(settings_with(tmp_path, REDIS_URL=url))
    assert finding.level == Level.PROBLEM
    assert finding.remedy
    assert "secret" not in finding.text


def test_without_an_address_the_embedded_server_is_tried(tmp_path: Path) -> None:
    (finding,) = services.redis(settings_with(tmp_path))
    assert finding.level == Level.OK
    assert "embedded server 9." in finding.text


def test_the_database_is_reached(tmp_path: Path, database_url: str) -> None:
    (finding,) = services.database(settings_with(tmp_path, DATABASE_URL=database_url))
    assert finding.level == Level.OK


def test_a_database_that_is_away_is_a_problem(tmp_path: Path) -> None:
    url = f"postgresql://nobody@127.0.0.1:{own_port()}/none"
    (finding,) = services.database(settings_with(tmp_path, DATABASE_URL=url))
    assert finding.level == Level.PROBLEM


def test_a_file_that_is_no_database_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_text("not a database, whatever its name says" * 100)
    url = f"sqlite:///{tmp_path}/broken.db"
    (finding,) = services.database(settings_with(tmp_path, DATABASE_URL=url))
    assert finding.level == Level.PROBLEM


def test_two_hosts_with_the_same_outputs_folder_agree(tmp_path: Path, redis_url: str) -> None:
    settings = settings_with(tmp_path, REDIS_URL=redis_url, MODELYARD_OUTPUTS=str(tmp_path))
    for _ in ("web host", "GPU box"):
        assert levels(list(folders.shared_outputs(settings))) == [Level.OK]


def test_a_host_with_another_outputs_folder_is_told(tmp_path: Path, redis_url: str) -> None:
    for name, level in (("shared", Level.OK), ("local", Level.PROBLEM)):
        (tmp_path / name).mkdir()
        settings = settings_with(
            tmp_path, REDIS_URL=redis_url, MODELYARD_OUTPUTS=str(tmp_path / name)
        )
        assert levels(list(folders.shared_outputs(settings))) == [level]


def test_a_data_folder_that_is_not_there_is_pointed_out(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, MODELYARD_DATA_ROOTS=f"{tmp_path}:{tmp_path}/gone")
    assert levels(list(folders.data_roots(settings))) == [Level.OK, Level.WARNING]


@pytest.mark.skipif(os.getuid() != 0, reason="another user's view needs root")
def test_outputs_that_cannot_be_written_are_a_problem(tmp_path: Path) -> None:
    # Root writes anywhere but into what is no folder of a real file system.
    (finding,) = folders.outputs(settings_with(tmp_path, MODELYARD_OUTPUTS="/proc/1/outputs"))
    assert finding.level == Level.PROBLEM


def test_a_framework_that_is_asked_for_and_unknown_is_a_problem(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, MODELYARD_FRAMEWORKS="timm,timn")
    found = list(frameworks.installed(settings))
    assert levels(found) == [Level.OK, Level.PROBLEM]
    assert "timm" in found[1].remedy


def test_the_command_ends_with_one_where_something_will_not_work(tmp_path: Path) -> None:
    environ = {**os.environ, "MODELYARD_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "modelyard", "doctor"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "torch" in done.stdout
    environ["REDIS_URL"] = f"redis://127.0.0.1:{own_port()}/0"
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "FAIL  redis" in done.stdout
    assert "1 problem to mend" in done.stdout


@pytest.mark.parametrize(
    ("free", "level"),
    [(500 * 10**6, Level.PROBLEM), (9 * 10**9, Level.WARNING), (49 * 10**9, Level.WARNING),
     (51 * 10**9, Level.OK)],
)  # fmt: skip
def test_a_volume_that_is_nearly_full_is_pointed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: Level
) -> None:
    usage = shutil._ntuple_diskusage(10**12, 10**12 - free, free)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    (finding,) = folders.disks(settings_with(tmp_path))  # all on one volume
    assert finding.level == level
    assert "of 1 TB free" in finding.text
