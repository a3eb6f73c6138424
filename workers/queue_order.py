"""Of several queues the one whose next message is the oldest comes first.

kombu asks for all queues at once, by priority and then in the order in which it knows them: of
two jobs as urgent as each other it would always take that of the first queue, and a host with a
GPU might never come to those that need one.
"""

from __future__ import annotations

import logging
from typing import Any

import redis
from kombu.utils.scheduling import priority_cycle

from adapters import wire
from modelyard.settings import SettingsError
from workers import runtime

logger = logging.getLogger(__name__)

# KEYS: the queues' lists, by priority and then in the queues' order. ARGV: how many queues.
# Returns the ages of the next messages of the first priority that has any; '-' of an empty list.
_AGES = """
local queues = tonumber(ARGV[1])
for first = 1, #KEYS, queues do
  local ages, found = {}, false
  for i = 0, queues - 1 do
    local item = redis.call('LINDEX', KEYS[first + i], -1)
    found = found or item
    ages[i + 1] = item and (cjson.decode(item).headers.age or '') or '-'
  end
  if found then return ages end
end
return {}
"""


class OldestFirst(priority_cycle):
    """The order in which a worker's channel asks for messages; see kombu.utils.scheduling."""

    def consume(self, n: int) -> list[str]:
        """Return n queues, that with the oldest message of the most urgent first."""
        queues: list[str] = super().consume(n)
        if len(queues) < 2:
            return queues
        try:
            ages = next_ages(runtime.current().peek, queues)
        except (redis.RedisError, SettingsError) as error:
            logger.debug("queues in the order in which they are known: %s", error)
            return queues
        return sorted(queues, key=lambda queue: (queue not in ages, ages.get(queue, "")))


def next_ages(client: redis.Redis, queues: list[str]) -> dict[str, str]:
    """Return the ages of the messages that are next, of queues with one of the most urgent.

    Raises RedisError.
    """
    keys = [wire.priority_list(q, step) for step in range(wire.PRIORITY_STEPS) for q in queues]
    answer: Any = client.register_script(_AGES)(keys=keys, args=[len(queues)])
    ages = [age.decode() if isinstance(age, bytes) else str(age) for age in answer]
    return {queue: age for queue, age in zip(queues, ages, strict=False) if age != "-"}
