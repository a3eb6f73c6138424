"""`python -m modelyard.store_child`: does one thing with jobs' files in the store.

A process of its own, because fsspec talks to object stores by asyncio, from a thread. A web process
of gevent has none: its threads are greenlets of one, and fsspec refuses ("Calling sync() from
within a running loop"). And because a wait for a silent store ends at once with its process.

A request is a line of JSON on standard input, the answer lines of JSON on standard output; that of
a large file is followed by its bytes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from modelyard import stored_copies
from modelyard.process import die_with_parent
from modelyard.storage import (
    ObjectDamaged,
    ObjectMissing,
    StorageError,
    Store,
    file_sha256,
    open_store,
)
from modelyard.stored_outputs import StoredFile, StoredOutputs, object_key

SMALL_BYTES = 8 * 1024 * 1024  # smaller files are kept on the web host, larger ones streamed
_TELL_SECONDS = 0.5

Request = dict[str, Any]


def bring(outputs: StoredOutputs, request: Request) -> Request:
    """Have what an attempt goes on from: {folder, attempt} → {attempt, from_store, notes}."""
    told = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told > _TELL_SECONDS:
            told = time.monotonic()
            _say({"done": done, "total": total})

    folder = Path(request["folder"])
    brought = stored_copies.bring(outputs, folder, attempt=request["attempt"], progress=progress)
    if brought.from_store:
        _events_if_any(outputs, brought.attempt, Path(request["events"]))
    return {"attempt": brought.attempt, "from_store": brought.from_store, "notes": brought.notes}


def best(outputs: StoredOutputs, request: Request) -> Request:
    """Have a job's best model: {folder} → {}."""
    folder = Path(request["folder"])

    def wanted(file: StoredFile) -> bool:
        return file.name.startswith("checkpoints/best")

    index = outputs.newest()
    stored_copies.fetch(outputs.store, index, folder, wanted=wanted, needed="checkpoints/best")
    return {}


def show(outputs: StoredOutputs, request: Request) -> Request:
    """Have a file: {folder, name, whole} → {own}, {kept} or {file}.

    Small ones are kept in the folder, all of the job in one go, for a page shows many; and one
    that is wanted ``whole``. Of others the bytes follow, from where the next line of input says.
    """
    folder, name = Path(request["folder"]), str(request["name"])
    index = outputs.everything()

    def wanted(file: StoredFile) -> bool:
        return file.size <= SMALL_BYTES or (file.name == name and request["whole"])

    if stored_copies.fetch(outputs.store, index, folder, wanted=wanted, needed=name):
        if (folder / name).is_file():
            return {"own": True}
        index = outputs.exports()  # made on another host from what was trained on this one
    file = index.files.get(name)
    if file is None:
        raise ObjectMissing(f"the store has no file '{name}' of this job")
    if (folder / name).is_file() and wanted(file):
        return {"kept": file.sha256}
    _say({"answer": {"file": {"size": file.size, "sha256": file.sha256}}})
    if start := sys.stdin.buffer.readline():
        try:
            for part in _checked(outputs.store, file, start=int(start)):
                sys.stdout.buffer.write(part)
            sys.stdout.buffer.flush()
        except StorageError as error:  # after the bytes there is no place for an answer
            raise SystemExit(str(error)) from error
    raise SystemExit(0)


def events(outputs: StoredOutputs, request: Request) -> Request:
    """Have attempts' events in files: {attempts or none, into} → {attempts}."""
    found = []
    into = Path(request["into"])
    for attempt in request["attempts"] or sorted(_attempts_with_events(outputs)):
        into.mkdir(parents=True, exist_ok=True)
        if _events_if_any(outputs, attempt, into / f"{attempt}.jsonl"):
            found.append(attempt)
    return {"attempts": found}


def export(outputs: StoredOutputs, request: Request) -> Request:
    """Store an export that was made here: {folder, name, format} → {}."""
    path = Path(request["folder"]) / request["name"]
    sha256 = file_sha256(path)
    prefix = outputs.export_prefix(request["format"])
    key = object_key(prefix, request["name"], sha256=sha256)
    stored = outputs.store.put(path, key, sha256=sha256)
    file = StoredFile(request["name"], stored.size, sha256, key, path.stat().st_mtime)
    outputs.write_export(request["format"], file)
    return {}


_DO: dict[str, Callable[[StoredOutputs, Request], Request]] = {
    "bring": bring,
    "best": best,
    "show": show,
    "events": events,
    "export": export,
}


def main() -> int:
    die_with_parent(os.getppid())
    request: Request = json.loads(sys.stdin.buffer.readline())
    try:
        outputs = StoredOutputs(open_store(request["store"]), int(request.get("job", 0)))
        _say({"answer": _DO[request["do"]](outputs, request)})
    except StorageError as error:
        kinds = {ObjectMissing: "missing", ObjectDamaged: "damaged"}
        _say({"error": kinds.get(type(error), "away"), "message": str(error)})
    except OSError as error:
        kind = "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "disk"
        _say({"error": kind, "message": f"{error.strerror}: {error.filename}"})
    return 0


def _checked(store: Store, file: StoredFile, *, start: int) -> Iterator[bytes]:
    """Yield a file's bytes; of one that is damaged the last are missing, so nobody takes it.

    Only of the whole is there a checksum: who asks for a range of it is not told.
    """
    digest = hashlib.sha256()
    before = b""
    for part in store.iter_range(file.key, start, file.size):
        digest.update(part)
        yield before
        before = part
    if start == 0 and digest.hexdigest() != file.sha256:
        raise ObjectDamaged(f"{store.name}/{file.key} is damaged: its SHA-256 is another")
    yield before


def _events_if_any(outputs: StoredOutputs, attempt: int, into: Path) -> bool:
    try:
        stored_copies.get_events(outputs.store, outputs.events_key(attempt), into)
    except (ObjectMissing, ObjectDamaged):
        return False
    return True


def _attempts_with_events(outputs: StoredOutputs) -> set[int]:
    below = outputs.attempt_prefix(0).removesuffix("0")
    parts = [entry.key.removeprefix(below).split("/") for entry in outputs.store.list(below)]
    return {int(p[0]) for p in parts if p[0].isdecimal() and p[-1] == "events.jsonl.gz"}


def _say(told: Request) -> None:
    sys.stdout.buffer.write(json.dumps(told).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
