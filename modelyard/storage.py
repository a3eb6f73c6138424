"""A store of files behind a URL, by way of fsspec: a folder, an S3 bucket and the like.

What is read back under a key is what was put there, whole, or nothing: an object store shows an
upload once it is complete, and elsewhere a file is renamed into its place.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec

from modelyard.errors import ModelyardError

PART_BYTES = 8 * 1024 * 1024  # what is read at once of an object that is streamed
# Between tries, for who can wait for a store that does not answer.
RETRY_PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
# Protocols whose uploads appear under their name only once they are complete.
_SHOWS_WHOLE = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "memory"}
_TEMPORARY = ".storing-"
_S3 = {"s3", "s3a"}


class StorageError(ModelyardError):
    """What could not be stored or read, of which object, and what to do."""


class ObjectMissing(StorageError):
    """Nothing is stored under a key."""


class ObjectDamaged(StorageError):
    """An object is not what its checksum says."""


class FileChanged(StorageError):
    """A file was written to while it was being stored: it is to be stored again."""


class _NotAKey(ValueError):
    """A programmer's mistake: no store is to blame for it."""


@dataclass(frozen=True)
class Stored:
    """A file that was put into the store."""

    key: str
    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class Entry:
    """An object as a listing shows it."""

    key: str
    size: int  # bytes
    modified: datetime | None  # None where the store does not tell


class Store:
    """Objects by key below one URL."""

    def __init__(
        self,
        filesystem: fsspec.AbstractFileSystem,
        root: str,
        *,
        name: str,
        put_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._fs = filesystem
        self._root = root.rstrip("/")
        self.name = name  # for messages: the URL, which holds no secret
        protocols = filesystem.protocol
        known = {protocols} if isinstance(protocols, str) else set(protocols)
        self._renames = not known & _SHOWS_WHOLE
        self._put_options: Mapping[str, Any] = put_options or {}

    def put(self, local: Path, key: str, *, sha256: str | None = None) -> Stored:
        """Store a file under a key; ``sha256`` is not computed again where it is known.

        Raises StorageError, also where the file changed meanwhile.
        """
        with self._telling("stored", key):
            before = local.stat()
            sha256 = sha256 or file_sha256(local)
            with self._appearing(self._path(key)) as path:
                self._fs.put_file(str(local), path, **self._put_options)
                size = int(self._fs.info(path)["size"])
                after = local.stat()
                if size != before.st_size or _version(before) != _version(after):
                    raise FileChanged(
                        f"{local} changed while it was being stored in {self.name}; store it again"
                    )
        return Stored(key=key, size=size, sha256=sha256)

    def get(self, key: str, local: Path, *, sha256: str | None = None) -> None:
        """Fetch an object into a file, which is replaced once the whole is there and checked.

        Raises StorageError where the object is missing or is not what its checksum says.
        """
        local.parent.mkdir(parents=True, exist_ok=True)
        temporary = local.with_name(f".{local.name}.{uuid.uuid4().hex[:8]}.writing")
        try:
            with self._telling("read", key):
                self._fs.get_file(self._path(key), str(temporary))
            if sha256 is not None:
                found = file_sha256(temporary)
                if found != sha256:
                    raise ObjectDamaged(
                        f"{self._url(key)} is damaged: its SHA-256 is {found}, not {sha256}"
                    )
            temporary.replace(local)
        finally:
            temporary.unlink(missing_ok=True)

    def copy(self, key: str, to: str) -> None:
        """Store an object under a second key, without fetching it where the store can do that."""
        with self._telling("copied", key), self._appearing(self._path(to)) as path:
            self._fs.cp_file(self._path(key), path)

    def read(self, key: str) -> bytes:
        """Return a small object. Raises StorageError where it is missing."""
        with self._telling("read", key):
            content: bytes = self._fs.cat_file(self._path(key))
        return content

    def write(self, key: str, content: bytes) -> None:
        """Create or replace a small object."""
        with self._telling("stored", key), self._appearing(self._path(key)) as path:
            self._fs.pipe_file(path, content)

    def iter_range(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """Return an object's bytes from ``start`` up to, not with, ``end``, part by part."""
        for first in range(start, end, PART_BYTES):
            with self._telling("read", key):
                yield self._fs.cat_file(
                    self._path(key), start=first, end=min(first + PART_BYTES, end)
                )

    def exists(self, key: str) -> bool:
        with self._telling("looked for", key):
            return bool(self._fs.exists(self._path(key)))

    def list(self, prefix: str) -> Iterator[Entry]:
        """Return what lies below a prefix that ends at a '/', in the order of keys."""
        with self._telling("listed", prefix):
            try:
                found = self._fs.find(self._path(prefix), detail=True)
            except FileNotFoundError:
                return
        for path in sorted(found):
            told = found[path]
            if _TEMPORARY in path:
                continue
            key = path[len(self._root) :].lstrip("/")
            yield Entry(key=key, size=int(told["size"]), modified=_modified(told))

    def delete(self, prefix: str) -> None:
        """Remove an object, or all that lies below a prefix; nothing there is no error."""
        with self._telling("deleted", prefix):
            path = self._path(prefix)
            if self._fs.exists(path):
                self._fs.rm(path, recursive=True)

    def _path(self, key: str) -> str:
        parts = key.rstrip("/").split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise _NotAKey(f"not a key of a store: {key!r}")
        return f"{self._root}/{'/'.join(parts)}"

    def _url(self, key: str) -> str:
        return f"{self.name.rstrip('/')}/{key}"

    @contextmanager
    def _appearing(self, path: str) -> Iterator[str]:
        """Yield where to write so that it appears under its path once it is whole."""
        if not self._renames:
            yield path
            return
        folder, _, name = path.rpartition("/")
        temporary = f"{folder}/{_TEMPORARY}{uuid.uuid4().hex[:8]}-{name}"
        self._fs.makedirs(folder, exist_ok=True)
        try:
            yield temporary
            self._fs.mv(temporary, path)
        except BaseException:
            if self._fs.exists(temporary):
                self._fs.rm(temporary)
            raise

    @contextmanager
    def _telling(self, done: str, key: str) -> Iterator[None]:
        """Turn what the store's library raises into one kind of error."""
        try:
            yield
        except (StorageError, _NotAKey):
            raise
        except FileNotFoundError:
            raise ObjectMissing(f"{self._url(key)} is not there") from None
        except Exception as error:
            # Libraries raise what they like: OSError, their own, a timeout's, and botocore a
            # ValueError for an AWS_ENDPOINT_URL that is no address.
            raise StorageError(
                f"{self._url(key)} could not be {done}: {_first_line(error)}; see that the store "
                "of MODELYARD_STORE is reachable and that this host's credentials are right"
            ) from error


def open_store(url: str) -> Store:
    """Return the store at a URL like 's3://bucket/prefix' or 'file:///mnt/store'.

    Raises StorageError where the URL or its protocol cannot be used on this host.
    """
    protocol, separator, rest = url.partition("://")
    if not separator or not rest:
        raise StorageError(f"'{url}' is not the URL of a store; one looks like s3://bucket/prefix")
    try:
        return _opened(protocol, url)
    except ImportError as error:
        remedy = "requirements/s3.txt" if protocol in _S3 else f"fsspec's package for {protocol}"
        raise StorageError(
            f"the store {url} needs a package that is not installed here ({error}); "
            f"install {remedy}"
        ) from None
    except (ValueError, OSError) as error:  # some libraries connect at once
        raise StorageError(f"the store {url} cannot be used: {error}") from error


def _opened(protocol: str, url: str) -> Store:
    # A listing is never remembered, for others write, too.
    how: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if protocol not in _S3:
        if protocol == "file":
            how["auto_mkdir"] = True
        filesystem, root = fsspec.core.url_to_fs(url, **how)
        return Store(filesystem, os.fspath(root), name=url)
    from modelyard import storage_s3  # it needs packages that other stores do not

    filesystem, root = fsspec.core.url_to_fs(url, **how, **storage_s3.options())
    storage_s3.bound(filesystem)
    return Store(filesystem, os.fspath(root), name=url, put_options=storage_s3.PUT)


def file_sha256(path: Path) -> str:
    """Return the checksum of a file, in hexadecimal digits. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _version(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _modified(told: dict[str, Any]) -> datetime | None:
    value = told.get("LastModified") or told.get("mtime") or told.get("created")
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value).astimezone()
    return value if isinstance(value, datetime) else None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
