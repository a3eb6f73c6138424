"""Celery's consumer, which tries often to reach a broker that is away."""

from __future__ import annotations

import functools
from typing import Any

from celery.worker import consumer

RETRY_SECONDS = 1.0


class Consumer(consumer.Consumer):
    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long it takes; extends celery.worker.consumer.Consumer.

        Celery waits two seconds longer after each try, up to thirty: a Redis that was away for a
        minute would be met half a minute after its return.
        """
        conn.ensure_connection = functools.partial(
            conn.ensure_connection,
            interval_start=RETRY_SECONDS, interval_step=0, interval_max=RETRY_SECONDS,
        )  # fmt: skip
        return super().ensure_connected(conn)
