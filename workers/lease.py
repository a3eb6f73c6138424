"""The expiring right to train an attempt: no lease, no training, and no word in the stream.

One script acquires and renews, so that a worker gets its lease back after Redis lost it,
unless the attempt was given up meanwhile (its fence was raised) or someone else holds it.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Sequence

import redis

from adapters import wire
from adapters.contract import TrainingJob
from workers.leash import lease_clock

ACQUIRE_SECONDS = 10.0
_LOOK_AGAIN_SECONDS = 0.2

# KEYS: lease, fence. ARGV: attempt, token, milliseconds. Returns 1: held, 0: not to be had,
# -1: an earlier attempt's worker still has it. Renewed without SET, which a full Redis refuses.
_HOLD = """
if tonumber(redis.call('GET', KEYS[2]) or '0') > tonumber(ARGV[1]) then return 0 end
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[2] then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return 1
end
if holder then
  if tonumber(string.match(holder, '^%d+') or '0') < tonumber(ARGV[1]) then return -1 end
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""

# KEYS: lease, fence. ARGV: attempt, token, seconds. The attempt is over: a second copy of its
# message, however late, finds the fence raised.
_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[1])
local over = tonumber(ARGV[1]) + 1
if tonumber(redis.call('GET', KEYS[2]) or '0') < over then
  redis.call('SET', KEYS[2], over, 'EX', ARGV[3])
end
return 1
"""

# KEYS: lease, stream. ARGV: token, event, event, … Returns 1: published, 0: not ours to speak.
_PUBLISH = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for i = 2, #ARGV do redis.call('XADD', KEYS[2], '*', 'event', ARGV[i]) end
return 1
"""


class Lease:
    """The lease of one attempt, as one worker sees it."""

    def __init__(
        self,
        client: redis.Redis,
        job: TrainingJob,
        *,
        worker: str,
        clock: Callable[[], float] = lease_clock,
    ) -> None:
        lease, fence = wire.lease_key(job.id), wire.fence_key(job.id)
        self._keys = [lease, fence]
        self._publish_keys = [lease, wire.EVENT_STREAM]
        self._attempt = job.attempt
        # Random, because a message delivered twice may reach the same worker twice.
        self._token = f"{job.attempt}:{worker}:{uuid.uuid4().hex}"
        self._clock = clock
        self._hold = client.register_script(_HOLD)
        self._release = client.register_script(_RELEASE)
        self._publish = client.register_script(_PUBLISH)
        self.until = -math.inf  # by the clock: it is certainly ours until then

    def hold(self, *, client: redis.Redis | None = None) -> bool:
        """Acquire or renew; False: another holds it or the attempt is over. Raises RedisError."""
        return self._try(client) == 1

    def acquire(self) -> bool:
        """Acquire; waits for an earlier attempt's worker, which has ended it and lets go soon."""
        deadline = self._clock() + ACQUIRE_SECONDS
        while (answer := self._try(None)) < 0 and self._clock() < deadline:
            time.sleep(_LOOK_AGAIN_SECONDS)
        return answer == 1

    def _try(self, client: redis.Redis | None) -> int:
        asked = self._clock()  # Redis counts from later, so it ends there later than here
        milliseconds = int(wire.LEASE_SECONDS * 1000)
        arguments: list[int | str] = [self._attempt, self._token, milliseconds]
        answer = int(self._hold(keys=self._keys, args=arguments, client=client))
        if answer == 1:
            self.until = asked + wire.LEASE_SECONDS - wire.LEASE_MARGIN_SECONDS
        return answer

    def is_held(self, value: bytes | str | None) -> bool:
        """Tell whether this is what Redis has for the lease while it is ours."""
        return value in (self._token, self._token.encode())

    def go_on(self) -> None:
        """Let the child train another lease time without Redis; see MODELYARD_REDIS_AWAY."""
        self.until = self._clock() + wire.LEASE_SECONDS - wire.LEASE_MARGIN_SECONDS

    def publish(self, events: Sequence[bytes]) -> bool:
        """Append to the event stream; False where the lease is not (yet again) ours.

        Raises RedisError.
        """
        return bool(self._publish(keys=self._publish_keys, args=[self._token, *events]))

    def release(self) -> None:
        """Give it back at the attempt's end, where it is still ours. Raises RedisError."""
        arguments: list[int | str] = [self._attempt, self._token, wire.FENCE_TTL_SECONDS]
        self._release(keys=self._keys, args=arguments)
