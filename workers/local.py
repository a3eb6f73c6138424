"""One job on this host under a supervisor, with no broker: what both ways of `workers.train` share.

`subprocess` mode speaks over pipes (:func:`run_stdio`): the first line of stdin is the job's
message, later lines are requests to stop, and stdout carries one event a line.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapters.contract import DeviceChoice, TrainingError, TrainingJob
from adapters.wire import EventType, Outcome, job_folder
from modelyard.process import die_with_parent
from modelyard.settings import Settings, load_settings
from workers.devices import device_title, list_gpus
from workers.journal import Journal
from workers.placement import check_placed
from workers.presence import framework_versions
from workers.stopping import CANCEL_MODES, Stop, StopRequest
from workers.supervisor import Ending, EventSink, Supervisor
from workers.template import Template


def run(job: TrainingJob, *, settings: Settings, sink: EventSink, stop: StopRequest) -> Ending:
    """Train a placed job in a child and return how it ended."""
    gpus = list_gpus() if job.compute_device != "cpu" else []
    introduction = {
        "worker": settings.worker_name,
        "host": socket.gethostname(),
        "device": device_title(job.compute_device, gpus),
        "versions": framework_versions([job.framework]),
        "pid": os.getpid(),
    }
    sink(EventType.STARTED, introduction)
    try:
        check_placed(job, data_roots=settings.data_roots)
    except TrainingError as error:
        ending = Ending(Outcome.FAILED, error=error.to_json())
        sink(EventType.FINISHED, ending.to_json())
        return ending
    return Supervisor(
        job,
        template=Template([job.framework], threads=settings.threads),
        sink=sink,
        stop=stop,
        cancel_grace_seconds=settings.cancel_grace_seconds,
        shutdown_grace_seconds=settings.shutdown_grace_seconds,
    ).run()


def run_stdio() -> int:
    """Train the job that stdin names for the recorder on this host."""
    # A dead recorder cannot record: what it started writes a checkpoint and ends.
    die_with_parent(os.getppid(), signal.SIGTERM)
    settings = load_settings()
    request = json.loads(sys.stdin.readline())
    job = TrainingJob.from_message(request["job"])
    folder = settings.outputs / job_folder(job.id)
    job = place(job, settings, output_dir=folder, device=request["device"])
    stop = StopRequest()
    signal.signal(signal.SIGTERM, lambda *_: stop.ask(Stop.SHUTDOWN))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_hear, args=(stop,), daemon=True).start()
    journal = Journal(job)

    def sink(type: EventType, data: Mapping[str, Any]) -> None:
        sys.stdout.write(journal.append(type, data).to_json() + "\n")
        sys.stdout.flush()

    ending = run(job, settings=settings, sink=sink, stop=stop)
    journal.close()
    return 0 if ending.outcome == Outcome.COMPLETED else 1


def _hear(stop: StopRequest) -> None:
    for line in sys.stdin:
        if line.strip() in CANCEL_MODES:
            stop.ask(CANCEL_MODES[line.strip()])
    # The recorder is gone, and with it whoever could be told: hand the job back.
    stop.ask(Stop.SHUTDOWN)


def place(job: TrainingJob, settings: Settings, *, output_dir: Path, device: str) -> TrainingJob:
    """Return the job with this host's paths and a device."""
    compute_device = "cpu" if job.device == DeviceChoice.CPU else device
    return job.placed(
        output_dir=output_dir, weights_dir=settings.weights, compute_device=compute_device
    )
