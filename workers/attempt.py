"""One attempt on this host, the same behind every way a job comes: placed, checked, supervised."""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from adapters.contract import DeviceChoice, ErrorKind, TrainingError, TrainingJob
from adapters.files import is_disk_full
from adapters.wire import EventType, Outcome, job_folder
from modelyard.gpus import shares_gpus
from modelyard.settings import Settings
from workers.devices import device_title, gpu_watch
from workers.fetching import FetchStopped, dataset_at_hand
from workers.gpu_release import GpuRelease
from workers.limits import Limits
from workers.placement import check_placed
from workers.presence import framework_versions
from workers.stopping import StopRequest
from workers.stored import StoredAttempt
from workers.supervisor import Ending, EventSink, Supervisor, judge
from workers.template import Template

logger = logging.getLogger(__name__)


def place(
    job: TrainingJob,
    settings: Settings,
    *,
    output_dir: Path,
    device: str,
    initial_dir: Path | None = None,
) -> TrainingJob:
    """Return the job with this host's paths and a device.

    The folder whose best weights it begins with follows from the job's number, unless it is given.
    """
    if initial_dir is None and job.initial_job_id is not None:
        initial_dir = settings.outputs / job_folder(job.initial_job_id)
    return job.placed(
        output_dir=output_dir,
        weights_dir=settings.weights,
        compute_device="cpu" if job.device == DeviceChoice.CPU else device,
        initial_dir=initial_dir,
    )


def introduction(job: TrainingJob, settings: Settings) -> dict[str, Any]:
    """Return what an attempt's first event tells: who trains a placed job, and with what."""
    gpus = gpu_watch.gpus() if job.compute_device != "cpu" else []
    return {
        "worker": settings.worker_name,
        "host": socket.gethostname(),
        "device": device_title(job.compute_device, gpus),
        "versions": framework_versions([job.framework]),
        "pid": os.getpid(),
    }


def run_attempt(
    job: TrainingJob,
    *,
    template: Template,
    settings: Settings,
    sink: EventSink,
    stop: StopRequest,
    lease_until: Callable[[], float] = lambda: math.inf,
    stored: StoredAttempt | None = None,
) -> Ending:
    """Train a placed job in a child and return how it ended.

    The child is paused while ``lease_until()`` lies in the past, by workers.leash.lease_clock.
    ``stored``: its outputs in the store, where hosts share no folder of them.
    """
    sink(EventType.STARTED, introduction(job, settings))
    with ExitStack() as held:
        try:
            if stored is not None:
                stored.bring()
            job = held.enter_context(dataset_at_hand(job, settings=settings, sink=sink, stop=stop))
            check_placed(job, data_roots=settings.dataset_roots)
            return Supervisor(
                job,
                template=template,
                sink=sink,
                stop=stop,
                cancel_grace_seconds=settings.cancel_grace_seconds,
                shutdown_grace_seconds=settings.shutdown_grace_seconds,
                lease_until=lease_until,
                limits=Limits(
                    stall_seconds=settings.stall_seconds, attempt_seconds=settings.attempt_seconds
                ),
                gpus=GpuRelease(job.compute_device, alone=not shares_gpus(settings.gpus)),
                conclude=stored.finish if stored is not None else lambda ending: ending,
            ).run()
        except TrainingError as error:
            return _conclude(Ending(Outcome.FAILED, error=error.to_json()), sink)
        except FetchStopped:
            return _conclude(judge(None, stop=stop.current, exit_code=None), sink)
        except Exception as error:
            return _conclude(_broken(error, settings, stop), sink)


def _broken(error: Exception, settings: Settings, stop: StopRequest) -> Ending:
    """Return how an attempt ended that this host could not carry out, for whatever reason.

    Raises what a full disk raises: its callers know how to say that where nothing can be written.
    """
    if isinstance(error, OSError) and is_disk_full(error):
        raise error
    logger.exception("an attempt cannot be carried out")
    failure = TrainingError(
        ErrorKind.CHILD_DIED,
        f"Worker {settings.worker_name} cannot carry it out: {type(error).__name__}: {error}",
        hint="The worker's own log tells where that comes from.",
    )
    return judge({"error": failure.to_json()}, stop=stop.current, exit_code=None)


def _conclude(ending: Ending, sink: EventSink) -> Ending:
    """Tell how an attempt ended that had no child."""
    if ending.outcome is not None:
        sink(EventType.FINISHED, ending.to_json())
    return ending
