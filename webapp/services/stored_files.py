"""Files of jobs that workers elsewhere have put into the store, for the web host to show.

Small ones are kept in the job's folder among this host's outputs, where they are found the next
time without asking; large ones pass through. It is done by processes of their own: see
modelyard.store_child for why.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from modelyard.storage import ObjectMissing, StorageError
from modelyard.store_process import ObjectStream, StoreProcess, ask
from modelyard.stored_copies import read_state
from webapp.config import settings
from webapp.models import Artifact
from webapp.services.errors import NotFound, Unavailable
from webapp.services.outputs import output_dir

logger = logging.getLogger(__name__)

SHOW_SECONDS = 30.0  # a person waits for the page
EVENTS_SECONDS = 20.0  # the recorder has other jobs, too
_EVENTS = ".stored-events"


@dataclass(frozen=True)
class Kept:
    """A file that lies on this host now."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Passing:
    """A file that comes from the store while it is read; close the stream after use."""

    stream: ObjectStream
    size: int
    sha256: str


def used() -> bool:
    """Tell whether jobs' files travel through the store."""
    return bool(settings().store) and settings().execution_mode == "celery"


def show(artifact: Artifact, *, whole: bool) -> Kept | Passing | None:
    """Return an artifact's file; None where this host's own folder has what is newest of it.

    ``whole``: it is to lie on this host, however large it is. Raises NotFound, Unavailable.
    """
    folder, name = output_dir(artifact.job_id), artifact.name
    state = read_state(folder)
    if state is not None and (folder / name).is_file():
        if state.whole and state.attempt >= artifact.attempt:
            return None
        if not state.whole and state.files.get(name) == artifact.sha256:
            return Kept(folder / name, artifact.sha256)
    process = StoreProcess(
        settings().store or "", "show",
        job=artifact.job_id, folder=str(folder), name=name, whole=whole,
    )  # fmt: skip
    answer = None
    try:
        for told in process.lines(timeout_seconds=SHOW_SECONDS):
            answer = told.get("answer")
    except ObjectMissing as error:
        logger.info("%s", error)
        raise NotFound(f"The file of artifact {artifact.id} is not there any more") from error
    except StorageError as error:
        logger.warning("job %s: %s", artifact.job_id, error)
        raise Unavailable(
            "The store does not give this file now; the log of the web process tells why"
        ) from error
    finally:
        if answer is None or "file" not in answer:
            process.close()
    if answer is None:
        raise Unavailable("The process that reads the store ended without a word")
    if "file" in answer:
        file = answer["file"]
        return Passing(ObjectStream(process), int(file["size"]), str(file["sha256"]))
    return Kept(folder / name, answer["kept"]) if "kept" in answer else None


def fetch_events(job_id: int) -> None:
    """Have what the store has of a job's events on this host; see :func:`events_files`."""
    folder = output_dir(job_id) / _EVENTS
    try:
        ask(
            settings().store or "", "events", job=job_id, attempts=[], into=str(folder),
            timeout_seconds=EVENTS_SECONDS,
        )  # fmt: skip
    except StorageError as error:
        # What they tell is told again by the next attempt, which begins with reading them.
        logger.warning("job %s: its events in the store are not to be had: %s", job_id, error)


def events_files(job_id: int) -> list[Path]:
    """Return the files of events that were fetched of a job and not forgotten."""
    return sorted((output_dir(job_id) / _EVENTS).glob("*.jsonl"))


def forget_events(job_id: int) -> None:
    shutil.rmtree(output_dir(job_id) / _EVENTS, ignore_errors=True)
