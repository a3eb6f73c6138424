"""What must hold once everything has calmed down, looked at from outside: database, Redis,
process table, files.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis
import sqlalchemy as sa

from adapters import wire
from tests.faults.site import PLUGIN, Site, processes_of, trains
from tests.services import RedisService, wait_for

ENDED = ("completed", "failed", "cancelled")
CALM_SECONDS = 60  # generous: a worker tells every few seconds that it is free
SILENT_SECONDS = 2 * wire.WORKER_HEARTBEAT_SECONDS
STEP_SLACK_SECONDS = 0.001  # of two clocks' readings


@dataclass
class Findings:
    """What is wrong, by kind."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)  # trained by two at once
    stuck: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)  # missing, doubled or wrong
    leftovers: list[str] = field(default_factory=list)  # leases, slots, stream, log, history

    def counts(self) -> dict[str, int]:
        return {name: len(found) for name, found in vars(self).items()}

    def all(self) -> list[str]:
        return [f"{name}: {text}" for name, found in vars(self).items() for text in found]


class Invariants:
    """Looks at one instance."""

    def __init__(self, home: Path, *, database_url: str, redis: RedisService | None) -> None:
        self._home = home
        self._redis = redis
        self._engine = sa.create_engine(database_url)
        self.found = Findings()

    def check(self, *, accepted: Mapping[int, str] | None = None, idle: bool = True) -> Findings:
        """Look at everything; ``accepted`` are jobs that must be there, with what they must be.

        ``idle``: every job has ended, so nothing may be left that trains one.
        """
        jobs = {job["id"]: job for job in self._rows("SELECT * FROM jobs ORDER BY id")}
        for job_id, status in (accepted or {}).items():
            if job_id not in jobs:
                self.found.lost.append(f"job {job_id} is gone")
            elif status and jobs[job_id]["status"] in ENDED and jobs[job_id]["status"] != status:
                job = jobs[job_id]
                self.found.lost.append(f"job {job_id} {job['status']}: {job['error']}")
        for job in jobs.values():
            self._check_job(job, idle=idle)
        if idle:
            self._check_redis()
            self._check_processes()
        self._engine.dispose()
        return self.found

    def all_ended(self) -> bool:
        return all(job["status"] in ENDED for job in self._rows("SELECT status FROM jobs"))

    def statuses(self) -> dict[str, int]:
        """Return how many jobs there are of each status."""
        return dict(Counter(job["status"] for job in self._rows("SELECT status FROM jobs")))

    def displaced(self) -> int:
        """Return how many attempts gave their place to an urgent job."""
        return len(self._rows("SELECT 1 AS one FROM attempts WHERE outcome = 'preempted'"))

    def _rows(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        with self._engine.connect() as connection:
            rows = connection.execute(sa.text(statement), values).mappings()
            return [dict(row) for row in rows]

    def _check_job(self, job: Mapping[str, Any], *, idle: bool) -> None:
        if idle and job["status"] not in (*ENDED, "pending"):
            self.found.stuck.append(f"job {job['id']} is {job['status']}, attempt {job['attempt']}")
        self._check_spans(job["id"])
        self._check_history(job)
        self._check_log(job["id"])
        if job["status"] == "completed":
            self._check_metrics(job)

    def _check_spans(self, job_id: int) -> None:
        """See that no two processes ever trained the job at the same moment."""
        path = self._home / "outputs" / wire.job_folder(job_id) / "spans.log"
        if not path.exists():
            return
        spans = sorted(_spans(path))
        for (begin, end, who), (next_begin, _, next_who) in itertools.pairwise(spans):
            if who != next_who and next_begin < end - STEP_SLACK_SECONDS:
                self.found.doubled.append(
                    f"job {job_id}: {next_who} trained at {next_begin}, {who} {begin} to {end}"
                )
        order = [who for who, _ in itertools.groupby(who for _, _, who in spans)]
        for who, count in Counter(order).items():
            if count > 1:
                self.found.doubled.append(f"job {job_id}: {who} trained again after another had")

    def _check_metrics(self, job: Mapping[str, Any]) -> None:
        """See each epoch's metrics once, none missing; the quick framework's as if undisturbed."""
        rows = self._rows("SELECT * FROM metrics WHERE job_id = :id", id=job["id"])
        for name in ("top1", "val_loss"):
            epochs = sorted(row["epoch"] for row in rows if row["name"] == name)
            if epochs != list(range(1, job["epochs"] + 1)):
                self.found.metrics.append(f"job {job['id']}: {name} of epochs {epochs}")
        quick = job["framework"] == "quick"
        expected = dict(_expected_top1(job)) if quick else {}
        for row in rows if quick else []:
            if row["name"] == "top1" and row["value"] != expected.get(row["epoch"]):
                self.found.metrics.append(
                    f"job {job['id']} epoch {row['epoch']}: {row['value']}, "
                    f"undisturbed {expected.get(row['epoch'])}"
                )
        told = self._rows(
            "SELECT attempt, data FROM job_events WHERE job_id = :id AND type = 'metrics'",
            id=job["id"],
        )
        counts = Counter((row["attempt"], _json(row["data"])["epoch"]) for row in told)
        doubled = [key for key, count in counts.items() if count > 1]
        if doubled:
            self.found.metrics.append(f"job {job['id']}: told twice (attempt, epoch) {doubled}")

    def _check_history(self, job: Mapping[str, Any]) -> None:
        rows = self._rows(
            "SELECT * FROM status_changes WHERE job_id = :id ORDER BY id", id=job["id"]
        )
        for before, after in itertools.pairwise(rows):
            if after["previous"] != before["status"] or after["attempt"] < before["attempt"]:
                self.found.leftovers.append(f"job {job['id']}: its history jumps at {after}")
        if rows[-1]["status"] != job["status"] or rows[-1]["attempt"] != job["attempt"]:
            self.found.leftovers.append(f"job {job['id']}: {job['status']}, history {rows[-1]}")
        if job["status"] not in ENDED:
            return
        open_attempts = self._rows(
            "SELECT number FROM attempts WHERE job_id = :id AND outcome IS NULL", id=job["id"]
        )
        if open_attempts:
            self.found.leftovers.append(f"job {job['id']}: attempts without an end {open_attempts}")

    def _check_log(self, job_id: int) -> None:
        """See that no piece of an attempt's log is missing or there twice."""
        rows = self._rows(
            "SELECT attempt, log_start, data FROM job_events "
            "WHERE job_id = :id AND type = 'log' ORDER BY attempt, id",
            id=job_id,
        )
        for attempt, pieces in itertools.groupby(rows, key=lambda row: row["attempt"]):
            place = 0
            for piece in pieces:
                if piece["log_start"] != place:
                    self.found.leftovers.append(
                        f"job {job_id} attempt {attempt}: its log jumps from byte {place}"
                    )
                place = piece["log_start"] + len(_json(piece["data"])["text"].encode())

    def _check_redis(self) -> None:
        if self._redis is None:
            return
        with self._redis.client() as client:
            try:
                wait_for(lambda: not _left(client), timeout_seconds=CALM_SECONDS)
            except TimeoutError:
                self.found.leftovers += _left(client)

    def _check_processes(self) -> None:
        for process in processes_of(self._home):
            if trains(process):
                self.found.orphans.append(f"{process.pid} {process.cmdline()}")


def check(there: Site) -> None:
    """Wait until every job of a site has ended, and see that nothing is wrong."""
    looks = Invariants(there.home, database_url=there.database_url, redis=there.redis_or_none)
    wait_for(looks.all_ended, what="the end of every job")
    found = looks.check(accepted=there.expected).all()
    assert found == [], "\n".join(found)  # pytest tells what differs in modules of tests only


def _left(client: redis.Redis) -> list[str]:
    """Return what Redis still has of attempts: leases, events not recorded, slots that are busy."""
    found = [f"{key} is {client.get(key)}" for key in client.scan_iter("modelyard:lease:*")]
    if waiting := client.xlen(wire.EVENT_STREAM):
        found.append(f"{waiting} events are in the stream")
    names: Any = client.zrange(wire.WORKERS_KEY, 0, -1)
    for name in names:
        text = client.get(wire.worker_key(name))
        told = json.loads(str(text)) if text else None
        if told and told["jobs"] and _age_seconds(told) < SILENT_SECONDS:
            jobs = told["jobs"]
            found.append(f"worker {name} is busy with {jobs}")
    return found


def _age_seconds(worker: Mapping[str, Any]) -> float:
    """Return how long ago a worker told of itself; a killed one goes on saying it is busy."""
    return (datetime.now(UTC) - wire.parse_time(worker["last_seen"])).total_seconds()


def _spans(path: Path) -> Iterator[tuple[float, float, str]]:
    """Yield begin, end and 'attempt pid' of each step; of one that was cut off, only its begin."""
    open_steps: dict[str, float] = {}
    for line in path.read_text().splitlines():
        attempt, pid, what, time = line.split()
        who = f"attempt {attempt} process {pid}"
        if what == "b":
            open_steps[who] = float(time)
        elif who in open_steps:
            yield open_steps.pop(who), float(time), who
    for who, begin in open_steps.items():
        yield begin, begin, who


def _expected_top1(job: Mapping[str, Any]) -> Iterator[tuple[int, float]]:
    if str(PLUGIN) not in sys.path:
        sys.path.insert(0, str(PLUGIN))
    from quick_framework import QuickHyperparameters, accuracy, stepped

    steps = QuickHyperparameters(**_json(job["hyperparameters"])).steps
    number = job["seed"]
    for epoch in range(1, job["epochs"] + 1):
        for step in range(1, steps + 1):
            number = stepped(number, epoch=epoch, step=step)
        yield epoch, accuracy(number)


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value
