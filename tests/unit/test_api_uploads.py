"""Data sets as zips: refused as early as can be, and nothing is left of what is refused."""

from __future__ import annotations

import fcntl
import io
import random
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import update

from tests.api import Api, Person, serve
from webapp.extensions import db
from webapp.models import Job
from webapp.services import checks, datasets, uploads

DATASET: dict[str, bytes] = {}


def image(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (shade, shade, 255 - shade)).save(file, "PNG")
    return file.getvalue()


def a_data_set() -> dict[str, bytes]:
    if not DATASET:
        names = [
            f"shades/{split}/{label}/{i}.png"
            for split, count in (("train", 4), ("val", 2))
            for label in ("dark", "light")
            for i in range(count)
        ]
        DATASET.update({name: image(10 * number) for number, name in enumerate(names)})
    return dict(DATASET)


def zipped(files: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return archive.getvalue()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    limits = {"MODELYARD_UPLOAD_SIZE": "3 MB", "MODELYARD_UPLOAD_FILES": "50"}
    with serve(tmp_path, **limits) as served:
        yield served


@pytest.fixture
def ada(api: Api) -> Person:
    person = api.person("ada")
    assert person.project() == 1
    return person


def upload(person: Person, content: bytes, *, address: str = "?project_id=1", **fields: Any) -> Any:
    form = {"name": "shades", **fields, "file": (io.BytesIO(content), "shades.zip")}
    return person.call("POST", f"/datasets/upload{address}", data=form)


def left(api: Api) -> list[str]:
    folder = api.data.parent / "uploads"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_a_zip_is_unpacked_looked_at_and_registered(api: Api, ada: Person) -> None:
    answer = upload(ada, zipped(a_data_set()), val_share="0.3", format="imagefolder")
    assert answer.status_code == 201, answer.text
    found = answer.json
    assert (found["status"], found["num_images"], found["uploaded"]) == ("valid", 12, True)
    assert (found["classes"], found["val_share"]) == (["dark", "light"], 0.3)
    path = Path(found["path"])
    assert path.name == "shades"
    assert path.parent.parent == (api.data.parent / "uploads").resolve()
    assert left(api) == [path.parent.name]  # no archive, no mark
    assert ada.get(f"/datasets/{found['id']}").json == found
    assert ada.post(f"/datasets/{found['id']}/validate").json["status"] == "valid"


def test_a_data_set_with_errors_is_registered_and_says_them(api: Api, ada: Person) -> None:
    found = upload(ada, zipped({**a_data_set(), "shades/train/dark/9.png": b"no image"})).json
    assert found["status"] == "invalid"
    assert {p["file"] for p in found["problems"]} == {"train/dark/9.png"}


def test_a_job_trains_on_what_was_uploaded(api: Api, ada: Person) -> None:
    found = upload(ada, zipped(a_data_set())).json
    assert ada.job(1, found["id"])["dataset_path"] == found["path"]


REFUSED: dict[str, tuple[bytes, str]] = {
    "no zip": (b"no zip", "not a zip"),
    "empty": (b"", "not a zip"),
    "no data set": (zipped({"notes.txt": b"hello"}), ""),
    "leads out": (zipped({**a_data_set(), "../../x.png": b""}), "'..'"),
    "many files": (zipped({f"{i}.png": b"" for i in range(51)}), "at most 50"),
}


@pytest.mark.parametrize(("content", "says"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_leaves_nothing(api: Api, ada: Person, content: bytes, says: str) -> None:
    answer = upload(ada, content)
    assert answer.status_code == 422
    assert list(answer.json["errors"]) == ["file"]
    assert says in answer.json["errors"]["file"][0]
    assert left(api) == []
    assert ada.get("/datasets").json["total"] == 0


def test_wrong_fields_are_named_and_nothing_is_left(api: Api, ada: Person) -> None:
    for fields, name in (
        ({"name": ""}, "name"),
        ({"format": "tar"}, "format"),
        ({"task_type": "telepathy"}, "task_type"),
        ({"val_share": "2"}, "val_share"),
        ({"colour": "red"}, "colour"),
        ({"check_id": "mine"}, "check_id"),
        ({"project_id": "2"}, "project_id"),  # the address says 1
    ):
        answer = upload(ada, zipped(a_data_set()), **fields)
        assert (answer.status_code, list(answer.json["errors"])) == (422, [name]), fields
    assert list(upload(ada, b"", address="").json["errors"]) == ["project_id"]
    twice = ada.call(
        "POST",
        "/datasets/upload?project_id=1",
        data={"name": "a", "file": [(io.BytesIO(b""), "a.zip"), (io.BytesIO(b""), "b.zip")]},
    )
    assert (twice.status_code, list(twice.json["errors"])) == (422, ["file"])
    none = ada.call("POST", "/datasets/upload?project_id=1", data={"name": "a", "x": "y"})
    assert none.status_code == 415  # without a file it is sent as another kind of form
    assert left(api) == []


def test_what_is_no_form_is_refused(api: Api, ada: Person) -> None:
    assert ada.post("/datasets/upload?project_id=1", {}).status_code == 415
    for body in (b"", b"--x", b"--x\r\nContent-Disposition: form-data\r\n\r\nno name\r\n--x--"):
        answer = ada.call(
            "POST",
            "/datasets/upload?project_id=1",
            data=body,
            content_type="multipart/form-data; boundary=x",
        )
        assert answer.status_code == 422, body
    assert left(api) == []


def test_an_archive_above_the_limit_is_refused_whether_or_not_it_says_so(
    api: Api, ada: Person
) -> None:
    large = random.Random(0).randbytes(5_000_000)
    answer = upload(ada, large)
    assert answer.status_code == 413
    form = b"--x\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\n"
    chunked = ada.call(
        "POST",
        "/datasets/upload?project_id=1",
        input_stream=io.BytesIO(form + large),
        content_type="multipart/form-data; boundary=x",
        environ_overrides={"wsgi.input_terminated": True},
    )
    assert chunked.status_code == 413
    assert left(api) == []


class Unread(io.RawIOBase):
    """A body that must not be read to its file."""

    def __init__(self, start: bytes) -> None:
        self._start = io.BytesIO(start)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._start.read(len(buffer))
        assert piece, "the file was read"
        buffer[: len(piece)] = piece
        return len(piece)


def send(person: Person, start: bytes, *, address: str) -> Any:
    return person.call(
        "POST",
        f"/datasets/upload{address}",
        environ_overrides={
            "wsgi.input": Unread(start),
            "CONTENT_LENGTH": "2000000",
            "CONTENT_TYPE": "multipart/form-data; boundary=x",
        },
    )


def test_who_may_not_is_told_before_the_file_is_read(api: Api, ada: Person) -> None:
    viewer, stranger = api.person("viewer"), api.person("stranger")
    ada.post("/projects/1/members", {"email": viewer.email, "role": "viewer"})
    assert send(api.nobody, b"", address="?project_id=1").status_code == 401
    assert send(viewer, b"", address="?project_id=1").status_code == 403
    assert send(stranger, b"", address="?project_id=1").status_code == 404
    assert send(stranger, b"", address="").status_code == 403  # no project to put it in
    fields = (
        b"--x\r\nContent-Disposition: form-data; name=project_id\r\n\r\n1\r\n"
        b"--x\r\nContent-Disposition: form-data; name=file; filename=a.zip\r\n\r\n"
    )
    stranger.project("of their own")
    assert send(stranger, fields, address="").status_code == 404
    assert left(api) == []


def test_the_phases_of_an_upload_are_told(
    api: Api, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = str(uuid.uuid4())
    seen: list[tuple[str, int, int | None]] = []
    write = checks.Check._write

    def watched(self: checks.Check, *, done: int, total: int | None) -> None:
        write(self, done=done, total=total)
        if self._id == check:
            seen.append((str(self._phase), done, total))

    monkeypatch.setattr(checks.Check, "_write", watched)
    monkeypatch.setattr(checks, "_TOLD_EVERY_SECONDS", 0.0)
    assert upload(ada, zipped(a_data_set()), check_id=check).status_code == 201
    phases = list(dict.fromkeys(phase for phase, _, _ in seen))
    assert phases == ["receiving", "unpacking", "checking", "done"]
    assert any(told[0] == "unpacking" and told[1] > 0 for told in seen)
    assert any(told[0] == "checking" and told[2] == 12 for told in seen)


def test_an_upload_that_is_given_up_leaves_nothing(
    api: Api, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = str(uuid.uuid4())
    unpack = datasets.unpack_apart

    def given_up(*arguments: Any, **keywords: Any) -> Path:
        assert ada.delete(f"/datasets/checks/{check}").status_code == 204
        return unpack(*arguments, **keywords)

    monkeypatch.setattr(datasets, "unpack_apart", given_up)
    assert upload(ada, zipped(a_data_set()), check_id=check).status_code == 409
    assert left(api) == []
    assert ada.get("/datasets").json["total"] == 0


def test_an_upload_is_deleted_with_its_files_when_no_job_needs_them(api: Api, ada: Person) -> None:
    dataset = upload(ada, zipped(a_data_set())).json["id"]
    ada.job(1, dataset)  # pending: it could not be started without them
    assert ada.delete(f"/datasets/{dataset}").status_code == 409
    assert len(left(api)) == 1
    with api.app.app_context():
        db.session.execute(update(Job).values(status="completed"))
        db.session.commit()
    assert ada.delete(f"/datasets/{dataset}").status_code == 204
    assert left(api) == []


def test_a_project_takes_its_uploads_along(api: Api, ada: Person) -> None:
    upload(ada, zipped(a_data_set()))
    ada.project("another")
    kept = upload(ada, zipped(a_data_set()), address="?project_id=2").json
    assert ada.delete("/projects/1").status_code == 204
    assert left(api) == [Path(kept["path"]).parent.name]


def test_nobody_registers_what_another_project_uploaded(api: Api, ada: Person) -> None:
    found = upload(ada, zipped(a_data_set())).json
    eve = api.person("eve")
    mine = eve.project("eve's")
    for path in (found["path"], str(api.data.parent / "uploads"), str(api.data.parent)):
        body = {"project_id": mine, "name": "theirs", "path": path}
        assert eve.post("/datasets", body).status_code == 422, path
    with serve(api.data.parent, MODELYARD_DATA_ROOTS=str(api.data.parent)) as wider:
        person = Person(wider.app, token=eve.token)
        for path in (found["path"], str(api.data.parent)):
            body = {"project_id": mine, "name": "theirs", "path": path}
            answer = person.post("/datasets", body)
            assert answer.status_code == 422
            assert "uploads" in answer.json["errors"]["path"][0]


def test_what_a_killed_process_left_is_removed_at_the_next_upload(api: Api, ada: Person) -> None:
    kept = Path(upload(ada, zipped(a_data_set())).json["path"]).parent
    folder = kept.parent
    dead, alive = uuid.uuid4().hex, uuid.uuid4().hex
    for token in (dead, alive):
        (folder / token / "train").mkdir(parents=True)
        (folder / f"{token}.zip").write_bytes(b"half")
        (folder / f"{token}.lock").touch()
    (folder / f"{kept.name}.lock").touch()  # killed just after it was registered
    with (folder / f"{alive}.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert upload(ada, b"no zip").status_code == 422
        assert left(api) == sorted([kept.name, alive, f"{alive}.zip", f"{alive}.lock"])
    with api.app.app_context():
        uploads.sweep()
    assert left(api) == [kept.name]


def test_a_start_removes_what_is_left_too(api: Api, ada: Person) -> None:
    folder = api.data.parent / "uploads"
    folder.mkdir()
    token = uuid.uuid4().hex
    (folder / f"{token}.lock").touch()
    (folder / token).mkdir()
    (folder / "of a person").mkdir()  # whatever else lies there is not ours
    uploads.sweep_in_background(api.app).join()
    assert left(api) == ["of a person"]
    assert (folder / "of a person").is_dir()
