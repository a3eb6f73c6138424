"""Time left of an attempt, from what its epochs took: training, and all that follows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# Phases; any other is part of what follows an epoch's steps.
TRAIN, DRAW, EVALUATE = "train", "draw", "evaluate"

# Of its first steps an epoch tells little: loaders start, kernels are chosen.
_SETTLED = 0.25  # of an epoch's steps


@dataclass
class _Stretch:
    """The train steps of one epoch that were seen."""

    epoch: int
    steps: int
    began: float  # when 'first' steps were done
    first: int
    at: float  # when 'done' steps were done
    done: int
    settled: tuple[float, int] | None = None  # time and step from which the pace is taken

    def take(self, now: float, step: int) -> None:
        self.at, self.done = now, step
        if self.settled is None and step - self.first >= _SETTLED * self.steps:
            self.settled = (now, step)

    @property
    def seconds_per_step(self) -> float | None:
        start, step = self.settled or (self.began, self.first)
        if self.done - step < 2:  # too few since it settled
            start, step = self.began, self.first
        return (self.at - start) / (self.done - step) if self.done > step else None

    @property
    def share(self) -> float:
        """How much of the epoch's steps was seen, 0..1."""
        return min(1.0, (self.done - self.first) / max(self.steps, 1))


class Pace:
    """Learns from whole epochs what one takes; the present one counts as far as it has come.

    What lies between an epoch's last step and the next one's first (validation, saving, loaders
    that start) is measured as one. The evaluation at the end is taken to last as long as a
    validation, until it tells its own steps. Drawing, which follows only some of the validations,
    stops the clock by which all this is learnt; the last epoch is taken to have one, too.
    """

    def __init__(self, epochs: int, *, clock: Callable[[], float]) -> None:
        self._epochs = epochs
        self._real_clock = clock
        self._drawing: float | None = None  # seconds of the last one
        self._drawing_began: float | None = None
        self._drawn = 0.0  # seconds of all of them
        self._drawn_at_end = False
        self._now: _Stretch | None = None
        self._per_step: float | None = None  # of the epochs before
        self._trust = 0.0  # how many epochs that was learnt from, 0..2
        self._tail: float | None = None  # seconds of it until the last word of validation
        self._validation: float | None = None  # seconds of the last one that told its steps
        self._rest: float | None = None  # seconds between an epoch's last step and the next first
        self._tail_at = 0.0  # the last word of what follows an epoch's steps
        self._phase = TRAIN
        self._phase_began = (0.0, 0)  # time and step at its first word
        self._phase_at = (0.0, 0, 1)  # time, step and steps at its last

    def update(self, *, epoch: int, step: int, steps: int, phase: str = TRAIN) -> None:
        """Take note of where training is."""
        if phase == DRAW or self._drawing_began is not None:  # one may be broken off
            self._take_drawing(epoch=epoch, done=phase != DRAW or step >= steps)
        if phase == DRAW:
            return
        now = self._clock()
        if phase != self._phase:
            self._phase_began = (now, step)
        self._phase, self._phase_at = phase, (now, step, steps)
        if phase != TRAIN:
            self._tail_at = now
            if phase != EVALUATE and self._whole_phase():
                self._validation = self._whole_phase()
            return
        current = self._now
        if current is not None and current.epoch == epoch and step >= current.done:
            current.take(now, step)
            return
        if current is not None and epoch > current.epoch:
            self._close(current, now=now, step=step)
        self._now = _Stretch(epoch, max(steps, 1), began=now, first=step, at=now, done=step)

    def _clock(self) -> float:
        """Return the time without what was drawn in it."""
        now = self._real_clock() if self._drawing_began is None else self._drawing_began
        return now - self._drawn

    def _take_drawing(self, *, epoch: int, done: bool) -> None:
        now = self._real_clock()
        if self._drawing_began is None:
            self._drawing_began = now
        if done:
            self._drawing = now - self._drawing_began
            self._drawn += self._drawing
            self._drawing_began = None
            self._drawn_at_end = epoch >= self._epochs

    def _drawing_to_come(self) -> float:
        if self._drawing is None or self._drawn_at_end:
            return 0.0
        if self._drawing_began is None:
            return self._drawing
        return max(0.0, self._drawing - (self._real_clock() - self._drawing_began))

    def _close(self, last: _Stretch, *, now: float, step: int) -> None:
        """Learn from an epoch that is over, at the first word of the next."""
        pace = last.seconds_per_step
        if pace is None:  # one word an epoch: what came after its tail is taken for the steps
            pace = (now - max(last.at, self._tail_at)) / (step + last.steps - last.done)
        rest = max(0.0, now - last.at - (step + last.steps - last.done) * pace)
        self._per_step = self._learn(self._per_step, pace)
        self._rest = self._learn(self._rest, rest)
        if self._tail_at > last.at:
            self._tail = self._learn(self._tail, self._tail_at - last.at)
        self._trust = min(2.0, self._trust + max(last.share, 1 / last.steps))

    def _learn(self, seen: float | None, new: float) -> float:
        """Return a figure: the newest epoch tells most, a first one is often slower than others."""
        weight = 0.5 * self._trust
        return new if seen is None else (weight * seen + new) / (weight + 1)

    def eta_seconds(self) -> float | None:
        """Return the seconds left, or None while nothing can be said."""
        if self._phase == EVALUATE:
            return self._left_of_phase()
        current = self._now
        per_step = self._step_seconds()
        if current is None or per_step is None:
            return None
        rest = self._rest_seconds()
        epochs_to_come = max(self._epochs - current.epoch, 0)
        this_rest = rest if epochs_to_come else self._last_rest(rest)
        if self._phase == TRAIN:
            left = (current.steps - current.done) * per_step + this_rest
        else:
            left = max(0.0, this_rest - (self._clock() - current.at))
        if epochs_to_come:
            left += (
                epochs_to_come * (current.steps * per_step + rest) - rest + self._last_rest(rest)
            )
        return round(left + self._drawing_to_come() + self._evaluation_seconds(rest), 1)

    def _step_seconds(self) -> float | None:
        """Return what a step takes: as in the epochs before, and more and more as in this one."""
        current = self._now
        if current is None:
            return None
        present = current.seconds_per_step
        if present is None or self._per_step is None:
            return self._per_step if present is None else present
        weight = max(0.5, 1 - current.share) * self._trust
        return (current.share * present + weight * self._per_step) / (current.share + weight)

    def _rest_seconds(self) -> float:
        """Return what follows an epoch's steps; in the first one as its validation foretells."""
        if self._rest is not None:
            return self._rest
        current = self._now
        if self._phase == TRAIN or current is None:
            return 0.0
        return (self._phase_began[0] - current.at) + self._whole_phase()

    def _last_rest(self, rest: float) -> float:
        """Return what follows the last epoch's steps: no loaders start for a next one.

        How much of the time after validation is theirs, and how much the saving's, is not told.
        """
        return rest if self._tail is None else 0.4 * min(self._tail, rest) + 0.6 * rest

    def _evaluation_seconds(self, rest: float) -> float:
        return rest if self._validation is None else self._validation

    def _whole_phase(self) -> float:
        """Return what the present phase takes, from its pace so far."""
        (began, first), (at, step, steps) = self._phase_began, self._phase_at
        return (at - began) / (step - first) * steps if step > first else 0.0

    def _left_of_phase(self) -> float | None:
        at, step, steps = self._phase_at
        whole = self._whole_phase()
        if whole == 0.0:
            whole = self._evaluation_seconds(self._rest or 0.0)
        left = whole * (steps - step) / max(steps, 1) - (self._clock() - at)
        return round(max(0.0, left), 1)
