"""The supervisor's decisions, without a process."""

from __future__ import annotations

from pathlib import Path

from modelyard.supervisor import Backoff, tail


def test_the_delay_doubles_up_to_its_cap() -> None:
    backoff = Backoff(first=0.5, cap=30)
    delays = [backoff.next_delay(ran_seconds=1) for _ in range(9)]
    assert delays == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_healthy_minute_is_forgiven() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.next_delay(ran_seconds=1)
    assert backoff.next_delay(ran_seconds=59) > 0.5
    assert backoff.next_delay(ran_seconds=60) == 0.5


def test_years_of_restarts_do_not_overflow() -> None:
    backoff = Backoff(failures=5000)
    assert backoff.next_delay(ran_seconds=1) == 30


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    assert tail(log) == ""
    log.write_bytes(b"first\n" * 100 + b"\xff last\n")
    assert tail(log, lines=2) == "first\n\N{REPLACEMENT CHARACTER} last"
