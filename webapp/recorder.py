"""`python -m webapp.recorder`: writes what workers report, and reaps what they leave behind.

Outlives any web process. In `celery` mode it reads the event stream as a consumer group; in
`subprocess` mode it trains the queued jobs of this host itself (webapp.services.local_runner).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import redis
from flask import Flask
from sqlalchemy.exc import OperationalError

from adapters import wire
from adapters.contract import ContractError
from adapters.wire import Event
from modelyard.settings import SettingsError, load_settings
from webapp import create_app
from webapp.extensions import db
from webapp.services import exports, preemption
from webapp.services.broker import redis_client
from webapp.services.errors import Unavailable
from webapp.services.executors import refuse_attempt
from webapp.services.job_actions import send_handed_back
from webapp.services.local_runner import LocalRunner, StopFlag
from webapp.services.packing import Packing
from webapp.services.reaper import Reaper
from webapp.services.recorder import record_or_set_aside
from webapp.services.replay import fill_gaps
from webapp.services.tidying import Tidying
from webapp.services.turn import Turn

logger = logging.getLogger(__name__)

BATCH_EVENTS = 1000
BLOCK_MILLISECONDS = 500
REAP_SECONDS = 3.0
EXPORTS_SECONDS = 1.0
PACKING_SECONDS = 1.0
STAND_BY_SECONDS = 1.0
RETRY_SECONDS = 1.0

Entry = tuple[str, dict[str, str]]


class StreamRecorder:
    """Moves events from the Redis stream to the database, and only then acknowledges them.

    Events must be recorded in their order, so of several recorders one has its turn (see
    webapp.services.turn) and the others stand by. Whoever begins its turn first records what was
    read and never acknowledged: by a recorder that died, or by itself before the database failed.
    """

    def __init__(self, stop: StopFlag) -> None:
        self._stop = stop
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._turn = Turn(self._name)
        self._reaper = Reaper()
        self._reap_at = 0.0
        self._exports_at = 0.0
        self._preemption_at = 0.0
        self._packing = Packing()
        self._packing_at = 0.0
        self._tidying = Tidying()
        self._caught_up = False

    def run(self) -> None:
        """Record until asked to stop; waits where Redis or the database is away."""
        while not self._stop.requested:
            try:
                self.step()
            except (redis.RedisError, Unavailable, OperationalError) as error:
                logger.warning("recording waits: %s", str(error).splitlines()[0])
                if not isinstance(error, OperationalError):
                    self._reaper.redis_was_away()
                self._caught_up = False
                db.session.rollback()
                time.sleep(RETRY_SECONDS)
            finally:
                db.session.remove()
        self._turn.give_up()  # first, for what follows may take seconds
        self._packing.stop()
        self._tidying.stop()

    def step(self) -> None:
        """Record what is there, or wait a moment for it; reap now and then."""
        if not self._turn.hold():
            self._stand_by()
            return
        if not self._caught_up:
            self._make_group()
            self._take_over()
            self._caught_up = True
        self._record(self._read(block=BLOCK_MILLISECONDS))
        if time.monotonic() >= self._reap_at:
            self._reap_at = time.monotonic() + REAP_SECONDS
            self._reap()
        if time.monotonic() >= self._exports_at:
            self._exports_at = time.monotonic() + EXPORTS_SECONDS
            exports.follow()
        if time.monotonic() >= self._preemption_at:
            before = time.thread_time()
            preemption.follow()
            pause = preemption.pause_after(time.thread_time() - before)
            self._preemption_at = time.monotonic() + pause
        if time.monotonic() >= self._packing_at:
            self._packing_at = time.monotonic() + PACKING_SECONDS
            self._packing.follow()
        self._tidying.follow()

    def _stand_by(self) -> None:
        self._caught_up = False
        time.sleep(STAND_BY_SECONDS)

    def _reap(self) -> None:
        # An answer that was lost on its way, or an acknowledgement that Redis lost with its last
        # second, is noticed by nobody where the connection is made anew at once.
        self._take_over()
        suspects = self._reaper.suspects()
        # What the suspects said before they fell silent is recorded before they are judged.
        while entries := self._read(block=None):
            self._record(entries)
            if not self._turn.hold():
                return  # prolonged, for these may be many; who has it now judges
        if suspects and not self._turn.hold():
            return  # this process was stopped meanwhile
        self._reaper.follow_workers()
        self._reaper.give_up(suspects)
        self._reaper.send_again()
        self._reaper.repeat_cancels()

    def _make_group(self) -> None:
        try:
            redis_client().xgroup_create(wire.EVENT_STREAM, wire.RECORDER_GROUP, "0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def _take_over(self) -> None:
        """Record, in its order, what was read by whoever and never acknowledged."""
        client: Any = redis_client()
        start = "0-0"
        while True:
            start, entries, *_ = client.xautoclaim(
                wire.EVENT_STREAM, wire.RECORDER_GROUP, self._name, 0,
                start_id=start, count=BATCH_EVENTS,
            )  # fmt: skip
            self._record(entries)
            if start == "0-0":
                return

    def _read(self, *, block: int | None) -> list[Entry]:
        client: Any = redis_client()
        answer = client.xreadgroup(
            wire.RECORDER_GROUP, self._name, {wire.EVENT_STREAM: ">"}, count=BATCH_EVENTS,
            block=block,
        )  # fmt: skip
        if not answer:
            return []
        [(_, entries)] = answer.items() if isinstance(answer, dict) else answer
        return list(entries)

    def _record(self, entries: list[Entry]) -> None:
        if not entries:
            return
        events = [event for id, fields in entries if (event := _parse(id, fields)) is not None]
        recorded = record_or_set_aside(events)
        fill_gaps(recorded)
        for job_id, attempt in recorded.refused:
            refuse_attempt(job_id, attempt)
        for job_id in recorded.handed_back:
            send_handed_back(job_id)
        ids = [id for id, _ in entries]
        pipe = redis_client().pipeline()
        pipe.xack(wire.EVENT_STREAM, wire.RECORDER_GROUP, *ids)
        pipe.xdel(wire.EVENT_STREAM, *ids)
        pipe.execute()


def _parse(id: str, fields: dict[str, str]) -> Event | None:
    try:
        return Event.from_json(fields["event"])
    except (ContractError, KeyError) as error:
        logger.error("stream entry %s is no event and is dropped: %s", id, error)
        return None


def main() -> int:
    try:
        settings = load_settings()
        app = create_app(settings)
    except SettingsError as error:
        sys.stderr.write(f"modelyard recorder: {error}\n")
        return 2
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    stop = StopFlag()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop.request())
    try:
        _run(app, stop, subprocess_mode=settings.execution_mode == "subprocess")
    except SettingsError as error:
        sys.stderr.write(f"modelyard recorder: {error}\n")
        return 2
    return 0


def _run(app: Flask, stop: StopFlag, *, subprocess_mode: bool) -> None:
    with app.app_context():
        run: Callable[[], None] = (
            LocalRunner(stop).run if subprocess_mode else StreamRecorder(stop).run
        )
        run()


if __name__ == "__main__":
    sys.exit(main())
