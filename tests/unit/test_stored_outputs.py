"""What a job has in the store: found through whole indexes, brought whole, the newest good one."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from pathlib import Path

import pytest

from modelyard.storage import ObjectDamaged, ObjectMissing, StorageError, Store, open_store
from modelyard.stored_copies import (
    LocalState,
    bring,
    changing,
    fetch,
    read_state,
    sweep,
    write_state,
)
from modelyard.stored_outputs import Index, StoredFile, StoredOutputs, object_key


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}/store")


@pytest.fixture
def outputs(store: Store) -> StoredOutputs:
    return StoredOutputs(store, 7)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "outputs" / "7"


def put(outputs: StoredOutputs, attempt: int, **files: str) -> Index:
    """Store an attempt's files: last and best are checkpoints."""
    found = {}
    for short, content in files.items():
        name = f"checkpoints/{short}.pth" if short in ("last", "best") else f"{short}.csv"
        sha256 = hashlib.sha256(content.encode()).hexdigest()
        key = object_key(outputs.attempt_prefix(attempt), name, sha256=sha256)
        outputs.store.write(key, content.encode())
        found[name] = StoredFile(name, len(content), sha256, key, 1e9)
    index = Index(found, attempt)
    outputs.write(index)
    return index


def content(folder: Path) -> dict[str, str]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.name: path.read_text() for path in found if not path.name.startswith(".")}


def test_the_newest_attempt_that_has_an_index_counts(outputs: StoredOutputs) -> None:
    assert outputs.newest() == Index()
    put(outputs, 2, last="two")
    tenth = put(outputs, 10, last="ten")
    # Uploads of a later attempt that is not there yet, or was torn.
    outputs.store.write(f"{outputs.attempt_prefix(11)}/objects/0-last.pth", b"half")
    assert outputs.attempts() == [10, 2]
    assert outputs.newest() == tenth


def test_an_index_that_is_not_what_was_written_is_none(outputs: StoredOutputs) -> None:
    older = put(outputs, 1, last="one")
    put(outputs, 2, last="two")
    key = f"{outputs.attempt_prefix(2)}/index.json"
    text = outputs.store.read(key)
    for damaged in (text[:-20], text.replace(b"last.pth", b"lost.pth"), b"[]", b"\xff"):
        outputs.store.write(key, damaged)
        with pytest.raises(ObjectDamaged):
            outputs.index(2)
        assert outputs.newest() == older


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("../8/last.pth", "jobs/7/attempts/1/objects/0-last.pth"),
        ("/etc/passwd", "jobs/7/attempts/1/objects/0-last.pth"),
        (".stored.json", "jobs/7/attempts/1/objects/0-last.pth"),
        ("last.pth", "jobs/8/attempts/1/objects/0-last.pth"),
        ("last.pth", "jobs/7/attempts/1/objects/../../../../8/x"),
        ("last.pth", "jobs/7/attempts/1/objects/"),
    ],
)
def test_an_index_that_leads_out_of_its_job_is_refused(
    outputs: StoredOutputs, name: str, key: str
) -> None:
    outputs.write(Index({name: StoredFile(name, 1, "0" * 64, key, 0.0)}, 1))
    with pytest.raises(ObjectDamaged):
        outputs.index(1)


def test_a_new_attempt_gets_all_and_nothing_that_is_not_of_it(
    outputs: StoredOutputs, folder: Path
) -> None:
    put(outputs, 1, last="one", best="one", results="1")
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.pth").write_text("of another attempt")
    (folder / "checkpoints" / "epoch-9.pth").write_text("of another attempt")
    brought = bring(outputs, folder, attempt=2)
    assert (brought.attempt, brought.from_store) == (1, True)
    assert content(folder) == {"best.pth": "one", "last.pth": "one", "results.csv": "1"}


def test_a_damaged_checkpoint_is_refused_and_the_attempt_before_it_is_taken_whole(
    outputs: StoredOutputs, folder: Path
) -> None:
    put(outputs, 1, last="one", best="one")
    damaged = put(outputs, 2, last="two", best="two").files["checkpoints/last.pth"]
    outputs.store.write(damaged.key, b"twp")
    brought = bring(outputs, folder, attempt=3)
    assert (brought.attempt, len(brought.notes)) == (1, 1)
    assert content(folder) == {"best.pth": "one", "last.pth": "one"}

    outputs.drop_attempt(1)
    with pytest.raises(ObjectDamaged, match="SHA-256"):
        bring(outputs, folder, attempt=3)


def test_a_damaged_table_costs_no_more_than_itself(outputs: StoredOutputs, folder: Path) -> None:
    table = put(outputs, 1, last="one", results="1").files["results.csv"]
    outputs.store.write(table.key, b"2")
    brought = bring(outputs, folder, attempt=2)
    assert content(folder) == {"last.pth": "one"}
    assert "results.csv is left out" in brought.notes[0]


def test_what_this_host_has_comes_first_unless_another_was_later(
    outputs: StoredOutputs, folder: Path
) -> None:
    put(outputs, 1, last="one")
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.pth").write_text("one, and ahead")
    write_state(folder, LocalState(1, whole=True))
    assert not bring(outputs, folder, attempt=2).from_store
    assert content(folder) == {"last.pth": "one, and ahead"}
    put(outputs, 2, last="two")
    assert bring(outputs, folder, attempt=3).from_store
    assert content(folder) == {"last.pth": "two"}
    assert read_state(folder) is None, "it is the new attempt's once that has begun"


def test_single_files_leave_alone_where_an_attempt_works(
    outputs: StoredOutputs, folder: Path
) -> None:
    index = put(outputs, 1, last="one", best="one")
    folder.mkdir(parents=True)
    write_state(folder, LocalState(2, whole=True))
    assert fetch(outputs.store, index, folder, wanted=lambda file: True, needed="")
    assert content(folder) == {}


def test_single_files_are_fetched_once_and_others_after_a_later_attempt(
    outputs: StoredOutputs, folder: Path
) -> None:
    def best(file: StoredFile) -> bool:
        return "best" in file.name

    first = put(outputs, 1, last="one", best="one")
    assert not fetch(outputs.store, first, folder, wanted=best, needed="checkpoints/best")
    outputs.store.delete(first.files["checkpoints/best.pth"].key)
    assert not fetch(outputs.store, first, folder, wanted=best, needed="checkpoints/best")
    second = put(outputs, 2, last="two", best="two")
    assert not fetch(outputs.store, second, folder, wanted=best, needed="checkpoints/best")
    assert content(folder) == {"best.pth": "two"}
    # What was fetched is no folder to go on in.
    assert bring(outputs, folder, attempt=3).from_store
    assert content(folder) == {"best.pth": "two", "last.pth": "two"}


def test_a_needed_file_that_is_gone_is_told(outputs: StoredOutputs, folder: Path) -> None:
    index = put(outputs, 1, best="one")
    outputs.store.delete(index.files["checkpoints/best.pth"].key)
    with pytest.raises(ObjectMissing):
        fetch(outputs.store, index, folder, wanted=lambda file: True, needed="checkpoints/best")


def test_a_link_does_not_lead_a_file_out_of_the_folder(
    outputs: StoredOutputs, folder: Path, tmp_path: Path
) -> None:
    put(outputs, 1, last="one")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").touch()
    folder.mkdir(parents=True)
    (folder / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="leads out"):
        bring(outputs, folder, attempt=2)
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["mine"]


def test_an_export_is_found_beside_the_newest_attempt(outputs: StoredOutputs) -> None:
    put(outputs, 3, last="three")
    key = object_key(outputs.export_prefix("onnx"), "exports/m.onnx", sha256="0" * 64)
    outputs.write_export("onnx", StoredFile("exports/m.onnx", 1, "0" * 64, key, 0.0))
    assert sorted(outputs.everything().files) == ["checkpoints/last.pth", "exports/m.onnx"]
    with pytest.raises(ValueError, match="format"):
        outputs.export_prefix("../../8")


def test_an_index_says_the_same_after_it_was_read(outputs: StoredOutputs) -> None:
    index = put(outputs, 1, last="one", best="one")
    assert Index.from_json(index.to_json(), key=f"{outputs.attempt_prefix(1)}/index.json") == index
    assert set(json.loads(index.to_json())) == {"attempt", "files", "sum"}


def test_what_is_in_the_store_leaves_a_worker_after_a_while_and_nothing_else(
    tmp_path: Path,
) -> None:
    states = {
        "1": LocalState(1, whole=True, stored=True),
        "2": LocalState(1, whole=True),  # trains, or has not sent all
        "3": LocalState(1, whole=False, files={"checkpoints/best.pth": "0" * 64}),
        "4": LocalState(1, whole=True, stored=True),  # used just now
        "5": None,  # of the time before there was a store
    }
    for name, state in states.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
        if state is not None:
            write_state(tmp_path / name, state)
            old = time.time() - (0 if name == "4" else 7200)
            os.utime(tmp_path / name / ".stored.json", (old, old))
    (tmp_path / ".gone-1").mkdir()
    sweep(tmp_path, idle_seconds=3600)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "4", "5"]


def test_a_folder_that_is_being_fetched_into_is_not_waited_for(tmp_path: Path) -> None:
    for name in "12":
        write_state(tmp_path / name, LocalState(1, whole=True, stored=True))
    with changing(tmp_path / "1"):
        sweep(tmp_path, idle_seconds=-1)
        assert [path.name for path in tmp_path.iterdir()] == ["1"]
    sweep(tmp_path, idle_seconds=-1)
    assert list(tmp_path.iterdir()) == []


def test_who_waits_for_a_folder_that_is_removed_meanwhile_begins_with_a_new_one(
    folder: Path,
) -> None:
    entered = threading.Event()

    def wait() -> None:
        with changing(folder):
            entered.set()

    with changing(folder):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not entered.wait(0.2)
        folder.replace(folder.with_name("gone"))
    assert entered.wait(120)
    thread.join()
    assert folder.is_dir()
