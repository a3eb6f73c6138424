"""Temporary files of frameworks and multiprocessing, of which a killed process leaves none."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.wire import EventType, Outcome
from tests.faults.site import Site, ended, gone, kill, training
from tests.services import wait_for
from tests.timm_jobs import make_job, write_digits
from workers.stopping import Stop, StopRequest
from workers.supervisor import Supervisor
from workers.template import Template


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files whose path is short enough for sockets in it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_a_killed_child_leaves_no_temporary_file(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = Template(["timm"], threads=1)
    template.warm_up()  # its own socket lies elsewhere, as long as this process lives
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    data = write_digits(tmp_path / "digits")
    # Ranks meet over a file, and their loaders hand tensors over through sockets.
    job = make_job(data, tmp_path / "out", compute_device="cpu*2", epochs=1000)
    job.hyperparameters["workers"] = 1
    stop, seen = StopRequest(), set()

    def sink(type: EventType, data: object) -> None:
        seen.update(path.name.partition("-")[0] for path in temporary.glob("*/*"))
        if seen >= {"modelyard", "listener"}:
            stop.ask(Stop.KILL)

    ending = Supervisor(
        job,
        template=template,
        sink=sink,
        stop=stop,
        cancel_grace_seconds=10,
        shutdown_grace_seconds=10,
    ).run()
    assert ending.outcome == Outcome.CANCELLED
    assert not list(temporary.iterdir())


def test_what_a_killed_worker_left_goes_when_it_is_started_again(
    there: Site, temporary: Path
) -> None:
    job = there.job(epochs=2, steps=20, step_seconds=0.1, loaders=1)
    worker = there.quick_worker("w1", TMPDIR=str(temporary))
    there.wait(job, training)
    children = there.children()
    kill(worker)
    wait_for(lambda: gone(children), what="the children's end")
    (left,) = temporary.iterdir()
    assert list(left.glob(f"{job.id}-*"))
    again = there.quick_worker("w1", TMPDIR=str(temporary))
    assert left not in temporary.iterdir()
    there.wait(job, ended)
    assert (job.status, job.attempt) == ("completed", 2)
    (own,) = temporary.iterdir()
    assert not list(own.glob(f"{job.id}-*"))
    again.terminate()
    again.wait(60)
    assert not list(temporary.iterdir())
