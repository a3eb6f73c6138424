"""Whose turn it is, of several recorders: one records and reaps, the others stand by.

Recording is one transaction at a time anyway (see event_log.lock_order), so a second recorder
would add no speed; it would break the order of an attempt's events between two readers.
"""

from __future__ import annotations

import logging
import uuid

import redis

from adapters import wire
from webapp.services.broker import redis_client

logger = logging.getLogger(__name__)

TURN_SECONDS = 10.0

# KEYS: turn. ARGV: token, milliseconds. Returns 1: it is ours, for so long. Prolonged without SET,
# which a Redis that is full of events refuses: who is to make room would not be let in.
_HOLD = """
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 1
end
if holder then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

# KEYS: turn. ARGV: token.
_GIVE_UP = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


class Turn:
    """An expiring turn. Two may believe for a moment that it is theirs; what they then do twice
    is idempotent: recording by the sequence numbers, reaping by compare-and-set and the fence.
    """

    def __init__(self, name: str) -> None:
        self._token = f"{name}:{uuid.uuid4().hex}"
        self._held = False

    def hold(self) -> bool:
        """Begin the turn or prolong it; False where another has it. Raises RedisError."""
        script = redis_client().register_script(_HOLD)
        held = bool(
            script(keys=[wire.RECORDER_TURN_KEY], args=[self._token, int(TURN_SECONDS * 1000)])
        )
        if held != self._held:
            logger.info("this recorder %s", "records" if held else "stands by")
        self._held = held
        return held

    def give_up(self) -> None:
        """End the turn at once, so that another need not wait for it to expire."""
        try:
            script = redis_client().register_script(_GIVE_UP)
            script(keys=[wire.RECORDER_TURN_KEY], args=[self._token])
        except redis.RedisError as error:
            logger.warning("the turn will end by itself: %s", error)
