"""What is recorded of a job: curves, logs, artifacts."""

from __future__ import annotations

import hashlib
import itertools
import random
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from tests.api import Api, Person
from webapp.extensions import db
from webapp.models import Artifact, Attempt, JobEvent, Metric
from webapp.models.columns import utc_now
from webapp.services import logs
from webapp.services.metrics import thin

JOB = "/training/jobs/1"


@pytest.fixture
def ada(api: Api) -> Person:
    """The owner of job 1."""
    person = api.person("ada")
    assert person.job(person.project(), api.dataset(1))["id"] == 1
    return person


def store(api: Api, *rows: Any) -> None:
    with api.app.app_context():
        db.session.add_all(rows)
        db.session.commit()


def log_of(api: Api, *texts: str, attempt: int = 1) -> bytes:
    """Record a log in pieces, as the recorder does; return all of it."""
    start = 0
    rows: list[Any] = []
    for text in texts:
        rows.append(
            JobEvent(
                job_id=1,
                project_id=1,
                attempt=attempt,
                type="log",
                time=utc_now(),
                log_start=start,
                data={"text": text},
            )
        )
        start += len(text.encode())
    store(api, Attempt(job_id=1, number=attempt, queued_at=utc_now(), log_size=start), *rows)
    return "".join(texts).encode()


def test_curves_come_by_name_in_the_order_of_epochs(api: Api, ada: Person) -> None:
    store(
        api,
        *(
            Metric(
                job_id=1, attempt=1, name=name, epoch=epoch, step=epoch * 10, value=value + epoch,
                time=utc_now(),
            )
            for epoch in (2, 1)
            for name, value in (("train_loss", 0.0), ("top1", 0.5))
        ),
    )  # fmt: skip
    curves = ada.get(f"{JOB}/metrics").json
    assert {name: [p["epoch"] for p in curve] for name, curve in curves.items()} == {
        "top1": [1, 2],
        "train_loss": [1, 2],
    }
    assert curves["top1"][0]["value"] == 1.5
    assert ada.get(f"{JOB}/metrics", names="top1,unknown").json == {
        "top1": curves["top1"],
        "unknown": [],
    }


@pytest.mark.parametrize("points", [2, 3, 10, 101, 998, 5000])
def test_a_thinned_curve_keeps_its_ends_its_order_and_its_peaks(points: int) -> None:
    chance = random.Random(points)
    curve = [SimpleNamespace(epoch=i, value=chance.gauss(0, 1)) for i in range(1000)]
    curve[500].value, curve[501].value = 99.0, -99.0
    thinned = thin(curve, points)
    assert len(thinned) <= points
    assert (thinned[0], thinned[-1]) == (curve[0], curve[-1])
    assert all(a.epoch < b.epoch for a, b in itertools.pairwise(thinned))
    if points >= 10:
        assert curve[500] in thinned
        assert curve[501] in thinned


def test_a_log_is_read_on_from_where_it_was_left(api: Api, ada: Person) -> None:
    whole = log_of(api, "first\n", "zweite größer\n", "셋째\n")
    offset, text = 0, b""
    for more in ("vierte\n", None):
        answer = ada.get(f"{JOB}/logs", attempt=1, offset=offset)
        assert answer.mimetype == "text/plain"
        text += answer.data
        offset = int(answer.headers["X-Next-Offset"])
        assert offset == len(text)
        if more:
            whole += more.encode()
            store(
                api,
                JobEvent(
                    job_id=1, project_id=1, attempt=1, type="log", time=utc_now(),
                    log_start=offset, data={"text": more},
                ),
            )  # fmt: skip
    assert text == whole


@pytest.mark.parametrize("offset", [0, 1, 5, 6, 7, 19, 20, 100])
def test_a_log_is_read_from_any_byte(api: Api, ada: Person, offset: int) -> None:
    whole = log_of(api, "first\n", "second\n", "third\n")
    answer = ada.get(f"{JOB}/logs", attempt=1, offset=offset)
    assert answer.data == whole[offset:]
    assert int(answer.headers["X-Next-Offset"]) == max(offset, len(whole))


@pytest.mark.parametrize("lines", [0, 1, 2, 3, 50])
def test_the_tail_is_the_last_lines_also_across_pieces(api: Api, ada: Person, lines: int) -> None:
    whole = log_of(api, "one\ntwo\n", "three\n", "four\nfive\n")
    answer = ada.get(f"{JOB}/logs", attempt=1, tail=lines)
    expected = whole.splitlines(keepends=True)[-lines:] if lines else []
    assert answer.data == b"".join(expected)
    assert int(answer.headers["X-Next-Offset"]) == len(whole)


def test_a_long_log_comes_in_answers_of_a_megabyte(
    api: Api, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 1000)
    whole = log_of(api, *(f"línea 셋 {i}\n" for i in range(400)))
    text, offset, answers = b"", 0, 0
    while True:
        answer = ada.get(f"{JOB}/logs", attempt=1, offset=offset)
        if not answer.data:
            break
        answer.data.decode()  # no character is cut through
        text += answer.data
        offset = int(answer.headers["X-Next-Offset"])
        answers += 1
    assert text == whole
    assert answers > 5
    tail = ada.get(f"{JOB}/logs", attempt=1, tail=300)
    tail.data.decode()
    assert whole.endswith(tail.data)
    assert len(tail.data) <= 1000


def test_logs_of_attempts_are_kept_apart(api: Api, ada: Person) -> None:
    assert ada.get(f"{JOB}/logs").data == b""
    log_of(api, "first\n", attempt=1)
    log_of(api, "second\n", attempt=2)
    assert ada.get(f"{JOB}/logs", attempt=1).data == b"first\n"
    assert ada.get(f"{JOB}/logs", attempt=2).data == b"second\n"
    assert ada.get(f"{JOB}/logs", attempt=3).status_code == 404


def artifact(api: Api, name: str, content: bytes, **fields: Any) -> str:
    path = api.data.parent / "outputs" / "jobs" / "1" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    values = {
        "job_id": 1,
        "attempt": 1,
        "name": name,
        "kind": "checkpoint",
        "size": len(content),
        "sha256": sha256,
        "created_at": utc_now(),
    }
    store(api, Artifact(**{**values, **fields}))
    return sha256


def test_an_artifact_is_listed_and_downloaded_whole_and_in_part(api: Api, ada: Person) -> None:
    content = bytes(range(256)) * 100
    sha256 = artifact(api, "checkpoints/best.pt", content)
    listed = ada.get(f"{JOB}/artifacts").json["items"]
    assert [(a["name"], a["size"], a["sha256"]) for a in listed] == [
        ("checkpoints/best.pt", len(content), sha256)
    ]
    address = f"{JOB}/artifacts/checkpoints/best.pt"
    whole = ada.get(address)
    assert whole.data == content
    assert whole.headers["ETag"] == f'"{sha256}"'
    assert whole.headers["Content-Disposition"].startswith("attachment")
    part = ada.call("GET", address, headers={"Range": "bytes=1000-1999"})
    assert (part.status_code, part.data) == (206, content[1000:2000])
    beyond = ada.call("GET", address, headers={"Range": "bytes=999999-"})
    assert beyond.status_code == 416
    same = ada.call("GET", address, headers={"If-None-Match": f'"{sha256}"'})
    assert same.status_code == 304


@pytest.mark.parametrize(
    "name", ["../2/secret", "/etc/passwd", "link", "folder", "checkpoints/missing.pt"]
)
def test_a_recorded_name_leads_nowhere_but_into_the_jobs_folder(
    api: Api, ada: Person, name: str
) -> None:
    outputs = api.data.parent / "outputs" / "jobs"
    (outputs / "1" / "folder").mkdir(parents=True)
    (outputs / "2").mkdir()
    (outputs / "2" / "secret").write_text("secret")
    (outputs / "1" / "link").symlink_to(outputs / "2" / "secret")
    store(
        api,
        Artifact(
            job_id=1, attempt=1, name=name, kind="x", size=6, sha256="0" * 64,
            created_at=utc_now(),
        ),
    )  # fmt: skip
    assert ada.get(f"{JOB}/artifacts/{name}").status_code == 404


def test_a_file_that_was_not_recorded_is_not_served(api: Api, ada: Person) -> None:
    artifact(api, "a", b"")
    (api.data.parent / "outputs" / "jobs" / "1" / "b").write_text("unknown")
    assert ada.get(f"{JOB}/artifacts/b").status_code == 404
    assert ada.get(f"{JOB}/artifacts/../1/a").status_code == 404


def test_a_file_that_was_written_again_is_not_called_by_its_old_hash(api: Api, ada: Person) -> None:
    sha256 = artifact(
        api, "checkpoints/last.pt", b"new", created_at=utc_now() - timedelta(minutes=1)
    )
    assert sha256 not in ada.get(f"{JOB}/artifacts/checkpoints/last.pt").headers["ETag"]
