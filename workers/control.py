"""One side thread a worker: renews leases and hears of cancels, fences and revokes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import redis
from celery.worker import state as celery_state

from adapters import wire
from adapters.contract import TrainingJob
from workers.lease import Lease
from workers.leash import lease_clock
from workers.stopping import CANCEL_MODES, Stop, StopRequest

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
STOP_SECONDS = 2.0


@dataclass
class Attempt:
    """An attempt that this worker trains."""

    job: TrainingJob
    task_id: str
    lease: Lease
    renew_at: float  # by the control's clock
    device: str
    stop: StopRequest = field(default_factory=StopRequest)
    publish_again: Callable[[int], None] = field(default=lambda seq: None)  # from this number on
    progress: dict[str, object] = field(default_factory=dict)  # the latest, for onlookers


class Control:
    """Knows the attempts of this worker and asks them to stop when they must.

    Polls, because a message that says 'stop' can be missed, and a key cannot.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        trains_without_redis: bool = False,
        clock: Callable[[], float] = lease_clock,
    ) -> None:
        self._client = client
        self._trains_without_redis = trains_without_redis
        self._clock = clock
        self._attempts: dict[str, Attempt] = {}
        # Reentrant, because a signal handler asks for the attempts, too.
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="control", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(STOP_SECONDS)  # it may wait for a silent Redis

    def add(self, job: TrainingJob, *, task_id: str, lease: Lease, device: str) -> Attempt:
        renew_at = self._clock() + wire.LEASE_RENEWAL_SECONDS
        attempt = Attempt(job, task_id, lease, renew_at, device)
        with self._lock:
            self._attempts[task_id] = attempt
        return attempt

    def remove(self, attempt: Attempt) -> None:
        with self._lock:
            self._attempts.pop(attempt.task_id, None)

    def attempts(self) -> list[Attempt]:
        with self._lock:
            return list(self._attempts.values())

    def find(self, task_id: str) -> Attempt | None:
        with self._lock:
            return self._attempts.get(task_id)

    def shut_down(self) -> None:
        """Ask every attempt for a checkpoint, so that its job can go on elsewhere."""
        for attempt in self.attempts():
            attempt.stop.ask(Stop.SHUTDOWN)

    def hurry(self) -> None:
        """Let no attempt take more time: what trains is killed and handed back."""
        for attempt in self.attempts():
            attempt.stop.hurry()

    def _loop(self) -> None:
        redis_answers = True
        while not self._stopped.wait(POLL_SECONDS):
            try:
                self.poll()
                redis_answers = True
            except redis.RedisError as error:
                # Training goes on to the lease's end; the leash then pauses it.
                if redis_answers:
                    logger.warning("Redis does not answer: %s", error)
                redis_answers = False
                if self._trains_without_redis:
                    for attempt in self.attempts():
                        attempt.lease.go_on()
            except Exception:  # without this thread no lease is renewed any more
                logger.exception("a look at this worker's attempts failed")

    def poll(self) -> None:
        """Look once. Raises RedisError."""
        attempts = self.attempts()
        for attempt in attempts:
            if attempt.task_id in celery_state.revoked:
                attempt.stop.ask(Stop.NOW)
        if not attempts:
            return
        leases = self._client.mget([wire.lease_key(a.job.id) for a in attempts])
        self._renew_due(attempts, leases)
        cancels = self._client.mget([wire.cancel_key(a.job.id) for a in attempts])
        fences = self._client.mget([wire.fence_key(a.job.id) for a in attempts])
        preempts = self._client.mget([wire.preempt_key(a.job.id) for a in attempts])
        replays = self._client.mget([wire.replay_key(a.job.id) for a in attempts])
        keys = (cancels, fences, preempts, replays)
        for attempt, cancel, fence, preempt, replay in zip(attempts, *keys, strict=True):
            self._hear_cancel(attempt, cancel)
            self._hear_preempt(attempt, preempt)
            self._hear_replay(attempt, replay)
            if fence is not None and int(fence) > attempt.job.attempt:
                attempt.stop.ask(Stop.LOST)  # given up, or cancelled just as it was taken

    def _renew_due(self, attempts: list[Attempt], leases: Sequence[bytes | str | None]) -> None:
        """Renew leases in time, and at once what a Redis that restarted has lost."""
        for attempt, lease in zip(attempts, leases, strict=True):
            if self._clock() >= attempt.renew_at or not attempt.lease.is_held(lease):
                try:
                    self._renew(attempt)
                except redis.ResponseError as error:
                    # Redis answers, and refuses this one (it may be full): the others go on.
                    logger.warning("job %s: its lease is not renewed: %s", attempt.job.id, error)

    def _hear_cancel(self, attempt: Attempt, text: bytes | str | None) -> None:
        if text is None:
            return
        number, _, mode = _text(text).partition(":")
        if number == str(attempt.job.attempt) and mode in CANCEL_MODES:
            attempt.stop.ask(CANCEL_MODES[mode])

    def _hear_preempt(self, attempt: Attempt, text: bytes | str | None) -> None:
        if text is None:
            return
        number, _, urgent = _text(text).partition(":")
        if number == str(attempt.job.attempt) and attempt.stop.current is None:
            logger.info("job %s gives its place to job %s", attempt.job.id, urgent)
            attempt.stop.ask(Stop.PREEMPTED)

    def _hear_replay(self, attempt: Attempt, text: bytes | str | None) -> None:
        """Publish again what Redis lost, once for each time that the recorder asks."""
        if text is None:
            return
        number, _, seq = _text(text).partition(":")
        if number == str(attempt.job.attempt):
            self._client.delete(wire.replay_key(attempt.job.id))
            attempt.publish_again(int(seq))

    def _renew(self, attempt: Attempt) -> None:
        if attempt.lease.hold(client=self._client):
            attempt.renew_at = self._clock() + wire.LEASE_RENEWAL_SECONDS
        else:
            logger.error(
                "job %s attempt %s: the lease is lost, its child is killed",
                attempt.job.id, attempt.job.attempt,
            )  # fmt: skip
            attempt.stop.ask(Stop.LOST)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
