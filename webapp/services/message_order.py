"""Messages in the order of their jobs' ages, also those that are sent again.

kombu adds a message at the left end of its priority's list, and workers take from the right: the
order of arrival. A job that comes back to the queue is older than its new message, so that is
moved before the messages of younger jobs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import cast

from adapters import wire
from webapp.services.broker import redis_client

# KEYS: list. ARGV: task id, age. Looks from the message on until one is as old, and moves it there.
_PUT_IN_ORDER = """
local mine, younger
local at, size = 0, redis.call('LLEN', KEYS[1])
while at < size do
  for _, item in ipairs(redis.call('LRANGE', KEYS[1], at, at + 9)) do
    local headers = cjson.decode(item).headers
    if headers.id == ARGV[1] then
      mine = item
    elseif mine then
      if (headers.age or '') <= ARGV[2] then at = size break end
      younger = item
    end
  end
  at = at + 10
end
if not younger then return 0 end
redis.call('LREM', KEYS[1], 1, mine)
redis.call('LINSERT', KEYS[1], 'AFTER', younger, mine)
return 1
"""


def put_in_order(queue: str, *, task_id: str, priority: int, age: str) -> None:
    """Move a message that was just sent before those of younger jobs. Raises RedisError."""
    script = redis_client().register_script(_PUT_IN_ORDER)
    script(keys=[_list(queue, priority)], args=[task_id, age])


def forget(queue: str, *, task_id: str, priority: int) -> None:
    """Take a message from a priority that its job no longer has. Raises RedisError."""
    for item in _messages(queue, priority):
        if _id(item) == task_id:
            redis_client().lrem(_list(queue, priority), 1, item)


def task_ids(queue: str, *, priorities: Iterable[int] = range(wire.PRIORITY_STEPS)) -> set[str]:
    """Return the ids of the messages that wait on a queue. Raises RedisError."""
    return {_id(item) for priority in priorities for item in _messages(queue, priority)}


class Sent:
    """Which messages wait, read from the end that workers take from, as far as it is needed.

    It may miss one, where others come or go between two of its reads.
    """

    _READ_AT_ONCE = 100

    def __init__(self) -> None:
        self._known: dict[str, set[str]] = {}  # by list: ids of the messages read
        self._unread: dict[str, int] = {}  # by list: how many messages were not read yet

    def has(self, queue: str, *, task_id: str, priority: int) -> bool:
        """Tell whether a message waited on a queue when that was first asked. Raises RedisError."""
        name = _list(queue, priority)
        known = self._known.setdefault(name, set())
        if name not in self._unread:
            self._unread[name] = redis_client().llen(name)
        while task_id not in known and self._unread[name] > 0:
            last = self._unread[name]
            first = max(0, last - self._READ_AT_ONCE)
            items = cast(list[str], redis_client().lrange(name, first, last - 1))
            known.update(map(_id, items))
            self._unread[name] = first
        return task_id in known


def _messages(queue: str, priority: int) -> list[str]:
    return cast(list[str], redis_client().lrange(_list(queue, priority), 0, -1))


def _id(item: str) -> str:
    return str(json.loads(item)["headers"]["id"])


def _list(queue: str, priority: int) -> str:
    return wire.priority_list(queue, wire.broker_priority(priority))
