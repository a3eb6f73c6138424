"""Random walks of two web processes, a recorder and a reaper over one job's life.

Each actor acts on what it last saw of the job, however old that is, as processes do. Now and
then two of them act at the same moment. Whatever they do, the history is one unbroken walk
through the table of transitions, and no attempt begins or ends twice.
"""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, select

from adapters.wire import Event, EventType
from tests.factories import FINISHED, STARTED, TIME, application, environment, make_job, metrics
from webapp.extensions import db
from webapp.models import Attempt, Job, JobEvent, JobStatus, StatusChange
from webapp.services import job_actions
from webapp.services.errors import Refused
from webapp.services.job_actions import CancelMode
from webapp.services.lifecycle import TRANSITIONS, transition
from webapp.services.preemption import decide
from webapp.services.reaper import give_up_attempt
from webapp.services.recorder import record

WEBS = ("web 1", "web 2")
OUTCOMES = ("completed", "failed", "cancelled", "handed_back", "preempted")
ACTIONS = st.sampled_from(["start", "resume", "cancel", "record", "reap", "displace"])
WORKER = {
    "name": STARTED["worker"], "frameworks": ["timm"], "gpu": [], "slots": 1, "status": "online",
}  # fmt: skip


class Walk(RuleBasedStateMachine):
    """The subclass of each database brings the application."""

    app: Flask

    def __init__(self) -> None:
        super().__init__()
        self.sent: dict[int, int] = {}  # by attempt: the last sequence number its worker used

    @initialize()
    def create(self) -> None:
        with self.app.app_context():
            db.session.execute(delete(Job))  # of the walk before
            db.session.commit()
            self.job_id = make_job().id
            urgent = make_job(priority=9, preempt=True)
            job_actions.start(urgent, actor="test")
            self.urgent_id = urgent.id
            self.seen = dict.fromkeys((*WEBS, "reaper"), self._look())

    def _look(self) -> tuple[str, int]:
        job = db.session.get_one(Job, self.job_id, populate_existing=True)
        return job.status, job.attempt

    def _as_seen(self, actor: str) -> Job:
        """Return the job as an actor remembers it, whatever it has become."""
        job = db.session.get_one(Job, self.job_id, populate_existing=True)
        db.session.expunge(job)
        status, attempt = self.seen[actor]
        stale = db.session.merge(job, load=False)
        for name, value in (("status", status), ("attempt", attempt)):
            stale.__dict__[name] = value
        return stale

    # What an actor does, in a thread's own context.

    def _start(self, web: str) -> None:
        self._ask(lambda: job_actions.start(self._as_seen(web), actor=web))

    def _resume(self, web: str) -> None:
        self._ask(lambda: job_actions.resume(self._as_seen(web), actor=web))

    def _cancel(self, web: str, mode: CancelMode = CancelMode.NOW) -> None:
        self._ask(lambda: job_actions.cancel(self._as_seen(web), mode=mode, actor=web))

    def _ask(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Refused:
            db.session.rollback()

    def _record(self, attempt: int, *steps: tuple[EventType, dict[str, Any]]) -> None:
        first = self.sent.get(attempt, 0) + 1
        record(
            [
                Event(self.job_id, attempt, first + i, kind, TIME, data)
                for i, (kind, data) in enumerate(steps)
            ]
        )
        self.sent[attempt] = first + len(steps) - 1

    def _reap(self) -> None:
        status, attempt = self.seen["reaper"]
        if status not in (JobStatus.RUNNING, JobStatus.CANCELLING):
            return
        job = db.session.get_one(Job, self.job_id, populate_existing=True)
        if job.attempt == attempt:  # as Reaper.give_up looks
            give_up_attempt(job, reason="lost")

    def _displace(self) -> None:
        """Look, as the recorder does, whether the urgent job needs this one's place."""
        decide([WORKER], is_sent=lambda job: True)

    # Rules.

    @rule(actor=st.sampled_from([*WEBS, "reaper"]))
    def look(self, actor: str) -> None:
        with self.app.app_context():
            self.seen[actor] = self._look()

    @rule(web=st.sampled_from(WEBS))
    def start(self, web: str) -> None:
        with self.app.app_context():
            self._start(web)

    @rule(web=st.sampled_from(WEBS))
    def resume(self, web: str) -> None:
        with self.app.app_context():
            self._resume(web)

    @rule(web=st.sampled_from(WEBS), mode=st.sampled_from(list(CancelMode)))
    def cancel(self, web: str, mode: CancelMode) -> None:
        with self.app.app_context():
            self._cancel(web, mode)

    @rule()
    def bring_it_to_work(self) -> None:
        """A web process that has just looked starts or resumes it, and a worker begins."""
        with self.app.app_context():
            self.seen["web 1"] = status, _ = self._look()
            (self._start if status == JobStatus.PENDING else self._resume)("web 1")
            status, attempt = self._look()
            if status == JobStatus.QUEUED and attempt not in self.sent:
                self._record(attempt, (EventType.STARTED, STARTED))

    @rule(back=st.integers(0, 1))
    def begin_attempt(self, back: int) -> None:
        """A worker begins the present attempt, or one that is over."""
        with self.app.app_context():
            attempt = self._look()[1] - back
            if attempt > 0 and attempt not in self.sent:
                self._record(attempt, (EventType.STARTED, STARTED))

    @rule(back=st.integers(0, 1), outcome=st.sampled_from(OUTCOMES))
    def end_attempt(self, back: int, outcome: str) -> None:
        self._end(outcome, back=back)

    def _end(self, outcome: str, *, back: int) -> None:
        with self.app.app_context():
            attempt = self._look()[1] - back
            if attempt in self.sent:
                error = {"kind": "child_died", "message": "killed", "hint": ""}
                data = {
                    **FINISHED,
                    "outcome": outcome,
                    "error": error if outcome == "failed" else None,
                }
                self._record(attempt, metrics(1, top1=0.5), (EventType.FINISHED, data))

    @rule()
    def reap(self) -> None:
        with self.app.app_context():
            self._reap()

    @rule(outcome=st.sampled_from([None, *OUTCOMES]))
    def displace(self, outcome: str | None) -> None:
        """Bring it to work, and it may be asked for its place; perhaps it ends somehow then."""
        self.bring_it_to_work()
        with self.app.app_context():
            self._displace()
        if outcome is not None:
            self._end(outcome, back=0)

    @rule()
    def cancel_or_resume_the_urgent_job(self) -> None:
        with self.app.app_context():
            urgent = db.session.get_one(Job, self.urgent_id, populate_existing=True)
            if urgent.status == JobStatus.QUEUED:
                job_actions.cancel(urgent, mode=CancelMode.NOW, actor="test")
            else:
                job_actions.resume(urgent, actor="test")

    @rule(to=st.sampled_from(list(JobStatus)), back=st.integers(-1, 1))
    def try_what_is_impossible(self, to: JobStatus, back: int) -> None:
        """Ask the one function for a change that the table or the attempt forbids."""
        with self.app.app_context():
            status, attempt = self._look()
            if to in TRANSITIONS[JobStatus(status)] and back == 0:
                return  # possible, and walked by the other rules
            session = db.session()
            job = db.session.get_one(Job, self.job_id)
            done = transition(
                session, job, to=to, attempt=attempt - back, actor="test", reason="try"
            )
            session.commit()
            assert not done
            assert self._look() == (status, attempt)

    @rule(first=ACTIONS, second=ACTIONS)
    def at_once(self, first: str, second: str) -> None:
        """Two actors act at the same moment."""
        with self.app.app_context():
            attempt = self._look()[1]
        seq = self.sent.get(attempt, 0)
        if "record" in (first, second) and seq == 0:
            return
        barrier = threading.Barrier(2)
        failed: list[BaseException] = []

        def act(what: str, web: str) -> None:
            with self.app.app_context():
                barrier.wait()
                try:
                    if what == "record":
                        data = Event(
                            self.job_id, attempt, seq + 1, EventType.FINISHED, TIME, FINISHED
                        )
                        record([data])
                        self.sent[attempt] = seq + 1
                    elif what == "reap":
                        self._reap()
                    elif what == "displace":
                        self._displace()
                    else:
                        getattr(self, f"_{what}")(web)
                except BaseException as error:
                    failed.append(error)
                finally:
                    db.session.remove()

        threads = [
            threading.Thread(target=act, args=pair)
            for pair in zip((first, second), WEBS, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []

    # What always holds.

    @invariant()
    def the_history_is_one_walk_through_the_table(self) -> None:
        with self.app.app_context():
            job = db.session.get_one(Job, self.job_id, populate_existing=True)
            rows = list(
                db.session.scalars(
                    select(StatusChange).filter_by(job_id=self.job_id).order_by(StatusChange.id)
                )
            )
            for before, after in itertools.pairwise(rows):
                assert after.previous == before.status
                assert JobStatus(after.status) in TRANSITIONS[JobStatus(before.status)]
                begins = after.status == JobStatus.QUEUED
                assert after.attempt == before.attempt + begins
            assert (rows[-1].status, rows[-1].attempt) == (job.status, job.attempt)
            told = select(JobEvent).filter_by(job_id=self.job_id, type="status")
            events = db.session.scalars(told.order_by(JobEvent.id))
            # One that repeats its status only lets browsers look again at who makes place for whom.
            changes = [
                event.data for event in events if event.data["status"] != event.data["previous"]
            ]
            assert [change["status"] for change in changes] == [row.status for row in rows]

    @invariant()
    def it_makes_place_only_while_it_runs_or_waits_for_having_made_it(self) -> None:
        with self.app.app_context():
            job = db.session.get_one(Job, self.job_id, populate_existing=True)
            if job.displaced_by is None:
                return
            assert job.displaced_by == self.urgent_id
            assert job.status in (JobStatus.RUNNING, JobStatus.QUEUED)
            if job.status == JobStatus.QUEUED:
                rows = select(StatusChange).filter_by(job_id=self.job_id)
                last = db.session.scalars(rows.order_by(StatusChange.id.desc())).first()
                assert last is not None
                assert last.reason == f"gave its place to job {self.urgent_id} (priority 9)"

    @invariant()
    def each_attempt_is_there_once_and_only_the_present_one_is_open(self) -> None:
        with self.app.app_context():
            job = db.session.get_one(Job, self.job_id, populate_existing=True)
            rows = db.session.scalars(
                select(Attempt).filter_by(job_id=self.job_id).order_by(Attempt.number)
            )
            attempts = list(rows)
            assert [attempt.number for attempt in attempts] == list(range(1, job.attempt + 1))
            open_ones = [attempt.number for attempt in attempts if attempt.outcome is None]
            assert open_ones in ([], [job.attempt])
            if JobStatus(job.status).ended:
                assert open_ones == []


@pytest.fixture
def app(database_url: str) -> Iterator[Flask]:
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        yield stack.enter_context(application(environment(home, database_url=database_url)))


def test_no_interleaving_breaks_a_jobs_life(app: Flask) -> None:
    machine = type("Machine", (Walk,), {"app": app})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
