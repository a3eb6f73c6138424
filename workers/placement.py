"""What this host can know of a job before a child is started for it."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from adapters.contract import DeviceChoice, ErrorKind, TrainingError, TrainingJob
from adapters.data.description import DatasetError
from adapters.data.roots import resolve_inside

MIN_FREE_BYTES = 512 * 1024 * 1024


def check_placed(job: TrainingJob, *, data_roots: tuple[Path, ...]) -> None:
    """Raise TrainingError where this host cannot train the job."""
    if job.data_path is None:
        _check_data(job, data_roots)
    if job.device == DeviceChoice.GPU and job.compute_device == "cpu":
        raise TrainingError(
            ErrorKind.DEVICE,
            f"The job asks for a GPU and worker host {socket.gethostname()} has none",
            hint="Start a worker on a GPU host, or clone the job with device 'auto'.",
        )
    _check_initial(job)
    assert job.output_dir is not None
    free = shutil.disk_usage(job.output_dir).free
    if free < MIN_FREE_BYTES:
        raise TrainingError(
            ErrorKind.DISK_FULL,
            f"Only {free // 2**20} MiB are free below {job.output_dir}",
            hint="Free some space on the outputs folder, then resume the job.",
        )


def _check_initial(job: TrainingJob) -> None:
    """Look for the weights that a job begins with; one that goes on has its own."""
    if job.initial_dir is None or job.resume:
        return
    if not any((job.initial_dir / "checkpoints").glob("best*")):
        raise TrainingError(
            ErrorKind.WEIGHTS_MISSING,
            f"There is no best model below {job.initial_dir} on host {socket.gethostname()}",
            hint="The job it begins with was deleted, or MODELYARD_OUTPUTS is not shared; "
            "clone this job with other weights.",
        )


def _check_data(job: TrainingJob, data_roots: tuple[Path, ...]) -> None:
    """Look for a data set that lies on this host or on a disk that it shares."""
    try:
        resolve_inside(job.dataset_path, data_roots)
    except DatasetError as error:
        raise TrainingError(
            ErrorKind.DATASET_INVALID,
            f"The data set is not to be had on this worker: {error}",
            hint="Mount the data at the same path here and set MODELYARD_DATA_ROOTS to match, or "
            "set MODELYARD_STORE and let workers fetch it.",
        ) from error
    if not job.dataset_path.exists():
        raise TrainingError(
            ErrorKind.DATASET_INVALID,
            f"There is no {job.dataset_path} on host {socket.gethostname()}",
            hint="Mount the data at the same path on every worker host, or set MODELYARD_STORE and "
            "let workers fetch it.",
        )
