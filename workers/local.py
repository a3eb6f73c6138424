"""`workers.train --stdio`: how the recorder of `subprocess` mode drives a job on its host.

The first line of stdin is the job's message, later lines are requests to stop, and stdout
carries one event a line.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any

from adapters.contract import TrainingJob
from adapters.wire import EventType, Outcome, job_folder
from modelyard.process import die_with_parent
from modelyard.settings import load_settings
from workers.attempt import place, run_attempt
from workers.journal import Journal
from workers.stopping import ASKED, Stop, StopRequest
from workers.template import Template


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
        line = journal.append(type, data).to_json() + "\n"
        try:
            sys.stdout.write(line)
            sys.stdout.flush()
        except BrokenPipeError:
            # The recorder is gone: the next one reads the file, which now ends with a checkpoint.
            stop.ask(Stop.SHUTDOWN)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    template = Template([job.framework], threads=settings.threads)
    ending = run_attempt(job, template=template, settings=settings, sink=sink, stop=stop)
    journal.close()
    return 0 if ending.outcome == Outcome.COMPLETED else 1


def _hear(stop: StopRequest) -> None:
    for line in sys.stdin:
        if line.strip() in ASKED:
            stop.ask(ASKED[line.strip()])
    # The recorder is gone, and with it whoever could be told: hand the job back.
    stop.ask(Stop.SHUTDOWN)
