"""`make measure-recovery`: how long it takes until things are as they should be again.

With leases of thirty seconds, as in production, and the quick framework. Prints a line a figure.
"""

from __future__ import annotations

import argparse
import logging
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from adapters import wire
from tests.faults.proxy import Proxy
from tests.faults.site import PLUGIN, Site, ended, gone, kill, site, training
from tests.services import RedisService
from webapp.models import Job
from webapp.services import job_actions
from webapp.services.errors import Unavailable
from webapp.services.job_actions import CancelMode


def until(condition: Callable[[], object], *, what: str, seconds: float = 180) -> float:
    """Return the seconds until a condition holds."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() > begun + seconds:
            raise TimeoutError(f"{what} did not come about within {seconds:g} s")
        time.sleep(0.01)
    return time.monotonic() - begun


def trains(there: Site, job: Job, *, attempt: int) -> bool:
    spans = there.home / "outputs" / wire.job_folder(job.id) / "spans.log"
    return spans.exists() and f"\n{attempt} " in "\n" + spans.read_text()


def killed_worker(there: Site, times: int) -> str:
    """From the SIGKILL of a worker to the first step elsewhere."""
    there.recorder()
    workers = [there.quick_worker(f"w{n}") for n in range(2)]
    found = []
    for n in range(times):
        job = there.job(epochs=1000, step_seconds=0.02)
        there.wait(job, training)
        taken = int(str(job.worker)[1:])
        kill(workers[taken % 2])
        found.append(until(lambda: trains(there, job, attempt=2), what="another attempt"))  # noqa: B023
        job_actions.cancel(job, mode=CancelMode.KILL, actor="measure")
        there.wait(job, ended)
        workers[taken % 2] = there.quick_worker(f"w{taken % 2 + 2 * (n + 1)}")
    return seconds("SIGKILL of a worker to training elsewhere", found)


def restarted_redis(there: Site, away_seconds: float) -> str:
    """From Redis's return to a new job in training."""
    there.recorder()
    there.quick_worker("w0")
    there.redis.kill()
    time.sleep(away_seconds)
    there.redis.start()
    job = there.job(epochs=2, start=False)
    took = until(lambda: _starts(there, job), what="a job in training")
    return seconds(f"Redis back after {away_seconds:g} s to a new job in training", [took])


def swallowed_packets(there: Site, swallowed_seconds: float) -> str:
    """From the end of the swallowing to a new job in training on that worker."""
    there.recorder()
    with Proxy(to_port=there.redis.server.port) as proxy:
        url = there.redis.url.replace(str(there.redis.server.port), str(proxy.port))
        there.quick_worker("w0", REDIS_URL=url)
        proxy.swallow()
        time.sleep(swallowed_seconds)
        proxy.heal()
        job = there.job(epochs=2, start=False)
        took = until(lambda: _starts(there, job), what="a job in training")
    return seconds(f"packets swallowed for {swallowed_seconds:g} s: to a new job", [took])


def _starts(there: Site, job: Job) -> bool:
    if job.status == "pending":
        try:
            job_actions.start(job, actor="measure")
        except Unavailable:
            return False
    return trains(there, job, attempt=1)


def cancels(there: Site, times: int, *, deaf: bool) -> str:
    """From the cancel to the last process of the attempt gone."""
    there.recorder()
    there.quick_worker("w0")
    found = []
    for _ in range(times):
        job = there.job(epochs=10_000, deaf=deaf, loaders=1)
        there.wait(job, training)
        processes = there.children()
        assert len(processes) == 2
        job_actions.cancel(job, mode=CancelMode.NOW, actor="measure")
        found.append(until(lambda: gone(processes), what="the end"))  # noqa: B023
        there.wait(job, ended)
    who = "a child that ignores signals" if deaf else "a training child"
    return seconds(f"cancel of {who} to its processes gone", found)


def seconds(what: str, found: Sequence[float]) -> str:
    if len(found) == 1:
        return f"{what}: {found[0]:.1f} s"
    p99 = sorted(found)[min(len(found) - 1, int(0.99 * len(found)))]
    return (
        f"{what}, {len(found)} times: median {statistics.median(found):.2f} s, "
        f"p99 {p99:.2f} s, worst {max(found):.2f} s"
    )


MEASURES: dict[str, Callable[[Site], str]] = {
    "worker": lambda there: killed_worker(there, 3),
    "redis-1": lambda there: restarted_redis(there, 1),
    "redis-60": lambda there: restarted_redis(there, 60),
    "swallow": lambda there: swallowed_packets(there, 60),
    "cancel": lambda there: cancels(there, 100, deaf=False),
    "deaf": lambda there: cancels(there, 5, deaf=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", nargs="*", choices=[*MEASURES, []], default=[])
    which = parser.parse_args().which or list(MEASURES)
    logging.basicConfig(level=logging.CRITICAL)
    sys.path.insert(0, str(PLUGIN))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for name in which:
        with tempfile.TemporaryDirectory(prefix="modelyard-measure-") as folder:
            redis = RedisService(Path(folder) / "redis")
            redis.start()
            url = f"sqlite:///{folder}/modelyard.db"
            with site(Path(folder), database_url=url, redis=redis, lease_seconds=30) as there:
                print(MEASURES[name](there), flush=True)
            redis.stop()


if __name__ == "__main__":
    main()
