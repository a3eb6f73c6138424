"""The store of files behind a URL: whole or absent, checked, and only where it may."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest

from modelyard import storage, storage_s3
from modelyard.ports import free_port
from modelyard.storage import (
    FileChanged,
    ObjectDamaged,
    ObjectMissing,
    StorageError,
    Store,
    open_store,
)


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return open_store(f"memory://{uuid.uuid4().hex}")
    return open_store(f"file://{tmp_path}/store")


@pytest.fixture
def on_disk(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}/store")


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def keys(store: Store, prefix: str = "jobs/") -> list[str]:
    return [entry.key for entry in store.list(prefix)]


class Breaking:
    """A file system on whose way every upload breaks in the middle."""

    protocol = "file"

    def __init__(self, inner: fsspec.AbstractFileSystem) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def put_file(self, local: str, path: str) -> None:
        content = Path(local).read_bytes()
        self._inner.pipe_file(path, content[: len(content) // 2])
        raise ConnectionResetError("cut off")


def test_what_is_stored_is_fetched_as_it_was(store: Store, tmp_path: Path) -> None:
    content = os.urandom(100_000)
    stored = store.put(written(tmp_path / "last.pth", content), "jobs/7/last.pth")
    assert (stored.key, stored.size) == ("jobs/7/last.pth", 100_000)
    assert stored.sha256 == hashlib.sha256(content).hexdigest()
    store.get("jobs/7/last.pth", tmp_path / "new" / "there.pth", sha256=stored.sha256)
    assert (tmp_path / "new" / "there.pth").read_bytes() == content
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["there.pth"]


def test_an_empty_file_is_a_file(store: Store, tmp_path: Path) -> None:
    stored = store.put(written(tmp_path / "empty", b""), "jobs/7/empty")
    store.get("jobs/7/empty", tmp_path / "fetched", sha256=stored.sha256)
    assert (tmp_path / "fetched").read_bytes() == b""


def test_an_object_that_is_stored_again_is_the_new_one(store: Store, tmp_path: Path) -> None:
    for content in (b"first and longer", b"second"):
        store.put(written(tmp_path / "file", content), "jobs/7/file")
    assert store.read("jobs/7/file") == b"second"
    assert [(entry.key, entry.size) for entry in store.list("jobs/7/")] == [("jobs/7/file", 6)]


def test_a_flipped_bit_is_refused_and_the_file_that_was_there_stays(
    store: Store, tmp_path: Path
) -> None:
    stored = store.put(written(tmp_path / "file", b"good content"), "jobs/7/file")
    store.write("jobs/7/file", b"gooe content")
    target = written(tmp_path / "target", b"what was there")
    with pytest.raises(ObjectDamaged, match="jobs/7/file is damaged"):
        store.get("jobs/7/file", target, sha256=stored.sha256)
    assert target.read_bytes() == b"what was there"
    assert not list(tmp_path.glob(".*"))


def test_what_is_not_there_is_told_as_missing(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing, match="jobs/7/none is not there"):
        store.get("jobs/7/none", tmp_path / "file")
    with pytest.raises(ObjectMissing):
        store.read("jobs/7/none")
    assert not store.exists("jobs/7/none")
    assert keys(store) == []
    assert not (tmp_path / "file").exists()


def test_an_upload_that_breaks_leaves_nothing_behind(tmp_path: Path) -> None:
    root = tmp_path / "store"
    store = Store(Breaking(fsspec.filesystem("file", auto_mkdir=True)), str(root), name="file://x")  # type: ignore[arg-type]
    with pytest.raises(StorageError, match="could not be stored: cut off"):
        store.put(written(tmp_path / "file", b"0123456789"), "jobs/7/file")
    assert not store.exists("jobs/7/file")
    assert [path for path in root.rglob("*") if path.is_file()] == []


def test_an_upload_that_breaks_leaves_the_earlier_object(on_disk: Store, tmp_path: Path) -> None:
    file = written(tmp_path / "file", b"0123456789")
    on_disk.put(file, "jobs/7/file")
    inner = fsspec.filesystem("file", auto_mkdir=True)
    breaking = Store(Breaking(inner), str(tmp_path / "store"), name="file://x")  # type: ignore[arg-type]
    with pytest.raises(StorageError):
        breaking.put(written(file, b"a newer content"), "jobs/7/file")
    assert on_disk.read("jobs/7/file") == b"0123456789"


def test_what_a_killed_uploader_left_is_no_object(on_disk: Store, tmp_path: Path) -> None:
    on_disk.write("jobs/7/file", b"whole")
    half = tmp_path / "store" / "jobs" / "7" / f"{storage._TEMPORARY}1234abcd-file"
    half.write_bytes(b"ha")
    assert keys(on_disk) == ["jobs/7/file"]


def test_a_file_that_changes_while_it_is_stored_is_not_stored(
    on_disk: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path / "file", b"0123456789")
    put_file = on_disk._fs.put_file

    def changing(local: str, path: str) -> None:
        put_file(local, path)
        with file.open("ab") as stream:
            stream.write(b"more")

    monkeypatch.setattr(on_disk._fs, "put_file", changing)
    with pytest.raises(FileChanged, match="changed while it was being stored"):
        on_disk.put(file, "jobs/7/file")
    assert not on_disk.exists("jobs/7/file")


def test_a_range_is_its_bytes_whatever_the_parts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "PART_BYTES", 10)
    content = bytes(range(95))
    store.write("jobs/7/file", content)
    for start, end in ((0, 95), (0, 10), (7, 33), (90, 95), (94, 95), (5, 5)):
        parts = list(store.iter_range("jobs/7/file", start, end))
        assert b"".join(parts) == content[start:end]
        assert all(len(part) <= 10 for part in parts)


def test_a_listing_is_in_the_order_of_keys_and_below_its_prefix(store: Store) -> None:
    for key in ("jobs/7/b", "jobs/7/a/1", "jobs/70/x", "datasets/1/x"):
        store.write(key, b"123")
    assert keys(store, "jobs/7/") == ["jobs/7/a/1", "jobs/7/b"]
    assert keys(store) == ["jobs/7/a/1", "jobs/7/b", "jobs/70/x"]
    assert {entry.size for entry in store.list("jobs/")} == {3}


def test_a_deletion_takes_what_lies_below_and_no_more(store: Store) -> None:
    for key in ("jobs/7/b", "jobs/7/a/1", "jobs/70/x"):
        store.write(key, b"123")
    store.delete("jobs/7/")
    assert keys(store) == ["jobs/70/x"]
    store.delete("jobs/7/")  # once more is no error
    store.delete("jobs/70/x")
    assert keys(store) == []


@pytest.mark.parametrize(
    "key", ["", "/", "..", "../other", "jobs/../../etc/passwd", "/etc/passwd", "jobs//7", "./jobs"]
)
def test_a_key_that_leads_out_is_refused_by_every_verb(
    store: Store, tmp_path: Path, key: str
) -> None:
    file = written(tmp_path / "file", b"x")
    for use in (
        lambda: store.put(file, key),
        lambda: store.get(key, tmp_path / "fetched"),
        lambda: store.read(key),
        lambda: store.write(key, b"x"),
        lambda: list(store.iter_range(key, 0, 1)),
        lambda: store.exists(key),
        lambda: list(store.list(key)),
        lambda: store.delete(key),
    ):
        with pytest.raises(ValueError, match="not a key"):
            use()


@pytest.mark.parametrize("url", ["", "s3", "s3://", "/mnt/store", "bucket/prefix"])
def test_what_is_no_address_says_how_one_looks(url: str) -> None:
    with pytest.raises(StorageError, match="s3://bucket/prefix"):
        open_store(url)


def test_a_protocol_that_nobody_knows_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="the store nosuch://x cannot be used"):
        open_store("nosuch://x")


def test_a_missing_package_is_told_with_the_file_to_install() -> None:
    code = (
        "import sys; sys.modules['s3fs'] = None\n"  # as where it is not installed
        "from modelyard.storage import open_store\n"
        "open_store('s3://bucket/prefix')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "StorageError" in done.stderr
    assert "install requirements/s3.txt" in done.stderr


def test_a_full_or_closed_disk_is_told_as_an_error_of_the_store(tmp_path: Path) -> None:
    written(tmp_path / "in-the-way", b"")
    store = open_store(f"file://{tmp_path}/in-the-way/store")
    with pytest.raises(StorageError, match="jobs/7/file could not be stored"):
        store.write("jobs/7/file", b"x")


@pytest.mark.parametrize("call", ["read", "put"])
def test_a_server_that_takes_connections_and_says_nothing_is_given_up_after_few_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(storage_s3, "READ_SECONDS", 0.2)
    monkeypatch.setattr(storage_s3.Session, "put_seconds", 0.2)
    sent: list[str] = []
    send = storage_s3.Session.send

    async def count_and_send(session: storage_s3.Session, request: Any) -> Any:
        sent.append(request.method)
        return await send(session, request)

    monkeypatch.setattr(storage_s3.Session, "send", count_and_send)
    file = written(tmp_path / "file", b"content")
    calls = {
        "read": lambda store: store.read("jobs/7/file"),
        "put": lambda store: store.put(file, "jobs/7/file"),
    }
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        with pytest.raises(StorageError, match="see that the store"):
            calls[call](open_store("s3://bucket/prefix"))
    assert len(sent) == storage_s3.TRIES


def test_a_store_that_cannot_even_be_connected_to_is_told_as_an_error_of_the_store() -> None:
    with pytest.raises(StorageError, match=r"ftp://127\.0\.0\.1:\d+/x cannot be used: "):
        open_store(f"ftp://127.0.0.1:{free_port()}/x")


def test_an_endpoint_that_is_no_address_is_told_as_an_error_of_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(StorageError, match="could not be read: Invalid endpoint: nonsense"):
        open_store("s3://bucket/prefix").read("jobs/7/file")
