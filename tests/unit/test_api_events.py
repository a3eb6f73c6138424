"""The event stream: a snapshot, then every event once, also through lost connections."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from tests.api import Api, Person
from tests.services import wait_for
from webapp.api import events as api_events
from webapp.extensions import db
from webapp.models import Job, JobEvent, JobStatus
from webapp.models.columns import utc_now
from webapp.services import event_log, events
from webapp.services.lifecycle import transition

ADDRESS = "/api/v1/training/jobs/1/events"


@dataclass
class Told:
    id: int
    event: str
    data: dict[str, Any]


class Follower:
    """A client of an event stream."""

    def __init__(self, person: Person, address: str = ADDRESS, **headers: str) -> None:
        headers["Authorization"] = f"Bearer {person.token}"
        self.response = person.app.test_client().get(address, headers=headers)
        assert self.response.status_code == 200, self.response.text
        self._frames = iter(self.response.response)

    def next(self) -> Told:
        """Return the next event, passing over comments. Raises StopIteration at the end."""
        while True:
            frame = next(self._frames)
            if not frame.startswith(b":"):
                break
        fields = dict(line.split(": ", 1) for line in frame.decode().strip().split("\n"))
        return Told(int(fields["id"]), fields["event"], json.loads(fields["data"]))

    def rest(self) -> list[Told]:
        """Return all that comes until the stream closes."""
        found = []
        while True:
            try:
                found.append(self.next())
            except StopIteration:
                return found

    def close(self) -> None:
        self.response.close()


@pytest.fixture
def ada(api: Api) -> Person:
    """The owner of project 1 and its job 1."""
    person = api.person("ada")
    assert person.job(person.project(), api.dataset(1))["id"] == 1
    return person


def tell(api: Api, type: str, data: dict[str, Any], *, job_id: int = 1, **columns: Any) -> None:
    """Append an event as the recorder does."""
    with api.app.app_context():
        session = db.session()
        event_log.lock_order(session)
        event_log.append(
            session, job_id=job_id, project_id=1, attempt=1, type=type, time=utc_now(), data=data,
            **columns,
        )  # fmt: skip
        session.commit()


def bring(api: Api, to: JobStatus) -> None:
    with api.app.app_context():
        session = db.session()
        job = session.get(Job, 1)
        assert job is not None
        assert transition(session, job, to=to, actor="test", reason="test")
        session.commit()


def test_a_stream_begins_with_the_whole_job(api: Api, ada: Person) -> None:
    follower = Follower(ada)
    assert follower.response.mimetype == "text/event-stream"
    assert follower.response.headers["X-Accel-Buffering"] == "no"
    snapshot = follower.next()
    whole = ada.get("/training/jobs/1").json
    assert snapshot.event == "snapshot"
    assert {name: snapshot.data[name] for name in whole} == whole
    assert snapshot.data["job_id"] == 1
    assert snapshot.data["time"].endswith("Z")
    follower.close()


def test_events_come_in_order_each_with_job_attempt_and_time(api: Api, ada: Person) -> None:
    follower = Follower(ada)
    last_id = follower.next().id
    tell(api, "progress", {"epoch": 1, "step": 3})
    tell(api, "metrics", {"epoch": 1, "values": {"top1": 0.5}})
    tell(api, "log", {"text": "one\ntwo\n"}, log_start=12)
    tell(api, "artifact", {"name": "best.pt", "kind": "checkpoint"})
    tell(api, "progress", {"epoch": 9}, job_id=ada.job(1, 1)["id"])  # not of this job
    bring(api, JobStatus.CANCELLED)
    told = follower.rest()
    assert [t.event for t in told] == ["progress", "metrics", "log", "artifact", "status"]
    assert all(t.data["job_id"] == 1 and t.data["time"].endswith("Z") for t in told)
    assert [t.data["attempt"] for t in told[:4]] == [1, 1, 1, 1]
    assert told[1].data["values"] == {"top1": 0.5}
    assert (told[2].data["lines"], told[2].data["offset"]) == (["one", "two"], 12)
    assert (told[4].data["status"], told[4].data["previous"]) == ("cancelled", "pending")
    ids = [last_id, *(t.id for t in told)]
    assert ids == sorted(set(ids))


def test_who_reconnects_misses_nothing_and_sees_nothing_twice(api: Api, ada: Person) -> None:
    follower = Follower(ada)
    follower.next()
    tell(api, "metrics", {"epoch": 1, "values": {}})
    seen = follower.next()
    follower.close()
    for epoch in (2, 3):
        tell(api, "metrics", {"epoch": epoch, "values": {}})
    again = Follower(ada, **{"Last-Event-ID": str(seen.id)})
    snapshot = again.next()
    assert (snapshot.event, snapshot.id) == ("snapshot", seen.id)
    tell(api, "metrics", {"epoch": 4, "values": {}})
    bring(api, JobStatus.CANCELLED)
    told = again.rest()
    assert [t.data["epoch"] for t in told[:-1]] == [2, 3, 4]
    assert told[-1].event == "status"


def test_the_last_id_may_come_in_the_address(api: Api, ada: Person) -> None:
    first = Follower(ada)
    start = first.next().id
    first.close()
    tell(api, "metrics", {"epoch": 1, "values": {}})
    again = Follower(ada, f"{ADDRESS}?last_event_id={start}")
    assert [again.next().event, again.next().event] == ["snapshot", "metrics"]
    again.close()


@pytest.mark.parametrize("last_id", ["nonsense", "99999999", "-1", "9" * 30])
def test_an_id_that_is_not_ours_begins_anew(api: Api, ada: Person, last_id: str) -> None:
    tell(api, "metrics", {"epoch": 1, "values": {}})
    follower = Follower(ada, **{"Last-Event-ID": last_id})
    assert follower.next().event == "snapshot"
    bring(api, JobStatus.CANCELLED)
    assert [t.event for t in follower.rest()] == ["status"]


def test_the_stream_of_a_job_that_has_ended_closes_after_what_was_missed(
    api: Api, ada: Person
) -> None:
    with api.app.app_context():
        before = events.newest_id(db.engine)
    tell(api, "metrics", {"epoch": 1, "values": {}})
    bring(api, JobStatus.CANCELLED)
    assert [t.event for t in Follower(ada).rest()] == ["snapshot"]
    missed = Follower(ada, **{"Last-Event-ID": str(before)}).rest()
    assert [t.event for t in missed] == ["snapshot", "metrics", "status"]


def test_a_replay_goes_on_past_an_old_end(api: Api, ada: Person) -> None:
    with api.app.app_context():
        before = events.newest_id(db.engine)
    bring(api, JobStatus.QUEUED)
    bring(api, JobStatus.FAILED)
    bring(api, JobStatus.QUEUED)  # it was resumed
    follower = Follower(ada, **{"Last-Event-ID": str(before)})
    told = [follower.next() for _ in range(4)]
    assert [t.data["status"] for t in told[1:]] == ["queued", "failed", "queued"]
    bring(api, JobStatus.CANCELLED)
    assert [t.data["status"] for t in follower.rest()] == ["cancelled"]


def test_a_projects_stream_has_all_its_jobs_and_stays_open(api: Api, ada: Person) -> None:
    follower = Follower(ada, "/api/v1/projects/1/events")
    snapshot = follower.next()
    assert [job["id"] for job in snapshot.data["jobs"]] == [1]
    second = ada.job(1, 1)["id"]
    assert follower.next().data["job_id"] == second
    bring(api, JobStatus.CANCELLED)
    assert follower.next().data["job_id"] == 1
    tell(api, "progress", {"epoch": 1}, job_id=second)
    assert follower.next().event == "progress"
    follower.close()


def test_a_silent_stream_says_that_it_is_there(
    api: Api, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_events, "KEEP_ALIVE_SECONDS", 0.05)
    response = ada.app.test_client().get(ADDRESS, headers={"Authorization": f"Bearer {ada.token}"})
    frames = iter(response.response)
    next(frames)
    assert next(frames).startswith(b":")
    assert next(frames).endswith(b"\n\n")
    response.close()


def test_a_follower_that_is_too_slow_is_let_go_and_catches_up(
    api: Api, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_QUEUE_SIZE", 3)
    follower = Follower(ada)
    last_id = follower.next().id
    for epoch in range(10):
        tell(api, "metrics", {"epoch": epoch, "values": {}})
    with api.app.app_context():
        hub = events.hub()
        newest = events.newest_id(db.engine)
    wait_for(lambda: hub._last_id == newest, what="the poller's reading")
    seen = follower.rest()
    follower.close()
    last_id = seen[-1].id if seen else last_id
    bring(api, JobStatus.CANCELLED)
    missed = Follower(ada, **{"Last-Event-ID": str(last_id)}).rest()[1:]
    assert [t.data.get("epoch") for t in (*seen, *missed)] == [*range(10), None]


def test_nobody_polls_when_nobody_follows(api: Api, ada: Person) -> None:
    with api.app.app_context():
        hub = events.hub()
    follower = Follower(ada)
    assert hub.followers == 1
    follower.close()
    assert hub.followers == 0
    wait_for(lambda: hub._last_id is None, what="the poller's end")
    unread = ada.app.test_client().get(ADDRESS, headers={"Authorization": f"Bearer {ada.token}"})
    unread.close()  # before its first event was read
    head = ada.call("HEAD", ADDRESS)
    assert head.status_code == 200
    assert hub.followers == 0


def test_a_follower_holds_no_database_connection(api: Api, ada: Person) -> None:
    followers = [Follower(ada) for _ in range(30)]  # more than the pool has
    with api.app.app_context():
        assert db.engine.pool.checkedout() <= 1  # the poller's, while it reads
    tell(api, "progress", {"epoch": 1})
    assert [follower.next().event for follower in followers] == ["snapshot"] * 30
    assert [follower.next().event for follower in followers] == ["progress"] * 30
    for follower in followers:
        follower.close()


def test_only_members_follow(api: Api, ada: Person) -> None:
    for address in (ADDRESS, "/api/v1/projects/1/events"):
        assert api.person(f"s{len(address)}").call("GET", address).status_code == 404
        assert api.nobody.call("GET", address).status_code == 401


def test_the_snapshots_id_is_the_newest_event_it_was_made_with(api: Api, ada: Person) -> None:
    for epoch in range(3):
        tell(api, "metrics", {"epoch": epoch, "values": {}})
    with api.app.app_context():
        newest = db.session.query(JobEvent).order_by(JobEvent.id.desc()).first()
        assert newest is not None
    follower = Follower(ada)
    assert follower.next().id == newest.id
    follower.close()
