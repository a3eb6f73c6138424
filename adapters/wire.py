"""The names that the web application and the workers share in Redis, and the shape of events.

modelyard:events            stream: every event of every attempt, field 'event' holds JSON
modelyard:lease:<job>       string '<attempt>:<worker>', expires: the right to train the job
modelyard:fence:<job>       integer: attempts below it may not (go on to) train
modelyard:cancel:<job>      string '<attempt>:<mode>': a person's cancel
modelyard:preempt:<job>     string '<attempt>:<urgent job>': the attempt is to give its place to it
modelyard:replay:<job>      string '<attempt>:<seq>': events from seq on are to be published again
modelyard:recorder          string: the recorder whose turn it is to record and to reap, expires
modelyard:workers           sorted set: worker name by the time it was last seen
modelyard:worker:<name>     string: JSON of what the worker is and does, expires
modelyard:drain:<name>      string: the worker takes no new job
modelyard:ask:<framework>:<kind>  list: requests of a kind (predict, export), JSON with an id
modelyard:asked:<id>        string: the worker that is at the request, expires; renewed meanwhile
modelyard:answer:<id>       list of one: the answer to the request, JSON, expires
modelyard:outputs           string: marks the outputs folder, so that `doctor` sees one not shared
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from adapters.contract import ContractError

TRAIN_TASK = "modelyard.train"  # the Celery name of the one training task

EVENT_STREAM = "modelyard:events"
JOURNAL_NAME = "events.jsonl"  # in the job's output folder: every event, before it is published
RECORDER_GROUP = "recorder"
RECORDER_TURN_KEY = "modelyard:recorder"
WORKERS_KEY = "modelyard:workers"

LEASE_SECONDS = 30.0
LEASE_RENEWAL_SECONDS = 10.0
# A child pauses so long before its lease can end in Redis: whoever starts the next attempt then
# starts it after the pause, whatever the two hosts and the network were busy with.
LEASE_MARGIN_SECONDS = 3.0
# Longer than a second copy of a message waits. What one trains that comes later still, the
# recorder refuses, and raises the fence again.
FENCE_TTL_SECONDS = 7 * 24 * 3600
WORKER_HEARTBEAT_SECONDS = 5.0
WORKER_TTL_SECONDS = 30.0

PRIORITY_STEPS = 10
DEFAULT_PRIORITY = 4
AGE_HEADER = "age"  # of a message, see message_age


def lease_key(job_id: int) -> str:
    return f"modelyard:lease:{job_id}"


def fence_key(job_id: int) -> str:
    return f"modelyard:fence:{job_id}"


def cancel_key(job_id: int) -> str:
    return f"modelyard:cancel:{job_id}"


def preempt_key(job_id: int) -> str:
    return f"modelyard:preempt:{job_id}"


def replay_key(job_id: int) -> str:
    return f"modelyard:replay:{job_id}"


def worker_key(name: str) -> str:
    return f"modelyard:worker:{name}"


def drain_key(name: str) -> str:
    return f"modelyard:drain:{name}"


def queue_name(framework: str) -> str:
    """Return the queue of a framework, as people see it; each framework has exactly one."""
    return framework


def gpu_queue_name(framework: str) -> str:
    """Return where the messages of jobs lie that must have a GPU: workers without one read others.

    A framework's name has no dot, so no framework's own queue is called so.
    """
    return f"{queue_name(framework)}.gpu"


def task_id(job_id: int, attempt: int) -> str:
    """Return the Celery task id of an attempt, so that either side can find the other."""
    return f"job-{job_id}-attempt-{attempt}"


def broker_priority(priority: int) -> int:
    """Translate the API's priority (9 is the most urgent) into Redis's (0 goes first)."""
    return PRIORITY_STEPS - 1 - priority


class AskKind(StrEnum):
    """What the web host asks a worker to do with the model that a job has left."""

    PREDICT = "predict"  # {job, image (base64), threshold} → {prediction}
    EXPORT = "export"  # {job, format} → {artifact, largest_difference, differences}


class ExportFormat(StrEnum):
    """The forms that a model can be exported to."""

    ONNX = "onnx"
    TORCHSCRIPT = "torchscript"


# A request also has {id, kind, expires_at} (seconds since 1970), an answer that is a refusal
# {error: {kind, message, hint}}; INVALID_IMAGE is the kind of one that is the sender's fault.
INVALID_IMAGE = "invalid_image"
MAX_ASKED_IMAGE_BYTES = 20 * 1000 * 1000
ASKED_TTL_SECONDS = 30.0
ANSWER_TTL_SECONDS = {AskKind.PREDICT: 60, AskKind.EXPORT: 24 * 3600}


def ask_key(framework: str, kind: AskKind) -> str:
    return f"modelyard:ask:{framework}:{kind}"


def asked_key(request_id: str) -> str:
    return f"modelyard:asked:{request_id}"


def answer_key(request_id: str) -> str:
    return f"modelyard:answer:{request_id}"


class EventType(StrEnum):
    STARTED = "started"  # {worker, host, device, versions, resumed}
    # {epoch, epochs, step, steps, phase, percent, eta_seconds, images_per_second,
    # device_memory_bytes}
    PROGRESS = "progress"
    METRICS = "metrics"  # {epoch, step, values}
    DECIDED = "decided"  # {name, value, why}: what the adapter chose that the job left open
    LOAD = "load"  # {cpu_percent, memory_bytes, gpu_percent, gpu_memory_bytes} of the child
    LOG = "log"  # {lines}
    ARTIFACT = "artifact"  # {name, kind, path, size, sha256}
    # {outcome, result, error, exit_code, device_held, output_bytes}: the last two are what it has
    # left on its GPUs, in words, and in the job's folder
    FINISHED = "finished"


class Outcome(StrEnum):
    """How an attempt ended, in its FINISHED event."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    HANDED_BACK = "handed_back"  # the worker shut down; the job goes back to its queue
    PREEMPTED = "preempted"  # a more urgent job takes its place; it goes back to its queue


@dataclass(frozen=True)
class Event:
    """Something that happened in an attempt."""

    job_id: int
    attempt: int
    seq: int  # 1, 2, 3, … within the attempt: makes recording idempotent and gaps visible
    type: EventType
    time: datetime  # aware, UTC
    data: Mapping[str, Any]

    def to_json(self) -> str:
        return json.dumps(
            {
                "job_id": self.job_id,
                "attempt": self.attempt,
                "seq": self.seq,
                "type": str(self.type),
                "time": format_time(self.time),
                "data": dict(self.data),
            },
            separators=(",", ":"),
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read an event; what no database takes is replaced in it.

        Raises ContractError where it does not have the agreed form.
        """
        try:
            raw = json.loads(text)
            if _MAY_BE_UNFIT.search(text if isinstance(text, bytes) else text.encode()):
                raw = _fit(raw)
            return cls(
                job_id=int(raw["job_id"]),
                attempt=int(raw["attempt"]),
                seq=int(raw["seq"]),
                type=EventType(raw["type"]),
                time=parse_time(raw["time"]),
                data=dict(raw["data"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ContractError(f"not an event: {error!r} in {text[:200]!r}") from error


# NUL and halves of characters: the latter come from names of files that are not UTF-8.
_UNFIT = re.compile("[\0\ud800-\udfff]")
_MAY_BE_UNFIT = re.compile(rb"\\u(0000|[dD][89a-fA-F])")  # as JSON writes them, and emoji, too


def _fit(value: Any) -> Any:
    """Return what JSON held with the characters replaced that a database refuses."""
    if isinstance(value, str):
        return _UNFIT.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, dict):
        return {_fit(name): _fit(each) for name, each in value.items()}
    return [_fit(each) for each in value] if isinstance(value, list) else value


def format_time(time: datetime) -> str:
    """Return UTC in ISO 8601 with milliseconds and 'Z', the form of every API timestamp."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """Read what :func:`format_time` wrote."""
    return datetime.fromisoformat(text).astimezone(UTC)


def job_folder(job_id: int) -> str:
    """Return a job's folder, relative to the outputs folder of web and worker hosts alike."""
    return f"jobs/{job_id}"


def message_age(queued_at: datetime, job_id: int) -> str:
    """Return a job's age as its message tells it: of two texts the smaller goes first."""
    return f"{round(queued_at.timestamp() * 1_000_000):017d}-{job_id:010d}"


def priority_list(queue: str, step: int) -> str:
    """Return the Redis list of a queue's messages of one broker priority (kombu's naming)."""
    return f"{queue}\x06\x16{step}" if step else queue
