"""The temporary folder of a worker goes with it, and of one that was killed with the next."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapters.contract import ErrorKind, TrainingError
from modelyard.settings import SettingsError
from tests.services import ROOT
from tests.timm_jobs import make_job
from workers import temporary

CLAIM = """
import sys, tempfile
from workers import temporary
temporary.claim()
tempfile.mkstemp()
print(tempfile.gettempdir(), flush=True)
sys.stdin.read()
"""


class Claimer:
    """A process that has a folder of its own until its input ends, or it is killed."""

    def __init__(self, base: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLAIM], cwd=ROOT, env={"TMPDIR": str(base)}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.folder = Path(self.process.stdout.readline().strip())

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self) -> None:
        self.process.communicate()


@pytest.fixture
def base() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own lie too deep
        yield Path(folder)


def test_a_folder_goes_with_its_process(base: Path) -> None:
    claimer = Claimer(base)
    assert claimer.folder.parent == base
    claimer.end()
    assert not list(base.iterdir())


def test_what_a_killed_process_left_goes_with_the_next_and_nothing_else_does(base: Path) -> None:
    (base / "modelyard-of-a-person").mkdir()
    living, killed = Claimer(base), Claimer(base)
    killed.kill()
    assert len(list(killed.folder.iterdir())) == 2  # its lock, and a file
    following = Claimer(base)
    left = {path.name for path in base.iterdir()}
    assert left == {living.folder.name, following.folder.name, "modelyard-of-a-person"}
    assert len(list(living.folder.iterdir())) == 2
    living.end()
    following.end()


def test_a_folder_in_which_sockets_could_have_no_names_is_refused(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = base / ("x" * temporary.LONGEST_BYTES)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(SettingsError, match=r"^TMPDIR is .*: sockets .* at most 50 bytes$"):
        temporary.claim()
    assert not list(deep.iterdir())


def test_a_full_temporary_disk_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_disk: Callable[[str], Path]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk("500k,nr_inodes=1")))
    job = make_job(tmp_path, tmp_path)
    with (
        pytest.raises(TrainingError, match="Nothing more can be written to") as refused,
        temporary.attempt_folder(job),
    ):
        pass
    assert refused.value.kind == ErrorKind.DISK_FULL
