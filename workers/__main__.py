"""`python -m workers`: one worker, its settings from the environment."""

from __future__ import annotations

import logging
import signal
import sys
from typing import TYPE_CHECKING

import click
import redis

from modelyard.settings import SettingsError, load_settings

if TYPE_CHECKING:
    from workers.runtime import Runtime


def main() -> int:
    # Until Celery has its own handler there is nothing to hand back: end in order.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        settings = load_settings()
        logging.basicConfig(
            level=settings.log_level.upper(),
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        )
        settings.require_redis()
        from workers import runtime, temporary
        from workers.app import app, drain, nodename

        temporary.claim()
        here = runtime.start(settings, on_drain=drain)
    except SettingsError as error:
        click.echo(f"modelyard worker: {error}", err=True)
        return 2
    # Here, not in celeryconfig, which the web process reads too.
    app.conf.broker_transport_options["queue_order_strategy"] = "workers.queue_order:OldestFirst"
    queues = ",".join(here.queues)
    click.echo(f"worker {here.name}: queues {queues}; devices {', '.join(here.devices)}")
    app.worker_main(
        [
            "worker",
            "--pool=threads",
            f"--concurrency={here.slots.size}",
            f"--queues={queues}",
            f"--hostname={nodename(here.name)}",
            f"--loglevel={settings.log_level.upper()}",
            "--without-mingle",
            "--without-gossip",
            # Drained before it was started again: it takes nothing, not even one job.
            *([f"--exclude-queues={queues}"] if _drained(here) else []),
        ]
    )
    return 0


def _drained(here: Runtime) -> bool:
    try:
        return here.presence.is_drained()
    except redis.RedisError:
        return False  # nothing can be taken either; the presence looks again


if __name__ == "__main__":
    sys.exit(main())
