"""The store, where outputs and data sets lie for hosts that share no disk."""

from __future__ import annotations

import os
import re
import threading
import uuid
from collections.abc import Callable, Iterator

from modelyard.checks import Finding, ok, problem
from modelyard.settings import Settings
from modelyard.storage import StorageError, Store, open_store

ANSWER_SECONDS = 20.0  # for all of it; a person waits
_CONTENT = b"written by modelyard doctor"
_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")
_LONG_SECRET = 8  # characters; no shorter one guards anything
_KEY_REMEDY = (
    "give this host's processes a key that may read, write, list and delete there "
    "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what the store's library reads)"
)


def store(settings: Settings) -> Iterator[Finding]:
    """Write an object, read it, list it and delete it, as the web host and workers do."""
    if not settings.store:
        return
    if settings.execution_mode != "celery":
        yield ok("store", f"not used in the mode '{settings.execution_mode}'")
        return
    yield _in_time(settings.store)


def _in_time(url: str) -> Finding:
    """Return what is found; a server that takes connections and says nothing is found, too."""
    found: list[Finding] = []
    thread = threading.Thread(target=lambda: found.append(_tried(url)), daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    if found:
        return found[0]
    remedy = "see that it runs, that AWS_ENDPOINT_URL is its address, and what lies between"
    return problem("store", f"{url} does not answer within {ANSWER_SECONDS:g} s", remedy=remedy)


def _tried(url: str) -> Finding:
    try:
        there = open_store(url)
    except StorageError as error:
        return problem("store", _without_secrets(str(error)), remedy="see docs/operations.md")
    for doing, do in _steps(there):
        try:
            do()
        except StorageError as error:
            return _explained(url, doing, error)
    return ok("store", f"{url} can be written, read, listed and deleted")


def _steps(there: Store) -> Iterator[tuple[str, Callable[[], None]]]:
    key = f"doctor/{uuid.uuid4().hex}"

    def read() -> None:
        if there.read(key) != _CONTENT:
            raise StorageError("what was written is not what is read back")

    def list_() -> None:
        if [entry.key for entry in there.list("doctor/") if entry.key == key] != [key]:
            raise StorageError("what was written is not in the list")

    def delete() -> None:
        there.delete(key)
        if there.exists(key):
            raise StorageError("what was deleted is still there")

    yield "written", lambda: there.write(key, _CONTENT)
    yield "read", read
    yield "listed", list_
    yield "deleted", delete


def _explained(url: str, doing: str, error: StorageError) -> Finding:
    """Say what is wrong in words that help; what a library says may hold more than it should."""
    causes = list(_causes(error))
    names = {type(cause).__name__ for cause in causes}
    if "NoCredentialsError" in names:
        return problem("store", f"{url}: this host has no credentials for it", remedy=_KEY_REMEDY)
    if any(isinstance(cause, PermissionError) for cause in causes):
        return problem("store", f"{url} cannot be {doing}: not allowed", remedy=_KEY_REMEDY)
    if doing == "written" and any(isinstance(cause, FileNotFoundError) for cause in causes):
        remedy = "make the bucket, or correct MODELYARD_STORE"
        return problem("store", f"{url}: there is no such bucket or folder", remedy=remedy)
    cause = causes[min(1, len(causes) - 1)]  # what the library said, in its own words
    said = (str(cause) or type(cause).__name__).splitlines()[0]
    remedy = "see that it runs and that AWS_ENDPOINT_URL (for S3) is its address"
    return problem("store", f"{url} cannot be {doing}: {_without_secrets(said)}", remedy=remedy)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from, the first cause last."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _without_secrets(text: str) -> str:
    for name in _SECRETS:
        if value := os.environ.get(name):
            # A short one, as of a server for trials, may be a part of any word by chance.
            pattern = re.escape(value)
            pattern = pattern if len(value) >= _LONG_SECRET else rf"(?<!\w){pattern}(?!\w)"
            text = re.sub(pattern, "…", text)
    return re.sub(r"//[^/@\s]+@", "//…@", text)
