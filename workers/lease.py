"""The expiring right to train an attempt: no lease, no training.

One script acquires and renews, so that a worker gets its lease back after Redis lost it,
unless the attempt was given up meanwhile (its fence was raised) or someone else holds it.
"""

from __future__ import annotations

import uuid

import redis

from adapters import wire
from adapters.contract import TrainingJob

# KEYS: lease, fence. ARGV: attempt, token, milliseconds. Returns 1: held, 0: not to be had.
_HOLD = """
if tonumber(redis.call('GET', KEYS[2]) or '0') > tonumber(ARGV[1]) then return 0 end
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[2] then return 0 end
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


class Lease:
    """The lease of one attempt, as one worker sees it."""

    def __init__(self, client: redis.Redis, job: TrainingJob, *, worker: str) -> None:
        self._keys = [wire.lease_key(job.id), wire.fence_key(job.id)]
        self._attempt = job.attempt
        # Random, because a message delivered twice may reach the same worker twice.
        self._token = f"{job.attempt}:{worker}:{uuid.uuid4().hex}"
        self._hold = client.register_script(_HOLD)
        self._release = client.register_script(_RELEASE)

    def hold(self) -> bool:
        """Acquire or renew; False: another holds it or the attempt is over. Raises RedisError."""
        milliseconds = int(wire.LEASE_SECONDS * 1000)
        return bool(self._hold(keys=self._keys, args=[self._attempt, self._token, milliseconds]))

    def release(self) -> None:
        """Give it back at the attempt's end, where it is still ours. Raises RedisError."""
        arguments: list[int | str] = [self._attempt, self._token, wire.FENCE_TTL_SECONDS]
        self._release(keys=self._keys, args=arguments)
