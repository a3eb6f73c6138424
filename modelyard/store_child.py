"""`python -m modelyard.store_child`: does one thing with a job's outputs in the store.

A process of its own for two reasons. fsspec talks to object stores by asyncio, from a thread. A web
process of gevent has none: its threads are greenlets of one, and fsspec refuses ("Calling sync()
from within a running loop"). And a worker that is told to stop ends a fetch by ending its process.

A request is a line of JSON on standard input, the answer lines of JSON on standard output; those of
an object that is streamed are followed by its bytes.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelyard import stored_copies
from modelyard.process import die_with_parent
from modelyard.storage import ObjectDamaged, ObjectMissing, StorageError, file_sha256, open_store
from modelyard.stored_outputs import Index, StoredFile, StoredOutputs, job_prefix, object_key

SMALL_BYTES = 4 * 1024 * 1024  # smaller files are kept on the web host, larger ones streamed
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
    stored_copies.fetch(outputs.store, index, folder, wanted=wanted)
    return {}


def show(outputs: StoredOutputs, request: Request) -> Request:
    """Have one file, with all small ones of its job: {folder, name} → {own} or {file, cached}.

    One that is not cached follows in bytes, from the place that the next line of input says.
    """
    folder = Path(request["folder"])
    index = outputs.everything()

    def wanted(file: StoredFile) -> bool:
        return file.size <= SMALL_BYTES

    if stored_copies.fetch(outputs.store, index, folder, wanted=wanted):
        return {"own": True}
    file = index.files.get(request["name"])
    if file is None:
        raise ObjectMissing(f"the store has no file '{request['name']}' of this job")
    if wanted(file):
        return {"file": _told(file), "cached": True}
    _say({"answer": {"file": _told(file), "cached": False}})
    start = sys.stdin.buffer.readline()
    if start:
        for part in outputs.store.iter_range(file.key, int(start), file.size):
            sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
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


def delete(outputs: StoredOutputs, request: Request) -> Request:
    """Remove all that jobs have in the store: {jobs} → {}."""
    for job_id in request["jobs"]:
        outputs.store.delete(job_prefix(job_id))
    return {}


def index(outputs: StoredOutputs, request: Request) -> Request:
    """Tell what jobs have in the store: {jobs or none} → {files: by job}."""
    found = {}
    for job_id in request["jobs"] or _jobs(outputs):
        whole: Index = StoredOutputs(outputs.store, job_id).everything()
        found[job_id] = [
            {**_told(file), "modified": file.modified} for file in whole.files.values()
        ]
    return {"files": found}


_DO: dict[str, Callable[[StoredOutputs, Request], Request]] = {
    "bring": bring,
    "best": best,
    "show": show,
    "events": events,
    "export": export,
    "delete": delete,
    "index": index,
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


def _jobs(outputs: StoredOutputs) -> list[int]:
    ids = {entry.key.split("/")[1] for entry in outputs.store.list("jobs/")}
    return sorted(int(id) for id in ids if id.isdecimal())


def _told(file: StoredFile) -> Request:
    return {"name": file.name, "size": file.size, "sha256": file.sha256}


def _say(told: Request) -> None:
    sys.stdout.buffer.write(json.dumps(told).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
