"""What libraries say on the side reaches the job's log."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from adapters.contract import TrainingJob
from adapters.wire import EventType, Outcome
from tests.timm_jobs import changed, elsewhere, make_job, write_digits
from workers.stopping import StopRequest
from workers.supervisor import Supervisor
from workers.template import Template


def log_of(job: TrainingJob, template: Template) -> str:
    lines: list[str] = []

    def sink(type: EventType, data: Mapping[str, Any]) -> None:
        if type == EventType.LOG:
            lines.extend(data["lines"])

    ending = Supervisor(
        job,
        template=template,
        sink=sink,
        stop=StopRequest(),
        cancel_grace_seconds=10,
        shutdown_grace_seconds=10,
    ).run()
    assert ending.outcome == Outcome.COMPLETED, "\n".join(lines)
    return "\n".join(lines)


@pytest.mark.parametrize(("device", "workers"), [("cpu", 0), ("cpu*2", 1)])
def test_warnings_and_lines_of_libraries_are_in_the_log(
    tmp_path: Path, device: str, workers: int
) -> None:
    data = write_digits(tmp_path / "digits")
    template = Template(["timm"], threads=1)
    job = make_job(data, tmp_path / "first")
    first = log_of(job, template)
    assert "EXIF" not in first
    torn = b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12"  # it says five entries
    Image.new("RGB", (32, 32)).save(data / "train" / "3" / "torn.jpg", exif=torn)
    second = changed(
        elsewhere(job, "second", compute_device=device, hyperparameters={"workers": workers}),
        initial_dir=job.output_dir,
        initial_job_id=1,
    )
    log = log_of(second, template)
    assert "UserWarning: Corrupt EXIF data" in log  # of Pillow
    assert device != "cpu" or log.count("Corrupt EXIF data") == 1  # not in each epoch again
    assert "Loading pretrained weights from file" in log  # timm's logger
