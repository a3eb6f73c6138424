"""A disk that is really full, in the middle of training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.site import Site, ended, in_epoch
from webapp.services import job_actions


def fill(path: Path) -> None:
    """Write a file as large as its disk allows."""

    def write(size: int) -> None:
        with path.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(size))

    for size in (2**20, 2**12):
        with pytest.raises(OSError, match="No space left"):
            write(size)


def test_a_full_disk_ends_the_attempt_with_its_reason_and_frees_the_slot(
    there: Site, small_disk: Callable[[str], Path]
) -> None:
    outputs = there.home / "outputs"
    disk = small_disk("530m")  # little more than what a job must find free
    outputs.symlink_to(disk)
    there.quick_worker("w1")
    job = there.job(epochs=2, hold_in=2)
    there.wait(job, in_epoch(2))
    filler = disk / "filler"
    fill(filler)
    there.wait(job, lambda job: job.status == "failed")
    assert job.error is not None
    assert job.error["kind"] == "disk_full"
    assert job.error["hint"]
    assert job.attempt == 1
    filler.unlink()
    there.let_go(job.id)
    job_actions.resume(job, actor="test")
    there.wait(job, ended)
    assert (job.status, job.attempt) == ("completed", 2)
