"""The folder of uploaded data sets: whatever in it is of no data set is removed.

``<token>/`` holds a data set, ``<token>.zip`` an archive that arrives or is unpacked, and
``<token>.lock`` says that the two are under way. Whoever works on them holds a lock on that file;
the kernel lets go of it however the process ends, and the next start or upload settles what is
left: it stays where a data set lies in it, and otherwise goes. So a crash at any moment leaves
nothing that nobody knows of.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from flask import Flask
from sqlalchemy import or_, select
from sqlalchemy.exc import OperationalError

from modelyard.locks import take
from webapp.config import settings
from webapp.extensions import db
from webapp.models import Dataset
from webapp.services.cpu import run_blocking
from webapp.services.errors import Conflict

logger = logging.getLogger(__name__)

KEEP_FREE_BYTES = 1024**3  # of the disk: the database and the jobs need room, too
_TRIES = 40
_TRY_SECONDS = 0.05
_TOKEN = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Place:
    """Where one upload lies while it is under way."""

    token: str
    lock: int  # the descriptor that holds the lock

    @property
    def archive(self) -> Path:
        return uploads_folder() / f"{self.token}.zip"

    @property
    def content(self) -> Path:
        return uploads_folder() / self.token


def uploads_folder() -> Path:
    """Return the real path of the folder of all uploads."""
    return Path(os.path.realpath(settings().uploads))


@contextmanager
def new_place() -> Iterator[Place]:
    """Give a place to an upload; it stays where a data set is registered in it at the end."""
    uploads_folder().mkdir(parents=True, exist_ok=True)
    sweep()
    token = uuid.uuid4().hex
    with _marked(token) as lock:
        yield Place(token, lock)


@contextmanager
def leaving(datasets: Iterable[Dataset]) -> Iterator[None]:
    """Mark the uploads among some data sets, and remove those that are gone at the end."""
    tokens = [_token_of(Path(dataset.path)) for dataset in datasets if dataset.uploaded]
    with ExitStack() as stack:
        for token in tokens:
            if token is not None and (uploads_folder() / token).is_dir():
                stack.enter_context(_marked(token))
        yield


def sweep() -> None:
    """Settle what processes that ended in the middle have left."""
    folder = uploads_folder()
    if not folder.is_dir():
        return
    for mark in folder.glob("*.lock"):
        if _TOKEN.fullmatch(mark.stem) and (lock := take(mark, new=False)) is not None:
            try:
                _settle(mark.stem)
            finally:
                os.close(lock)


def broken_off() -> list[str]:
    """Return the uploads that are marked as under way, and nobody is at any more."""
    found = []
    for mark in sorted(uploads_folder().glob("*.lock")):
        if _TOKEN.fullmatch(mark.stem) and (lock := take(mark, new=False)) is not None:
            os.close(lock)
            found.append(mark.stem)
    return found


def of_no_dataset() -> list[str]:
    """Return the folders here that are not under way and that no data set lies in."""
    folder = uploads_folder()
    found = [path.name for path in folder.glob("*") if _TOKEN.fullmatch(path.name)]
    unmarked = [token for token in sorted(found) if not (folder / f"{token}.lock").exists()]
    return [token for token in unmarked if not _is_registered(folder / token)]


def remove_of_no_dataset(token: str) -> None:
    """Remove such a folder. Raises Conflict while somebody is at it."""
    with _marked(token):
        pass


def sweep_in_background(app: Flask) -> threading.Thread:
    """Settle what is left while the server starts serving; a database that is away can wait."""

    def work() -> None:
        with app.app_context():
            try:
                sweep()
            except OperationalError as error:
                logger.warning("uploads are swept with the next one", exc_info=error)

    thread = threading.Thread(target=work, name="sweep-uploads", daemon=True)
    thread.start()
    return thread


def holds(path: Path) -> bool:
    """Tell whether a real path is or lies below the folder of uploads, or holds it."""
    folder = uploads_folder()
    return path.is_relative_to(folder) or folder.is_relative_to(path)


@contextmanager
def _marked(token: str) -> Iterator[int]:
    mark = uploads_folder() / f"{token}.lock"
    lock = take(mark, new=True)
    for _ in range(_TRIES):
        if lock is not None:
            break
        time.sleep(_TRY_SECONDS)  # a sweep looks at it; another deletion would take longer
        lock = take(mark, new=True)
    else:
        raise Conflict("The uploaded files are being removed already")
    try:
        yield lock
    finally:
        try:
            _settle(token)
        finally:
            os.close(lock)


def _settle(token: str) -> None:
    """Remove what is under way at a place, and its folder where no data set lies in it."""
    folder = uploads_folder()
    db.session.rollback()
    kept = _is_registered(folder / token)
    db.session.rollback()  # hold no connection while a large folder is removed
    run_blocking(_remove, folder, token, kept)


def _remove(folder: Path, token: str, kept: bool) -> None:
    (folder / f"{token}.zip").unlink(missing_ok=True)
    if not kept:
        shutil.rmtree(folder / token, ignore_errors=True)
        if (folder / token).exists():
            logger.warning("%s could not be removed whole; the next upload tries again", token)
            return
    (folder / f"{token}.lock").unlink(missing_ok=True)


def _is_registered(folder: Path) -> bool:
    inside = Dataset.path.startswith(f"{folder}/", autoescape=True)
    query = select(Dataset.id).where(or_(Dataset.path == str(folder), inside)).limit(1)
    return db.session.scalar(query) is not None


def _token_of(path: Path) -> str | None:
    """Return the token of the upload that a path lies in."""
    folder = uploads_folder()
    if not path.is_relative_to(folder) or path == folder:
        return None
    token = path.relative_to(folder).parts[0]
    return token if _TOKEN.fullmatch(token) else None
