"""What becomes of a failed attempt's job, as a table."""

from __future__ import annotations

import pytest

from adapters.contract import ErrorKind
from webapp.services.retrying import RETRIED, Failure, failure_of, judge

HERE = Failure("child_died", epoch=3, step=7)


@pytest.mark.parametrize(
    ("failure", "previous", "lost", "retry", "why"),
    [
        (HERE, None, 1, True, "epoch 3, step 7"),
        (HERE, HERE, 2, False, "the same way at the same place twice (epoch 3, step 7)"),
        (HERE, Failure("child_died", epoch=3, step=6), 2, True, "tried again"),
        (HERE, Failure("device", epoch=3, step=7), 2, True, "tried again"),
        (HERE, None, 3, False, "3 attempts were lost, the limit is 3"),
        (Failure("child_died"), Failure("child_died"), 2, False, "before the first step"),
        (Failure("nan_loss", epoch=1, step=2), None, 1, False, ""),
        (Failure("framework"), None, 1, False, ""),
    ],
)
def test_a_failure_is_tried_again_where_another_attempt_need_not_meet_it(
    failure: Failure, previous: Failure | None, lost: int, retry: bool, why: str
) -> None:
    verdict = judge(failure, previous=previous, lost=lost, limit=3)
    assert verdict.retry == retry
    assert why in verdict.reason


@pytest.mark.parametrize("kind", sorted(set(ErrorKind) - RETRIED))
def test_what_would_be_the_same_again_is_for_a_person(kind: ErrorKind) -> None:
    assert not judge(Failure(str(kind)), previous=None, lost=1, limit=3).retry


def test_a_limit_of_one_attempt_is_told_in_the_singular() -> None:
    assert judge(HERE, previous=None, lost=1, limit=1).reason == (
        "1 attempt was lost, the limit is 1"
    )


def test_a_failure_is_read_from_the_error_and_the_last_progress() -> None:
    progress = {"epoch": 2, "step": 9, "percent": 12.5}
    assert failure_of({"kind": "device"}, progress) == Failure("device", 2, 9)
    assert failure_of({"kind": "device"}, None) == Failure("device")
