"""Who gives its place to whom: a decision on what is queued, what runs and where."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from tests.factories import TIME
from webapp.models import Job
from webapp.services.preemption import ABOUT_TO_END_SECONDS, EVERY_SECONDS, choose, pause_after


def queued(id: int, *, priority: int = 9, preempt: bool = True, **fields: Any) -> Job:
    return job(id, priority=priority, preempt=preempt, status="queued", **fields)


def running(id: int, *, priority: int, worker: str = "w1", **fields: Any) -> Job:
    return job(id, priority=priority, worker=worker, **{"status": "running", **fields})


def job(id: int, **fields: Any) -> Job:
    """Return a job that is the older the smaller its number."""
    values = {
        "queue": "timm", "framework": "timm", "model_name": "resnet18", "device_choice": "auto",
        "attempt": 1, "preempt": False, "queued_at": TIME + timedelta(seconds=id),
    }  # fmt: skip
    return Job(id=id, **{**values, **fields})


def worker(name: str = "w1", *, slots: int = 1, **fields: Any) -> dict[str, Any]:
    values = {"frameworks": ["timm"], "gpu": [], "models": {}, "status": "online"}
    return {"name": name, "slots": slots, **values, **fields}


def pairs(
    waiting: list[Job],
    at_work: list[Job],
    *workers: dict[str, Any],
    left: dict[int, float] | None = None,
    not_sent: tuple[int, ...] = (),
) -> list[tuple[int, int]]:
    waiting = sorted(waiting, key=lambda j: (-j.priority, j.queued_at))
    chosen = choose(
        waiting,
        at_work,
        list(workers) or [worker()],
        left=left or {},
        is_sent=lambda j: j.id not in not_sent,
    )
    return [(given.id, urgent.id) for given, urgent in chosen]


def test_the_least_urgent_job_gives_its_place_and_of_equals_the_youngest() -> None:
    at_work = [running(i, priority=p) for i, p in ((1, 3), (2, 2), (3, 2), (4, 5))]
    assert pairs([queued(9)], at_work, worker(slots=4)) == [(3, 9)]


@pytest.mark.parametrize("priority", [8, 9])
def test_a_job_as_urgent_keeps_its_place(priority: int) -> None:
    assert pairs([queued(9, priority=8)], [running(1, priority=priority)]) == []


def test_nobody_gives_a_place_while_a_slot_is_free() -> None:
    assert pairs([queued(9)], [running(1, priority=1)], worker(slots=2)) == []
    assert pairs([queued(9)], [running(1, priority=1)], worker(), worker("w2")) == []


def test_a_slot_on_a_gpu_that_somebody_else_has_is_not_free() -> None:
    assert pairs([queued(9)], [running(1, priority=1)], worker(slots=2, held=1)) == [(1, 9)]


def test_a_job_that_does_not_preempt_waits() -> None:
    assert pairs([queued(9, preempt=False)], [running(1, priority=1)]) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"frameworks": ["ultralytics"]},
        {"status": "draining"},
        {"models": {"timm": {"missing": ["resnet18"]}}},
    ],
)
def test_only_a_worker_that_can_take_it_counts(fields: dict[str, Any]) -> None:
    at_work = [running(1, priority=1), running(2, priority=3, worker="w2")]
    assert pairs([queued(9)], at_work, worker(**fields), worker("w2")) == [(2, 9)]


def test_a_job_that_needs_a_gpu_takes_the_place_of_one_on_a_gpu() -> None:
    at_work = [running(1, priority=1), running(2, priority=3, worker="gpu1")]
    workers = worker(), worker("gpu1", gpu=[{"name": "A100"}])
    assert pairs([queued(9, device_choice="gpu")], at_work, *workers) == [(2, 9)]
    assert pairs([queued(9)], at_work, *workers) == [(1, 9)]


def test_a_worker_that_is_silent_is_asked_for_nothing() -> None:
    at_work = [running(1, priority=1, worker="dead"), running(2, priority=3)]
    assert pairs([queued(9)], at_work, worker()) == [(2, 9)]


def test_a_job_that_ends_now_is_waited_for() -> None:
    at_work = [running(1, priority=1), running(2, priority=1)]
    for left in (ABOUT_TO_END_SECONDS - 1, -1.0):
        assert pairs([queued(9)], at_work, worker(slots=2), left={1: left}) == []
    # It was to have ended long ago: nobody knows when it will.
    assert pairs([queued(9)], at_work, worker(slots=2), left={1: -60.0, 2: 60.0}) == [(2, 9)]


def test_a_job_that_is_being_cancelled_makes_place_anyway() -> None:
    at_work = [running(1, priority=1, status="cancelling", cancel_mode="now")]
    at_work += [running(2, priority=1)]
    assert pairs([queued(9)], at_work, worker(slots=2)) == []
    at_work[0].cancel_mode = "after_epoch"  # that may take an hour
    assert pairs([queued(9)], at_work, worker(slots=2)) == [(2, 9)]


def test_a_job_in_its_evaluation_is_trained_and_not_displaced() -> None:
    assert pairs([queued(9)], [running(1, priority=1, progress={"phase": "evaluate"})]) == []


def test_an_urgent_job_displaces_one_and_two_displace_two() -> None:
    at_work = [running(i, priority=i) for i in (1, 2, 3)]
    everybody = worker(slots=3)
    assert pairs([queued(8), queued(9)], at_work, everybody) == [(1, 8), (2, 9)]
    at_work[0].displaced_by = 8
    assert pairs([queued(8)], at_work, everybody) == []
    assert pairs([queued(8), queued(9)], at_work, everybody) == [(2, 9)]
    at_work[1].displaced_by = 9
    assert pairs([queued(8), queued(9)], at_work, everybody) == []


def test_a_free_slot_serves_one_of_two() -> None:
    assert pairs([queued(8), queued(9)], [running(1, priority=1)], worker(slots=2)) == [(1, 9)]


def test_who_waits_behind_others_makes_no_place_for_them() -> None:
    at_work = [running(1, priority=1)]
    assert pairs([queued(5, preempt=False), queued(9)], at_work) == []
    assert pairs([queued(9), queued(10, preempt=False)], at_work) == [(1, 9)]
    # Elsewhere nobody is before it.
    before = queued(5, preempt=False, device_choice="gpu")
    workers = worker("gpu1", gpu=[{}]), worker("w2")
    at_work = [running(1, priority=1, worker="gpu1"), running(2, priority=3, worker="w2")]
    assert pairs([before, queued(9)], at_work, *workers) == [(2, 9)]


def test_a_job_that_is_just_being_taken_displaces_nobody() -> None:
    assert pairs([queued(9)], [running(1, priority=1)], not_sent=(9,)) == []


def test_a_job_that_is_not_to_be_taken_yet_holds_up_nobody() -> None:
    waiting = [queued(5, preempt=False), queued(9)]
    assert pairs(waiting, [running(1, priority=1)], not_sent=(5,)) == [(1, 9)]


def test_no_more_of_the_queue_is_read_than_can_matter() -> None:
    """Behind one that waits for the next place of each worker, nobody has one made."""
    read: list[int] = []

    def in_turn() -> Iterator[Job]:
        for id in range(10, 1000):
            read.append(id)
            yield queued(id, preempt=id == 999)

    asked: list[int] = []

    def is_sent(job: Any) -> bool:
        asked.append(job.id)
        return True

    at_work = [running(1, priority=2), running(2, priority=2, worker="w2")]
    two = [worker(), worker("w2")]
    assert choose(in_turn(), at_work, two, left={}, is_sent=is_sent) == []
    assert (read, asked) == ([10, 11], [10])

    read.clear()
    two[1] = worker("w2", frameworks=["ultralytics"])  # somebody may still come for it
    assert choose(in_turn(), at_work, two, left={}, is_sent=is_sent) == []
    assert len(read) == 990
    assert asked == [10, 10]


@pytest.mark.parametrize(("took", "pause"), [(0.001, 1.0), (0.09, 1.0), (0.2, 2.0)])
def test_a_look_takes_a_tenth_of_a_processor_at_most(took: float, pause: float) -> None:
    assert EVERY_SECONDS == 1.0
    assert pause_after(took) == pytest.approx(pause)
