"""When an attempt has taken too long."""

from __future__ import annotations

from adapters.contract import ErrorKind
from workers.limits import Limits


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_child_without_a_step_is_found_hanging() -> None:
    clock = Clock()
    limits = Limits(stall_seconds=10, attempt_seconds=0, clock=clock)
    for clock.now in (4.0, 8.0):
        assert limits.exceeded(paused=False) is None
    limits.stepped()
    clock.now = 17.0
    assert limits.exceeded(paused=False) is None
    clock.now = 19.0
    error = limits.exceeded(paused=False)
    assert error is not None
    assert error.kind == ErrorKind.STALLED


def test_a_pause_counts_for_no_limit() -> None:
    clock = Clock()
    limits = Limits(stall_seconds=10, attempt_seconds=20, clock=clock)
    clock.now = 1000.0
    assert limits.exceeded(paused=True) is None
    clock.now = 1009.0
    assert limits.exceeded(paused=False) is None


def test_an_attempt_ends_at_its_time_limit_though_it_makes_progress() -> None:
    clock = Clock()
    limits = Limits(stall_seconds=10, attempt_seconds=20, clock=clock)
    for clock.now in (8.0, 16.0):
        limits.stepped()
        assert limits.exceeded(paused=False) is None
    limits.stepped()
    clock.now = 21.0
    error = limits.exceeded(paused=False)
    assert error is not None
    assert error.kind == ErrorKind.TIME_LIMIT


def test_zero_is_no_limit() -> None:
    clock = Clock()
    limits = Limits(stall_seconds=0, attempt_seconds=0, clock=clock)
    clock.now = 1e9
    assert limits.exceeded(paused=False) is None
