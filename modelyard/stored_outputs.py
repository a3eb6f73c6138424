"""What jobs leave in the store, and how it is found: through indexes only.

    jobs/7/attempts/2/index.json            the files of attempt 2: name, size, checksum, object
    jobs/7/attempts/2/objects/3f2a…-last.pth  a file; one that no index names is not there
    jobs/7/attempts/2/events.jsonl.gz       its events, as far as its index's checkpoints need them
    jobs/7/exports/onnx/index.json          an export, made after training by whichever worker
    jobs/7/exports/onnx/objects/…

An index is written when all that it names is stored, so an upload that was torn is never seen. Each
attempt has its own: what a worker says late, whose attempt is over, changes nothing of a newer one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Self

from modelyard.storage import ObjectDamaged, ObjectMissing, Store

_SHA256 = re.compile(r"[0-9a-f]{64}")
_EXPORT = re.compile(r"[a-z0-9_]{1,32}")


@dataclass(frozen=True)
class StoredFile:
    """A file of a job as an index names it."""

    name: str  # below the job's folder
    size: int  # bytes
    sha256: str
    key: str  # of the object
    modified: float  # seconds since 1970, by the clock of who wrote it

    @property
    def is_checkpoint(self) -> bool:
        return self.name.startswith("checkpoints/")


@dataclass(frozen=True)
class Index:
    """The files of one attempt, or one export, that are stored whole."""

    files: Mapping[str, StoredFile] = field(default_factory=dict)  # by name
    attempt: int = 0  # 0: of an export

    def to_json(self) -> bytes:
        files = [dataclasses.asdict(self.files[name]) for name in sorted(self.files)]
        content = {"attempt": self.attempt, "files": files}
        return json.dumps({**content, "sum": _sum(content)}, indent=1).encode()

    @classmethod
    def from_json(cls, text: bytes, *, key: str) -> Self:
        """Read an index. Raises ObjectDamaged where it is not what was written."""
        try:
            raw = json.loads(text)
            told = raw.pop("sum")
            files = [StoredFile(**one) for one in raw["files"]]
            whole = told == _sum(raw) and all(_is_sound(file, index_key=key) for file in files)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ObjectDamaged(f"{key} is damaged: it is no index ({error!r})") from error
        if not whole:
            raise ObjectDamaged(f"{key} is damaged: it is not what was written")
        return cls({file.name: file for file in files}, int(raw["attempt"]))


class StoredOutputs:
    """The outputs of one job in a store. Every method raises StorageError."""

    def __init__(self, store: Store, job_id: int) -> None:
        self.store = store
        self._prefix = job_prefix(job_id)

    def attempts(self) -> list[int]:
        """Return the attempts that have an index, the newest first."""
        found = set()
        for entry in self.store.list(f"{self._prefix}/attempts/"):
            number, _, rest = entry.key.removeprefix(f"{self._prefix}/attempts/").partition("/")
            if rest == "index.json" and number.isdecimal():
                found.add(int(number))
        return sorted(found, reverse=True)

    def index(self, attempt: int) -> Index:
        return self._read(attempt_prefix(self._prefix, attempt))

    def newest(self) -> Index:
        """Return the newest attempt's index that can be read, an empty one where there is none."""
        for attempt in self.attempts():
            try:
                return self.index(attempt)
            except (ObjectMissing, ObjectDamaged):
                continue  # removed just now, or no good: the one before it is whole
        return Index()

    def exports(self) -> Index:
        """Return what was exported, in whatever format."""
        files: dict[str, StoredFile] = {}
        for entry in self.store.list(f"{self._prefix}/exports/"):
            if entry.key.endswith("/index.json"):
                files |= self._read(entry.key.removesuffix("/index.json")).files
        return Index(files)

    def everything(self) -> Index:
        """Return what the job has to show: the newest attempt's files, and the exports."""
        newest = self.newest()
        return Index({**newest.files, **self.exports().files}, newest.attempt)

    def write(self, index: Index) -> None:
        """Let an attempt's files be seen, all of which are stored."""
        prefix = attempt_prefix(self._prefix, index.attempt)
        self.store.write(f"{prefix}/index.json", index.to_json())

    def write_export(self, format: str, file: StoredFile) -> None:
        prefix = export_prefix(self._prefix, format)
        self.store.write(f"{prefix}/index.json", Index({file.name: file}).to_json())
        self.drop_objects(prefix, keep=[file.key])

    def drop_objects(self, prefix: str, *, keep: Iterable[str]) -> None:
        """Remove the objects beside an index that it does not name."""
        kept = set(keep)
        for entry in self.store.list(f"{prefix}/objects/"):
            if entry.key not in kept:
                self.store.delete(entry.key)

    def drop_attempt(self, attempt: int) -> None:
        """Remove an attempt's files, all of which a newer one has; its events stay."""
        prefix = attempt_prefix(self._prefix, attempt)
        self.store.delete(f"{prefix}/index.json")  # first: what is removed in part is not there
        self.store.delete(f"{prefix}/objects")

    def attempt_prefix(self, attempt: int) -> str:
        return attempt_prefix(self._prefix, attempt)

    def export_prefix(self, format: str) -> str:
        return export_prefix(self._prefix, format)

    def events_key(self, attempt: int) -> str:
        return f"{attempt_prefix(self._prefix, attempt)}/events.jsonl.gz"

    def _read(self, prefix: str) -> Index:
        key = f"{prefix}/index.json"
        return Index.from_json(self.store.read(key), key=key)


def job_prefix(job_id: int) -> str:
    return f"jobs/{int(job_id)}"


def attempt_prefix(prefix: str, attempt: int) -> str:
    return f"{prefix}/attempts/{int(attempt)}"


def export_prefix(prefix: str, format: str) -> str:
    if not _EXPORT.fullmatch(format):
        raise ValueError(f"not a format of exports: {format!r}")
    return f"{prefix}/exports/{format}"


def object_key(prefix: str, name: str, *, sha256: str) -> str:
    """Return where a file lies beside its index: another content is another object."""
    last = re.sub(r"[^\w.-]", "_", PurePosixPath(name).name, flags=re.ASCII)
    return f"{prefix}/objects/{sha256[:32]}-{last[-80:]}"


def is_sound_name(name: str) -> bool:
    """Tell whether a name leads to a file below its job's folder, and to none that is hidden."""
    parts = name.split("/")
    return not any(part == "" or part.startswith(".") or "\0" in part for part in parts)


def _is_sound(file: StoredFile, *, index_key: str) -> bool:
    beside = f"{index_key.removesuffix('index.json')}objects/"
    rest = file.key.removeprefix(beside)
    return (
        is_sound_name(file.name)
        and file.key.startswith(beside)
        and is_sound_name(rest)
        and "/" not in rest
        and file.size >= 0
        and _SHA256.fullmatch(file.sha256) is not None
    )


def _sum(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
