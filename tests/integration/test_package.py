"""What is installed is whole: a wheel holds every file, and each host needs only its own."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("adapters", "modelyard", "webapp", "workers")
TRAINING = ("torch", "torchvision", "timm", "ultralytics", "ultralytics-opencv-headless")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in a wheel made from a copy of what is tracked."""
    folder = tmp_path_factory.mktemp("wheel")
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", "HEAD"], capture_output=True, check=True
    ).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder / "dist"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(path) as file:
        return set(file.namelist())


def test_a_wheel_holds_every_tracked_file_of_the_packages(wheel: set[str]) -> None:
    listed = ["git", "-C", str(ROOT), "ls-tree", "-r", "--name-only", "HEAD", *PACKAGES]
    tracked = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
    assert {"celeryconfig.py", *tracked} - wheel == set()


def test_a_wheel_holds_no_tests(wheel: set[str]) -> None:
    assert not [name for name in wheel if name.startswith(("tests/", "docs/", "build/"))]


def requirements(name: str) -> set[str]:
    """Return the names in a file of requirements and in those it includes."""
    found: set[str] = set()
    for line in (ROOT / "requirements" / f"{name}.txt").read_text().splitlines():
        if line.startswith("-r "):
            found |= requirements(line.removeprefix("-r ").removesuffix(".txt"))
        elif line and not line.startswith(("#", "-")):
            found.add(re.split(r"[\[<>=!]", line)[0].lower().replace("_", "-"))
    return found


def pins() -> dict[str, str]:
    lines = (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if "==" in line)
    return {name.lower().replace("_", "-"): version for name, version in pairs}


def test_a_web_host_installs_nothing_that_trains() -> None:
    assert not requirements("web") & set(TRAINING)


def test_a_worker_host_installs_no_web_application() -> None:
    for name in ("worker", "timm", "ultralytics"):
        assert not [r for r in requirements(name) if "flask" in r or "sqlalchemy" in r]


@pytest.mark.parametrize("name", ["web", "worker", "timm", "ultralytics", "dev"])
def test_everything_that_is_required_is_pinned(name: str) -> None:
    assert requirements(name) <= set(pins()), requirements(name) - set(pins())


def test_the_pinned_pair_of_torch_and_torchvision_is_one_that_fits() -> None:
    # torchvision 0.N belongs to torch 2.(N - 15), since 0.15 came with 2.0.
    torch, torchvision = pins()["torch"].split("."), pins()["torchvision"].split(".")
    assert (torch[0], torchvision[0]) == ("2", "0")
    assert int(torch[1]) == int(torchvision[1]) - 15
