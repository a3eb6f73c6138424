"""A Redis that has just started may have lost its last second: leases, and messages being taken.

A message that comes back so must not begin an attempt that another worker still trains and whose
lease is not there just now. Its worker renews within a second of Redis's return; one that cannot
reach Redis yet pauses its child before a lease time is over.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import redis

from adapters import wire
from adapters.contract import TrainingJob

SETTLING_SECONDS = 2.0  # for an attempt that no file tells of: who took it has only just taken it
REAPER_SECONDS = 10.0  # after a lease time the reaper has concluded what a file tells of
_LOOK_AGAIN_SECONDS = 0.2


def let_others_renew(client: redis.Redis, job: TrainingJob, folder: Path) -> None:
    """Wait until a Redis that has just started is to be trusted about a job's attempt.

    Raises RedisError.
    """
    begun = was_begun(folder / wire.JOURNAL_NAME, job.attempt)
    needed = wire.LEASE_SECONDS + REAPER_SECONDS if begun else SETTLING_SECONDS
    while _uptime_seconds(client) < needed:
        time.sleep(_LOOK_AGAIN_SECONDS)


def was_begun(journal: Path, attempt: int) -> bool:
    """Tell whether a journal has the first event of an attempt."""
    mark = b'"attempt":%d,"seq":1,' % attempt
    try:
        with journal.open("rb") as file:
            return any(mark in line[:100] for line in file)
    except OSError:
        return False


def _uptime_seconds(client: redis.Redis) -> int:
    info: Any = client.info("server")
    return int(info["uptime_in_seconds"])
