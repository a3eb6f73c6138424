"""Events become rows: once each, in order, and never those of an attempt that is over."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from adapters.wire import Event, EventType
from tests.factories import (
    FINISHED,
    STARTED,
    application,
    environment,
    make_events,
    make_job,
    metrics,
    progress,
)
from webapp.extensions import db
from webapp.models import Artifact, Attempt, Job, JobEvent, JobStatus, Metric, StatusChange
from webapp.services import event_log, job_actions
from webapp.services.job_actions import CancelMode
from webapp.services.lifecycle import TRANSITIONS, transition
from webapp.services.recorder import MAX_LOG_BYTES, record


@pytest.fixture
def app(tmp_path: Path, database_url: str) -> Iterator[Flask]:
    with application(environment(tmp_path, database_url=database_url)) as app:
        yield app


def started_job(**fields: object) -> Job:
    job = make_job(**fields)
    job_actions.start(job, actor="test")
    record(make_events(job, (EventType.STARTED, STARTED)))
    return fresh(job)


def fresh(job: Job) -> Job:
    db.session.rollback()
    db.session.refresh(job)
    return job


def told(job: Job) -> list[str]:
    statement = select(JobEvent).where(JobEvent.job_id == job.id).order_by(JobEvent.id)
    return [event.type for event in db.session.scalars(statement)]


def test_a_job_goes_from_pending_to_completed_with_its_history(app: Flask) -> None:
    job = started_job()
    result = {"accuracy": 0.0, "loss": 2.5, "best": None, "best_model_path": "/o/best"}
    record(
        make_events(
            job,
            progress(1),
            metrics(1, top1=0.0, val_loss=2.5),
            (EventType.FINISHED, {**FINISHED, "result": result}),
            first=2,
        )
    )
    job = fresh(job)
    assert job.status == JobStatus.COMPLETED
    assert (job.accuracy, job.loss, job.best_model_path) == (0.0, 2.5, "/o/best")
    assert job.best == {"epoch": 1, "metric": "top1", "value": 0.0}
    assert job.worker == "w1"
    history = [(c.previous, c.status) for c in db.session.scalars(select(StatusChange))]
    assert history == [
        (None, "pending"), ("pending", "queued"), ("queued", "running"), ("running", "completed"),
    ]  # fmt: skip
    assert told(job) == ["status", "status", "status", "progress", "metrics", "status"]
    attempt = db.session.get_one(Attempt, (job.id, 1))
    assert (attempt.outcome, attempt.exit_code, attempt.last_seq) == ("completed", 0, 4)


def test_events_delivered_twice_are_recorded_once(app: Flask) -> None:
    job = started_job()
    log = (EventType.LOG, {"lines": ["one"]})
    events = make_events(job, metrics(1, top1=0.5), log, metrics(2, top1=0.6), first=2)
    record(events)
    record(events)
    record(events[1:] + events)
    assert told(job) == ["status"] * 3 + ["metrics", "log", "metrics"]
    values = [(m.epoch, m.value) for m in db.session.scalars(select(Metric).order_by(Metric.epoch))]
    assert values == [(1, 0.5), (2, 0.6)]


def test_events_of_an_attempt_that_is_over_are_refused(app: Flask) -> None:
    job = started_job()
    late = make_events(job, metrics(1, top1=0.9), (EventType.FINISHED, FINISHED), first=2)
    session = db.session()
    transition(session, job, to=JobStatus.QUEUED, next_attempt=True, actor="reaper", reason="lost")
    session.commit()
    recorded = record(late)
    assert recorded.refused == {(job.id, 1)}
    assert fresh(job).status == JobStatus.QUEUED
    assert db.session.scalar(select(Metric)) is None


def test_an_attempt_that_begins_though_its_job_was_cancelled_is_refused(app: Flask) -> None:
    job = make_job()
    job_actions.start(job, actor="test")
    job_actions.cancel(job, mode=CancelMode.NOW, actor="test")
    recorded = record(make_events(job, (EventType.STARTED, STARTED)))
    assert recorded.refused == {(job.id, 1)}
    assert fresh(job).status == JobStatus.CANCELLED


def test_a_resumed_attempt_that_trains_an_epoch_again_replaces_its_metrics(app: Flask) -> None:
    job = started_job()
    record(make_events(job, metrics(1, top1=0.1), metrics(2, top1=0.2), first=2))
    session = db.session()
    transition(session, job, to=JobStatus.QUEUED, next_attempt=True, actor="reaper", reason="lost")
    session.commit()
    record(make_events(job, (EventType.STARTED, STARTED), metrics(2, top1=0.25)))
    rows = db.session.scalars(select(Metric).order_by(Metric.epoch))
    assert [(m.epoch, m.value, m.attempt) for m in rows] == [(1, 0.1, 1), (2, 0.25, 2)]


def test_only_the_newest_progress_is_kept(app: Flask) -> None:
    job = started_job()
    for seq in range(2, 8):
        record(make_events(job, progress(1, step=seq), first=seq))
    assert told(job).count("progress") == 1
    progressed = fresh(job).progress
    assert progressed is not None
    assert progressed["step"] == 7


def test_a_log_is_found_by_byte_offset_and_has_a_limit(app: Flask) -> None:
    job = started_job()
    big = "x" * (MAX_LOG_BYTES // 2)
    lines = [["에포크"], [big], [big], ["never kept"]]
    record(make_events(job, *((EventType.LOG, {"lines": line}) for line in lines), first=2))
    logs = list(db.session.scalars(select(JobEvent).where(JobEvent.type == "log")))
    assert [log.log_start for log in logs] == [0, 10, 10 + len(big) + 1]
    assert "is cut here" in logs[-1].data["text"]


def test_a_handed_back_job_is_queued_as_its_next_attempt_and_resumes(app: Flask) -> None:
    job = started_job()
    data = {**FINISHED, "outcome": "handed_back"}
    recorded = record(make_events(job, (EventType.FINISHED, data), first=2))
    job = fresh(job)
    assert (job.status, job.attempt, job.resume, job.lost_attempts) == ("queued", 2, True, 0)
    assert recorded.handed_back == [job.id]


@pytest.mark.parametrize("outcome", ["cancelled", "handed_back"])
def test_a_cancelling_job_is_cancelled_however_its_worker_let_go(app: Flask, outcome: str) -> None:
    job = started_job()
    job_actions.cancel(job, mode=CancelMode.NOW, actor="test")
    assert job.status == JobStatus.CANCELLING
    record(make_events(job, (EventType.FINISHED, {**FINISHED, "outcome": outcome}), first=2))
    assert fresh(job).status == JobStatus.CANCELLED


def test_an_artifact_written_again_is_one_row_with_the_newest_checksum(app: Flask) -> None:
    job = started_job()
    kept = {"name": "checkpoints/last.pth", "kind": "checkpoint", "size": 1, "sha256": "a" * 64}
    again = {**kept, "size": 2, "sha256": "b" * 64}
    record(make_events(job, (EventType.ARTIFACT, kept), (EventType.ARTIFACT, again), first=2))
    [artifact] = db.session.scalars(select(Artifact))
    assert (artifact.size, artifact.sha256) == (2, "b" * 64)


def test_events_of_a_deleted_job_are_dropped(app: Flask) -> None:
    job = started_job()
    events = make_events(job, metrics(1, top1=0.5), first=2)
    db.session.delete(job)
    db.session.commit()
    record(events)
    assert db.session.scalar(select(Metric)) is None


def test_of_many_starts_at_once_exactly_one_wins(app: Flask) -> None:
    job_id = make_job().id
    barrier = threading.Barrier(6)
    won: list[bool] = []

    def start() -> None:
        with app.app_context():
            job = db.session.get_one(Job, job_id)
            barrier.wait()
            try:
                job_actions.start(job, actor="test")
                won.append(True)
            except job_actions.Refused:
                won.append(False)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 5 + [True]
    job = fresh(db.session.get_one(Job, job_id))
    assert (job.status, job.attempt) == ("queued", 1)


def test_no_change_that_the_table_does_not_allow_is_made(app: Flask) -> None:
    session = db.session()
    for source in JobStatus:
        for target in JobStatus:
            job = make_job(status=source)
            done = transition(session, job, to=target, actor="test", reason="try")
            session.commit()
            assert done == (target in TRANSITIONS[source]), (source, target)
            assert fresh(job).status == (target if done else source)


@pytest.mark.parametrize("text", ["a\0b.png", "caf\udce9.png"], ids=["NUL", "not UTF-8"])
def test_an_end_in_characters_that_no_database_takes_is_recorded(app: Flask, text: str) -> None:
    job = started_job()
    error = {"kind": "dataset_invalid", "message": f"{text} is cut short", "hint": text}
    finished = (EventType.FINISHED, {**FINISHED, "outcome": "failed", "error": error})
    record([Event.from_json(e.to_json()) for e in make_events(job, finished, first=2)])
    assert fresh(job).status == JobStatus.FAILED
    assert job.error is not None
    assert job.error["message"].endswith(".png is cut short")


def test_names_longer_than_the_database_takes_are_cut(app: Flask) -> None:
    job = make_job()
    job_actions.start(job, actor="test")
    device = "cuda:0,1,2,3 " + ", ".join(
        f"1 × NVIDIA GeForce RTX {n}090 Ti SUPER" for n in range(4)
    )
    started = (EventType.STARTED, {**STARTED, "device": device})
    record(make_events(job, started, metrics(1, **{"f1/" + "x" * 200: 0.5, "top1": 0.25})))
    assert (fresh(job).status, job.device) == (JobStatus.RUNNING, device[:100])
    names = db.session.scalars(select(Metric.name).order_by(Metric.name))
    assert list(names) == ["f1/" + "x" * 97, "top1"]


def test_who_is_stopped_while_all_wait_for_it_is_waited_for_no_longer(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with application(environment(tmp_path, database_url=postgres_url)):
        job = make_job()
        with Session(db.engine) as stopped:
            with monkeypatch.context() as patch:  # for this one only: who waits may be slow
                patch.setattr(event_log, "FROZEN_SECONDS", 1)
                event_log.lock_order(stopped)
            job_actions.start(job, actor="test")
            assert fresh(job).status == JobStatus.QUEUED
            with pytest.raises(OperationalError, match="idle-in-transaction"):
                event_log.lock_order(stopped)


def test_a_database_host_that_is_gone_without_a_word_is_given_up(
    tmp_path: Path, postgres_url: str
) -> None:
    with (
        application(environment(tmp_path, database_url=postgres_url)),
        db.engine.connect() as connection,
    ):
        descriptor = connection.connection.driver_connection.fileno()  # type: ignore[union-attr]
        with socket.socket(fileno=os.dup(descriptor)) as tcp:
            assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 25_000
            assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10


def test_a_change_meant_for_an_older_attempt_is_refused(app: Flask) -> None:
    job = started_job()
    session = db.session()
    done = transition(session, job, to=JobStatus.COMPLETED, attempt=0, actor="test", reason="stale")
    assert not done
    assert fresh(job).status == JobStatus.RUNNING


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    ("outcome", "ended_at", "kept"),
    [
        ("completed", 3, [1, 2, 3]),  # early stopping, say
        ("handed_back", 2, [1, 2]),
        ("completed", 4, [1, 2, 3, 4]),
    ],
)
def test_a_curve_ends_where_the_attempt_did_that_went_on_from_before(
    app: Flask, outcome: str, ended_at: int, kept: list[int], at_once: bool
) -> None:
    """The first attempt told four epochs; the second found no checkpoint and began anew."""
    job, other = started_job(), started_job()
    handed_back = (EventType.FINISHED, {**FINISHED, "outcome": "handed_back"})
    record(make_events(job, *[metrics(n, top1=0.1) for n in range(1, 5)], handed_back, first=2))
    record(make_events(other, *[metrics(n, top1=0.1) for n in range(1, 5)], handed_back, first=2))
    result = {"epochs_completed": ended_at, "accuracy": 0.2}
    events = make_events(
        fresh(job),
        (EventType.STARTED, STARTED),
        *[metrics(n, top1=0.2) for n in range(1, ended_at + 1)],
        (EventType.FINISHED, {**FINISHED, "outcome": outcome, "result": result}),
    )
    for batch in [events] if at_once else [[event] for event in events]:
        record(batch)
    found = select(Metric.job_id, Metric.epoch, Metric.value).order_by(Metric.epoch)
    rows = [tuple(row) for row in db.session.execute(found)]
    assert [row[1:] for row in rows if row[0] == job.id] == [(epoch, 0.2) for epoch in kept]
    assert [row[1:] for row in rows if row[0] == other.id] == [(n, 0.1) for n in range(1, 5)]


def test_an_attempt_that_measured_nothing_leaves_the_curve_as_it_is(app: Flask) -> None:
    """Stopped while it fetches weights, say, it may tell of no epochs where others told some."""
    job = started_job()
    handed_back = (EventType.FINISHED, {**FINISHED, "outcome": "handed_back"})
    record(make_events(job, metrics(1, top1=0.1), metrics(2, top1=0.2), handed_back, first=2))
    stopped = {**FINISHED, "outcome": "handed_back", "result": {"epochs_completed": 0}}
    record(make_events(fresh(job), (EventType.STARTED, STARTED), (EventType.FINISHED, stopped)))
    epochs = db.session.scalars(select(Metric.epoch).order_by(Metric.epoch))
    assert list(epochs) == [1, 2]
