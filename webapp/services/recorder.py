"""Events of attempts written to the database: idempotent, and refused where they are stale.

Whichever way events come (Redis stream, a pipe, HTTP), :func:`record` takes them. An attempt's
sequence numbers tell what was recorded already; a number of an attempt that is over is refused,
and one that comes before its predecessor is left for the replay (webapp.services.replay).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Insert, Table, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from adapters.contract import ErrorKind, TaskType, accuracy_metric
from adapters.wire import Event, EventType, Outcome
from webapp.config import settings
from webapp.extensions import db
from webapp.models import Artifact, Attempt, Job, JobEvent, JobStatus, Metric
from webapp.services import dataset_copies, event_log, load
from webapp.services.lifecycle import transition
from webapp.services.retrying import Failure, Verdict, failure_of, judge

logger = logging.getLogger(__name__)

MAX_LOG_BYTES = 16 * 1024 * 1024  # of one attempt; what a person reads is long past by then

S = JobStatus
Key = tuple[int, int]  # job id and attempt


class Recorded:
    """What a batch asks of the caller, after it is committed."""

    def __init__(self) -> None:
        self.handed_back: list[int] = []  # jobs that are queued again and want an executor
        self.refused: set[Key] = set()  # attempts that train though they are over
        self.gaps: dict[Key, int] = {}  # the first event that is missing, of attempts that lack one

    def add(self, other: Recorded) -> None:
        """Take over what another batch asks for."""
        self.handed_back += other.handed_back
        self.refused |= other.refused
        self.gaps |= other.gaps


def record(events: Sequence[Event]) -> Recorded:
    """Write a batch of events in one transaction and commit."""
    session = db.session()
    event_log.lock_order(session)
    batch = _Batch(session, events)
    for event in events:
        batch.take(event)
    batch.write()
    session.commit()
    return batch.recorded


def record_or_set_aside(events: Sequence[Event]) -> Recorded:
    """Record a batch; an event that cannot be recorded must not hold up the others for ever.

    Raises OperationalError where the database is away.
    """
    try:
        return record(events)
    except OperationalError:
        raise
    except Exception:
        db.session.rollback()
        if len(events) == 1:
            logger.exception("event set aside: %s", events[0].to_json()[:500])
            return _set_aside(events[0])
    recorded = Recorded()
    for event in events:
        recorded.add(record_or_set_aside([event]))
    return recorded


def _set_aside(event: Event) -> Recorded:
    """Count an event as recorded that cannot be, so that those after it can; its file has it."""
    session = db.session()
    event_log.lock_order(session)
    session.execute(
        update(Attempt)
        .where(
            Attempt.job_id == event.job_id,
            Attempt.number == event.attempt,
            Attempt.last_seq == event.seq - 1,
        )
        .values(last_seq=event.seq)
    )
    session.commit()
    return Recorded()


class _Batch:
    """The events of one transaction; what can be written together is written at its end."""

    def __init__(self, session: Session, events: Sequence[Event]) -> None:
        self._session = session
        self.recorded = Recorded()
        ids = {event.job_id for event in events}
        # populate_existing: what the session remembers is older than the lock.
        jobs = session.scalars(
            select(Job).where(Job.id.in_(ids)), execution_options={"populate_existing": True}
        )
        self._jobs = {job.id: job for job in jobs}
        attempts = session.scalars(
            select(Attempt).where(Attempt.job_id.in_(ids)),
            execution_options={"populate_existing": True},
        )
        self._attempts = {(attempt.job_id, attempt.number): attempt for attempt in attempts}
        self._told: list[dict[str, Any] | None] = []  # rows of the event log, in their order
        self._progress: dict[int, int] = {}  # where in them a job's newest progress is
        self._loads: dict[int, int] = {}  # and its newest load
        self._metrics: dict[tuple[int, str, int], dict[str, Any]] = {}
        self._artifacts: dict[tuple[int, str], dict[str, Any]] = {}
        self._handlers: dict[EventType, Callable[[Event, Job, Attempt], None]] = {
            EventType.STARTED: self._started,
            EventType.PROGRESS: self._progressed,
            EventType.METRICS: self._measured,
            EventType.DECIDED: self._decided,
            EventType.LOAD: self._loaded,
            EventType.LOG: self._logged,
            EventType.ARTIFACT: self._kept,
            EventType.FINISHED: self._finished,
        }

    def take(self, event: Event) -> None:
        job = self._jobs.get(event.job_id)
        attempt = self._attempts.get((event.job_id, event.attempt))
        if job is None or attempt is None:
            self._drop(event, job)
            return
        if event.attempt != job.attempt or S(job.status).ended or job.status == S.PENDING:
            # Also where the number is known: an attempt that is over may be trained once more.
            self.recorded.refused.add((event.job_id, event.attempt))
            return
        if event.seq <= attempt.last_seq:
            return  # published twice
        if event.seq > attempt.last_seq + 1:
            # Redis lost what came between. Recorded now, it could never be put in its place.
            self.recorded.gaps.setdefault((event.job_id, event.attempt), attempt.last_seq + 1)
            return
        attempt.last_seq = event.seq
        self._handlers[event.type](event, job, attempt)

    def _drop(self, event: Event, job: Job | None) -> None:
        """Drop an event of a job or attempt that the database does not know (any more).

        Nobody is to train what nobody sees. A job under way is brought to a later attempt by the
        reaper, and the worker is asked again for what is dropped here.
        """
        logger.info("job %s attempt %s is not known: event dropped", event.job_id, event.attempt)
        if job is None or S(job.status).ended or job.status == S.PENDING:
            self.recorded.refused.add((event.job_id, event.attempt))

    def write(self) -> None:
        """Write what was put off."""
        self._session.flush()
        self._write_told()
        _upsert(self._session, Metric, ["job_id", "name", "epoch"], list(self._metrics.values()))
        _upsert(self._session, Artifact, ["job_id", "name"], list(self._artifacts.values()))

    def _started(self, event: Event, job: Job, attempt: Attempt) -> None:
        data = event.data
        attempt.worker = _cut(data["worker"], Attempt.worker)
        attempt.host = _cut(data["host"], Attempt.host)
        attempt.device = _cut(data["device"], Attempt.device)
        attempt.started_at = event.time
        started = self._transition(
            job, to=S.RUNNING, only_from=frozenset({S.QUEUED}),
            actor=f"worker:{attempt.worker}", reason=f"attempt {event.attempt} started",
            time=event.time, worker=attempt.worker, device=attempt.device,
            started_at=job.started_at or event.time,
        )  # fmt: skip
        if not started:
            self.recorded.refused.add((event.job_id, event.attempt))

    def _progressed(self, event: Event, job: Job, attempt: Attempt) -> None:
        job.progress = dict(event.data)
        if job.id in self._progress:
            self._told[self._progress[job.id]] = None
        self._progress[job.id] = len(self._told)
        self._tell(event, job, "progress", event.data)

    def _measured(self, event: Event, job: Job, attempt: Attempt) -> None:
        epoch, told = int(event.data["epoch"]), event.data["values"]
        values = {_cut(name, Metric.name): value for name, value in told.items()}
        for name, value in values.items():
            self._metrics[job.id, name, epoch] = {
                "job_id": job.id,
                "attempt": event.attempt,
                "name": name,
                "epoch": epoch,
                "step": event.data.get("step"),
                "value": value,
                "time": event.time,
            }
        job.latest_metrics = {**(job.latest_metrics or {}), **values}
        if "val_loss" in values:
            job.loss = values["val_loss"]
        self._note_best(job, epoch, values)
        self._tell(event, job, "metrics", {"epoch": epoch, "values": values})

    def _note_best(self, job: Job, epoch: int, values: dict[str, float]) -> None:
        name = accuracy_metric(TaskType(job.task_type), values)
        if name is None:
            return
        if job.best is None or values[name] > job.best["value"]:
            job.best = {"epoch": epoch, "metric": name, "value": values[name]}
            job.accuracy = values[name]

    def _decided(self, event: Event, job: Job, attempt: Attempt) -> None:
        data = event.data
        decision = {"value": data["value"], "why": data["why"]}
        job.decisions = {**(job.decisions or {}), data["name"]: decision}
        self._tell(event, job, "decided", {"name": data["name"], **decision})

    def _loaded(self, event: Event, job: Job, attempt: Attempt) -> None:
        load.keep(
            self._session,
            job_id=job.id,
            attempt=event.attempt,
            time=event.time,
            data=event.data,
        )
        if job.id in self._loads:
            self._told[self._loads[job.id]] = None
        self._loads[job.id] = len(self._told)
        self._tell(event, job, "load", event.data)

    def _logged(self, event: Event, job: Job, attempt: Attempt) -> None:
        text = "".join(f"{line}\n" for line in event.data["lines"])
        if attempt.log_size >= MAX_LOG_BYTES:
            return
        if attempt.log_size + len(text.encode()) > MAX_LOG_BYTES:
            text = f"… the log of this attempt is cut here, at {MAX_LOG_BYTES // 2**20} MiB\n"
            start, attempt.log_size = attempt.log_size, MAX_LOG_BYTES
        else:
            start = attempt.log_size
            attempt.log_size += len(text.encode())
        self._tell(event, job, "log", {"text": text}, log_start=start)

    def _kept(self, event: Event, job: Job, attempt: Attempt) -> None:
        data = event.data
        self._artifacts[job.id, data["name"]] = {
            "job_id": job.id,
            "attempt": event.attempt,
            "name": data["name"],
            "kind": data["kind"],
            "size": data["size"],
            "sha256": data["sha256"],
            "created_at": event.time,
        }
        self._tell(event, job, "artifact", {"name": data["name"], "kind": data["kind"]})

    def _finished(self, event: Event, job: Job, attempt: Attempt) -> None:
        outcome = Outcome(event.data["outcome"])
        error, result = event.data.get("error"), event.data.get("result")
        attempt.ended_at = event.time
        attempt.outcome = str(outcome)
        attempt.exit_code = event.data.get("exit_code")
        job.output_bytes = event.data.get("output_bytes", job.output_bytes)
        held = event.data.get("device_held")
        attempt.reason = error["message"] if error else held
        if error and error["kind"] == ErrorKind.DATASET_COPY:
            dataset_copies.report_damage(self._session, job.dataset_fingerprint)
        if result:
            self._end_curve(job, attempt, epochs=result.get("epochs_completed"))
        if outcome == Outcome.HANDED_BACK and job.status == S.RUNNING:
            self._queue_again(event, job, reason="its worker shut down")
            return
        if outcome == Outcome.PREEMPTED and job.status == S.RUNNING:
            attempt.reason = self._why_displaced(job)
            by = job.displaced_by
            self._queue_again(event, job, reason=attempt.reason, displaced_by=by)
            return
        if outcome == Outcome.FAILED and error and job.status == S.RUNNING:
            verdict = self._judge_failure(job, attempt, error)
            if verdict.retry:
                reason = f"{error['message']}: {verdict.reason}"
                self._queue_again(event, job, reason=reason, lost_attempts=job.lost_attempts + 1)
                return
            if verdict.reason:
                error = {**error, "message": f"{error['message']}; {verdict.reason}"}
        back = outcome in (Outcome.HANDED_BACK, Outcome.PREEMPTED)  # and cancelled meanwhile
        to = S.CANCELLED if back else S(outcome)
        columns: dict[str, Any] = {"completed_at": event.time, "error": error}
        if result:
            columns |= _result_columns(result)
        reason = error["message"] if error else f"attempt {event.attempt} {to}"
        reason = f"{reason}; {held}" if held else reason
        ended = self._transition(
            job, to=to, actor=f"worker:{attempt.worker}", reason=reason,
            time=event.time, **columns,
        )  # fmt: skip
        if not ended:
            logger.error("job %s: cannot go from '%s' to '%s'", job.id, job.status, to)

    def _end_curve(self, job: Job, attempt: Attempt, *, epochs: int | None) -> None:
        """Drop what earlier attempts measured after the epoch that this one has ended at.

        It went on from before, or began anew because its checkpoint was gone: that curve is not
        the one of its model. An attempt that measured nothing changes nothing.
        """
        if epochs is None or attempt.number == 1:
            return
        mine = Metric.job_id == job.id, Metric.attempt == attempt.number
        written = self._session.scalar(select(func.max(Metric.epoch)).where(*mine))
        told = [
            row["epoch"]
            for row in self._metrics.values()
            if (row["job_id"], row["attempt"]) == (job.id, attempt.number)
        ]
        if written is None and not told:
            return
        epochs = max(epochs, written or 0, *told)
        self._metrics = {
            key: row
            for key, row in self._metrics.items()
            if key[0] != job.id or row["epoch"] <= epochs or row["attempt"] == attempt.number
        }
        self._session.execute(
            delete(Metric).where(
                Metric.job_id == job.id,
                Metric.epoch > epochs,
                Metric.attempt < attempt.number,
            )
        )

    def _why_displaced(self, job: Job) -> str:
        urgent = job.displaced_by and self._session.get(Job, job.displaced_by)
        if not urgent:  # cancelled or started meanwhile, too late for the child to hear it
            return "made place for a job that needed it no more"
        return f"gave its place to job {urgent.id} (priority {urgent.priority})"

    def _judge_failure(self, job: Job, attempt: Attempt, error: dict[str, Any]) -> Verdict:
        self._write_told()
        place = self._session.scalar(
            select(JobEvent.data)
            .where(JobEvent.job_id == job.id, event_log.IS_PROGRESS)
            .where(JobEvent.attempt == attempt.number)
        )
        failure = failure_of(error, place)
        attempt.failure = failure.to_json()
        before = self._attempts.get((job.id, attempt.number - 1))
        previous = Failure(**before.failure) if before is not None and before.failure else None
        limit = settings().max_attempts
        return judge(failure, previous=previous, lost=job.lost_attempts + 1, limit=limit)

    def _queue_again(self, event: Event, job: Job, *, reason: str, **columns: Any) -> None:
        queued = self._transition(
            job, to=S.QUEUED, only_from=frozenset({S.RUNNING}), next_attempt=True,
            actor=f"worker:{job.worker}", reason=reason, time=event.time,
            resume=True, worker=None, device=None, **columns,
        )  # fmt: skip
        if queued:
            self.recorded.handed_back.append(job.id)

    def _tell(
        self, event: Event, job: Job, type: str, data: Any, *, log_start: int | None = None
    ) -> None:
        row = {
            "job_id": job.id,
            "project_id": job.project_id,
            "attempt": event.attempt,
            "type": type,
            "time": event.time,
            "data": dict(data),
            "log_start": log_start,
        }
        self._told.append(row)

    def _write_told(self) -> None:
        """Append to the event log what was put off, many rows at once."""
        if self._progress:
            event_log.drop_superseded_progress(self._session, list(self._progress))
        if self._loads:
            event_log.drop_superseded_load(self._session, list(self._loads))
        rows = [row for row in self._told if row is not None]
        if rows:
            self._session.execute(insert(JobEvent), rows)
        self._told, self._progress, self._loads = [], {}, {}

    def _transition(self, job: Job, **change: Any) -> bool:
        """Change a job's status; the event that tells of it comes after those before it."""
        self._session.flush()
        self._write_told()
        done = transition(self._session, job, **change)
        self._session.flush()
        return done


def _cut(text: str, column: Any) -> str:
    """Return a text as long as its column takes: PostgreSQL refuses a longer one."""
    return text[: column.type.length]


def _result_columns(result: dict[str, Any]) -> dict[str, Any]:
    """Return the job's columns that a result fills; a zero is a value, None leaves what is."""
    names = ("accuracy", "loss", "best", "best_model_path")
    return {name: result[name] for name in names if result.get(name) is not None}


def _upsert(session: Session, model: Any, key: list[str], rows: list[dict[str, Any]]) -> None:
    """Insert rows, replacing those that have the same key."""
    if not rows:
        return
    table: Table = model.__table__
    dialect = session.get_bind().dialect.name
    new: Any = (postgresql if dialect == "postgresql" else sqlite).insert(table)
    replaced = {c.name: new.excluded[c.name] for c in table.columns if c.name in rows[0]}
    statement: Insert = new.on_conflict_do_update(
        index_elements=key, set_={name: v for name, v in replaced.items() if name not in key}
    )
    session.execute(statement, rows)
