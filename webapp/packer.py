"""`python -m webapp.packer`: puts the data sets that are wanted into the store, and ends.

Started by the recorder where there is something to do (webapp.services.packing), for it takes
minutes: neither a web process nor the recorder itself may. The files are read by a child without
any secret (adapters.data.pack_apart); this process has the store and the database. Killed at any
moment, it is followed by another, which finds the shards that are stored already.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from flask import Flask
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from adapters.contract import DatasetFormat, TaskType
from adapters.data.child import ChildBroke
from adapters.data.content import SplitRule
from adapters.data.description import DatasetError
from adapters.data.manifest import Manifest, dataset_prefix, manifest_key
from adapters.data.pack_apart import pack_apart
from adapters.data.roots import printable, resolve_inside
from modelyard.locks import take
from modelyard.process import die_with_parent
from modelyard.settings import SettingsError, load_settings
from modelyard.storage import StorageError, Store, open_store
from webapp import create_app
from webapp.config import settings
from webapp.extensions import db
from webapp.models import CopyStatus, DatasetCopy
from webapp.services import dataset_claims
from webapp.services.errors import Unavailable
from webapp.services.executors import get_executor

logger = logging.getLogger(__name__)

_TELL_SECONDS = 1.0
_POLL_SECONDS = 0.5
_IDLE_SECONDS = 10.0  # it takes seconds to start: who registers one data set may register another
_MOST_CRASHES = 3  # of the child that reads a data set


class ClaimLost(Exception):
    """Another packer has this data set now."""


class Packer:
    """Packs one wanted data set after the other, until there is none."""

    def __init__(self, app: Flask, store: Store) -> None:
        self._app = app
        self._store = store
        self._name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"

    def run(self, *, idle_seconds: float = 0.0) -> None:
        """Pack until nothing has been wanted for some time."""
        ends_at = time.monotonic() + idle_seconds
        while True:
            copy = dataset_claims.claim(self._name)
            if copy is not None:
                self._deal_with(copy)
                ends_at = time.monotonic() + idle_seconds
            elif time.monotonic() < ends_at:
                time.sleep(_POLL_SECONDS)
            else:
                return

    def _deal_with(self, copy: DatasetCopy) -> None:
        if copy.status == CopyStatus.REMOVING:
            self._remove(copy.fingerprint)
        else:
            self._make(copy)
        db.session.remove()

    def _make(self, copy: DatasetCopy) -> None:
        fingerprint, tries = copy.fingerprint, copy.tries + 1
        try:
            with _telling(self._app, fingerprint, self._name) as tell:
                manifest = self._pack(copy, tell)
        except ClaimLost:
            logger.warning("data set %s is packed by another now", fingerprint[:12])
        except (StorageError, OSError) as error:
            self._postpone(fingerprint, str(error), tries)
        except ChildBroke as error:
            if tries < _MOST_CRASHES:
                self._postpone(fingerprint, str(error), tries)
            else:
                self._give_up(fingerprint, str(error))
        except DatasetError as error:
            self._give_up(fingerprint, str(error))
        except BaseException:
            db.session.rollback()
            dataset_claims.postpone(fingerprint, self._name, error=None, tries=tries - 1)
            raise
        else:
            size = manifest.stored_bytes
            logger.info("data set %s is stored: %s bytes", fingerprint[:12], size)
            for job in dataset_claims.stored(fingerprint, self._name, size=size):
                try:
                    get_executor().start(job)
                except Unavailable:
                    logger.warning("job %s waits for the broker's return", job.id)

    def _pack(self, copy: DatasetCopy, tell: Callable[[int, int], None]) -> Manifest:
        """Return the manifest of a copy that is whole, from wherever its content is found."""
        fingerprint = copy.fingerprint
        if copy.damaged:
            self._store.delete(dataset_prefix(fingerprint))
        elif (found := self._found(fingerprint)) is not None:
            return found
        problem = DatasetError("its folder is not known")
        how = {
            "format": DatasetFormat(copy.format),
            "task_type": TaskType(copy.task_type),
            "split_rule": SplitRule(seed=copy.split_seed, val_share=copy.val_share),
        }
        paths = dataset_claims.paths_of(copy)
        db.session.rollback()  # hold no connection meanwhile
        for path in paths:
            try:
                real = resolve_inside(path, settings().dataset_roots)
                return self._pack_folder(real, fingerprint, how, tell)
            except ChildBroke:
                raise
            except DatasetError as error:
                problem = DatasetError(f"'{printable(path)}': {error}")
        raise problem

    def _pack_folder(
        self, path: Path, fingerprint: str, how: dict[str, object], tell: Callable[[int, int], None]
    ) -> Manifest:
        prefix = dataset_prefix(fingerprint)
        stored = {entry.key: entry.size for entry in self._store.list(f"{prefix}/")}

        def send(shard: Path) -> None:
            key = f"{prefix}/{shard.name}"
            if stored.get(key) != shard.stat().st_size:  # its name is the sum of its content
                self._store.put(shard, key)
            shard.unlink()

        with _working_folder(settings().home / "packing") as folder:
            manifest = pack_apart(
                path, folder, fingerprint=fingerprint, send=send, progress=tell,
                **how,  # type: ignore[arg-type]
            )  # fmt: skip
        tell(1, 1)  # the last moment to hear that another has the claim
        self._store.write(manifest_key(fingerprint), manifest.to_json())
        return manifest

    def _found(self, fingerprint: str) -> Manifest | None:
        """Return the manifest of a copy that is in the store already."""
        key = manifest_key(fingerprint)
        if not self._store.exists(key):
            return None
        try:
            return Manifest.from_json(self._store.read(key))
        except DatasetError as error:
            logger.warning("data set %s is packed again: %s", fingerprint[:12], error)
            return None

    def _postpone(self, fingerprint: str, error: str, tries: int) -> None:
        logger.warning("data set %s could not be stored: %s", fingerprint[:12], error)
        db.session.rollback()
        dataset_claims.postpone(fingerprint, self._name, error=error, tries=tries)

    def _give_up(self, fingerprint: str, error: str) -> None:
        logger.warning("data set %s cannot be stored: %s", fingerprint[:12], error)
        db.session.rollback()
        dataset_claims.give_up(fingerprint, self._name, error=error)

    def _remove(self, fingerprint: str) -> None:
        try:
            with _telling(self._app, fingerprint, self._name):
                # First the manifest: what is removed in part is no copy.
                self._store.delete(manifest_key(fingerprint))
                self._store.delete(dataset_prefix(fingerprint))
        except (StorageError, OSError, ClaimLost) as error:
            # Its claim lapses, and it is tried again.
            logger.warning("data set %s could not be removed: %s", fingerprint[:12], error)
        else:
            dataset_claims.removed(fingerprint, self._name)


@contextmanager
def _telling(app: Flask, fingerprint: str, packer: str) -> Iterator[Callable[[int, int], None]]:
    """Renew a claim from a thread of its own, with what is told meanwhile.

    What is told raises ClaimLost where the claim is another's.
    """
    latest: dict[str, int] = {}
    lost, ended = threading.Event(), threading.Event()

    def renew() -> None:
        with app.app_context():
            while not ended.wait(_TELL_SECONDS):
                try:
                    with Session(db.engine) as session, session.begin():
                        if not dataset_claims.tell(session, fingerprint, packer, **latest):
                            lost.set()
                            return
                except OperationalError as error:
                    logger.warning("how far packing is could not be written: %s", error)

    def tell(done: int, total: int) -> None:
        latest.update(done=done, total=total)
        if lost.is_set():
            raise ClaimLost

    thread = threading.Thread(target=renew, name="packing", daemon=True)
    thread.start()
    try:
        yield tell
    finally:
        ended.set()
        thread.join()


@contextmanager
def _working_folder(parent: Path) -> Iterator[Path]:
    """Make a folder for shards on their way; what killed packers left is removed first."""
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob("*.lock"):
        if (lock := take(left, new=False)) is not None:
            _clear(left, lock)
    mark = parent / f"{uuid.uuid4().hex}.lock"
    lock = take(mark, new=True)
    assert lock is not None  # nobody else knows of it
    folder = mark.with_suffix("")
    try:
        folder.mkdir()
        yield folder
    finally:
        _clear(mark, lock)


def _clear(mark: Path, lock: int) -> None:
    shutil.rmtree(mark.with_suffix(""), ignore_errors=True)
    mark.unlink(missing_ok=True)
    os.close(lock)


def _stop(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def main() -> int:
    die_with_parent(os.getppid())
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the recorder passes it on
    try:
        found = load_settings()
        app = create_app(found)
        store = open_store(found.store or "")
    except (SettingsError, StorageError) as error:
        sys.stderr.write(f"modelyard packer: {error}\n")
        return 2
    logging.basicConfig(
        level=found.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    with app.app_context():
        Packer(app, store).run(idle_seconds=_IDLE_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
