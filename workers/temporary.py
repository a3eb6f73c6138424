"""Temporary folders that no killed process leaves behind: a worker's own, and one an attempt.

Frameworks, multiprocessing and adapters remove their temporary files when they end in order, which
a killed process does not. So an attempt's processes have a folder that goes when they are gone. It
lies in the worker's, which goes with the worker; one that was killed is cleared up after by the
next that starts on its host, which sees by a lock whose worker lives.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.contract import ErrorKind, TrainingError, TrainingJob
from adapters.files import is_disk_full
from modelyard import locks
from modelyard.settings import SettingsError

logger = logging.getLogger(__name__)

# Data loaders hand tensors over through sockets in their temporary folder, and the path of a
# socket ends at 108 bytes (104 on macOS), of which what is made here takes 53.
LONGEST_BYTES = 50

_PREFIX = "modelyard-"
_LOCK = "worker.lock"


def claim() -> None:
    """Give this process, and all that it starts from now on, a temporary folder of their own.

    Raises SettingsError where the host's lies too deep.
    """
    base = Path(tempfile.gettempdir())
    if len(os.fsencode(base)) > LONGEST_BYTES:
        raise SettingsError(
            f"TMPDIR is {base}: sockets below it would have names that are too long; choose a "
            f"folder whose path has at most {LONGEST_BYTES} bytes"
        )
    _remove_left(base)
    folder = _new_locked(base)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    use(folder)


def use(folder: Path) -> None:
    """Have this process, and all that it starts from now on, make temporary files in a folder."""
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    # multiprocessing keeps a folder for its sockets by itself, and hands it on to children.
    multiprocessing.current_process()._config["tempdir"] = str(folder)  # type: ignore[attr-defined]


@contextmanager
def attempt_folder(job: TrainingJob) -> Iterator[Path]:
    """Give an attempt's child a folder to :func:`use`; leave it when none of its processes is left.

    Raises TrainingError(DISK_FULL) where there is no room for it.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix=f"{job.id}-", ignore_cleanup_errors=True)
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise TrainingError(
            ErrorKind.DISK_FULL,
            f"Nothing more can be written to {tempfile.gettempdir()}: {error.strerror}",
            hint="Make space there, or start the worker with TMPDIR on another disk, then resume "
            "the job.",
        ) from error
    with folder as path:
        yield Path(path)


def _new_locked(base: Path) -> Path:
    """Make a folder whose lock this process holds to its end."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        if locks.take(folder / _LOCK, new=True) is not None:
            return folder
        # Another that has just started took it for one that is left.


def _remove_left(base: Path) -> None:
    """Remove the folders of processes that were killed."""
    for path in base.glob(f"{_PREFIX}*/{_LOCK}"):
        try:
            lock = locks.take(path, new=False)
        except OSError:
            continue  # another person's
        if lock is not None:
            logger.info("removing %s, which a killed worker has left", path.parent)
            shutil.rmtree(path.parent, ignore_errors=True)
            os.close(lock)
