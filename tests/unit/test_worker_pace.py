"""Time left, against attempts whose every second is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from workers.pace import Pace


@dataclass(frozen=True)
class Attempt:
    """What an attempt's parts take, in seconds."""

    epochs: int = 8
    steps: int = 40
    step: float = 0.5
    first_epoch: float = 1.0  # times as slow as the others
    slow_steps: float = 0.0  # in addition, for each of the first three steps of the attempt
    drift: float = 0.0  # growth of an epoch's steps from one epoch to the next
    loaders: float = 0.0  # before the first step of each epoch
    validation: float = 4.0
    tells_validation: bool = True
    saving: float = 0.5
    evaluation: float = 4.0
    tells_evaluation: bool = True
    drawing: float = 0.0  # after the first validation and the last
    resumed_at: tuple[int, int] = (1, 0)  # epoch and steps already done
    waits: float = 0.0  # the step of a stuttering disk, every tenth


CASES = {
    "even": Attempt(),
    "short epochs": Attempt(steps=4, step=0.2, validation=0.5, saving=0.1, evaluation=0.7),
    "one step an epoch": Attempt(steps=1, step=3.0, epochs=20),
    "two epochs": Attempt(epochs=2),
    "validation as long as training": Attempt(validation=20.0, evaluation=20.0),
    "validation not told": Attempt(validation=10.0, tells_validation=False, evaluation=10.0),
    "saving takes most": Attempt(saving=15.0),
    "no validation at all": Attempt(validation=0.0, saving=0.0, evaluation=0.0),
    "a slow first minute": Attempt(slow_steps=8.0),
    "a first epoch a sixth slower": Attempt(first_epoch=1.16),
    "loaders that start each epoch": Attempt(loaders=5.0, validation=6.0),
    "epochs that grow": Attempt(drift=0.03),
    "a disk that stutters": Attempt(waits=2.0),
    "resumed between epochs": Attempt(resumed_at=(5, 0)),
    "resumed in the middle of an epoch": Attempt(resumed_at=(4, 25)),
    "resumed just before an epoch's end": Attempt(resumed_at=(4, 39), slow_steps=1.0),
    "pictures after the first and the last validation": Attempt(drawing=15.0, validation=1.0),
    "evaluation that is not told": Attempt(tells_evaluation=False, epochs=12),
}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def simulate(attempt: Attempt, clock: Clock) -> Iterator[tuple[int, int, int, str]]:
    """Live through an attempt and yield what its adapter tells, at the time when it does."""
    first_epoch, done = attempt.resumed_at
    seen = 0
    for epoch in range(first_epoch, attempt.epochs + 1):
        clock.now += attempt.loaders
        factor = (1 + attempt.drift) ** (epoch - first_epoch)
        if epoch == first_epoch:
            factor *= attempt.first_epoch
        for step in range(done + 1, attempt.steps + 1):
            seen += 1
            clock.now += attempt.step * factor + (attempt.slow_steps if seen <= 3 else 0.0)
            clock.now += attempt.waits if step % 10 == 0 else 0.0
            yield epoch, step, attempt.steps, "train"
        done = 0
        yield from _phase(clock, epoch, "val", attempt.validation, told=attempt.tells_validation)
        if attempt.drawing and epoch in (first_epoch, attempt.epochs):
            yield epoch, 0, 1, "draw"
            clock.now += attempt.drawing
            yield epoch, 1, 1, "draw"
        clock.now += attempt.saving
    told = attempt.tells_evaluation
    yield from _phase(clock, attempt.epochs, "evaluate", attempt.evaluation, told=told)


def _phase(
    clock: Clock, epoch: int, phase: str, seconds: float, *, told: bool
) -> Iterator[tuple[int, int, int, str]]:
    for step in range(1, 11):
        clock.now += seconds / 10
        if told and seconds:
            yield epoch, step, 10, phase


def live(attempt: Attempt) -> list[tuple[int, str, float, float | None]]:
    """Return (epoch, phase, seconds that were left, seconds that were told) of each word."""
    clock = Clock()
    pace = Pace(attempt.epochs, clock=clock)
    words = []
    for epoch, step, steps, phase in simulate(attempt, clock):
        pace.update(epoch=epoch, step=step, steps=steps, phase=phase)
        words.append((epoch, phase, clock.now, pace.eta_seconds()))
    return [(epoch, phase, clock.now - now, eta) for epoch, phase, now, eta in words]


@pytest.mark.parametrize("name", CASES)
def test_after_the_first_epoch_time_left_is_right_within_a_fifth(name: str) -> None:
    attempt = CASES[name]
    words = live(attempt)
    whole = words[0][2]
    judged = 0
    first_epoch, done = attempt.resumed_at
    # What an attempt saw only the end of is not yet an epoch.
    learnt = first_epoch if done <= attempt.steps / 2 else first_epoch + 1
    for epoch, phase, left, told in words:
        if epoch <= learnt:
            continue
        judged += 1
        assert told is not None
        slack = max(0.2 * left, 0.02 * whole, 0.3)  # at the very end a fifth is nothing
        assert abs(told - left) <= slack, f"epoch {epoch}, {phase}: {left} s left, {told} told"
    assert judged > 3 or attempt.epochs == 2


def test_in_the_first_epoch_it_is_told_from_the_second_step_on() -> None:
    words = live(Attempt(validation=0.0, saving=0.0, evaluation=0.0))
    assert words[0][3] is None
    assert words[1][3] == pytest.approx(words[1][2], rel=0.02)


def test_the_first_validation_foretells_those_to_come() -> None:
    words = live(Attempt(validation=20.0, evaluation=20.0))
    first = [(left, told) for epoch, phase, left, told in words if epoch == 1 and phase == "val"]
    left, told = first[-1]
    assert told == pytest.approx(left, rel=0.2)


def test_a_drawing_that_was_broken_off_lets_the_clock_go_on() -> None:
    clock = Clock()
    pace = Pace(3, clock=clock)
    pace.update(epoch=1, step=0, steps=10)
    clock.now = 10.0
    pace.update(epoch=1, step=10, steps=10)
    pace.update(epoch=1, step=0, steps=1, phase="draw")
    clock.now = 13.0
    pace.update(epoch=1, step=0, steps=10)  # from the beginning, with a smaller batch
    clock.now = 33.0
    pace.update(epoch=1, step=10, steps=10)
    assert pace.eta_seconds() == pytest.approx(40.0 + 3.0)


def test_nothing_is_left_when_nothing_is() -> None:
    assert live(Attempt())[-1][3] == 0.0
