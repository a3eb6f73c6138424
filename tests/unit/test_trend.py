"""What `make soak` calls growth."""

from __future__ import annotations

import random

import pytest

from tests.faults.trend import trend_of

SECONDS = [10.0 * n for n in range(120)]


def test_a_leak_is_seen_through_noise_with_its_slope() -> None:
    noise = random.Random(3)
    values = [100 + t * 36 / 3600 + noise.gauss(0, 0.5) for t in SECONDS]
    trend = trend_of(SECONDS, values)
    assert trend.per_hour == pytest.approx(36, abs=3 * trend.error_per_hour)
    assert trend.error_per_hour < 2
    assert trend.grows(allowed=2.0)


def test_noise_about_one_level_is_flat() -> None:
    noise = random.Random(4)
    trend = trend_of(SECONDS, [100 + noise.gauss(0, 5) for _ in SECONDS])
    assert not trend.grows(allowed=0.0)


def test_a_slow_wave_is_not_taken_for_growth() -> None:
    # Each sample is nearly the one before it: independent ones would leave no doubt of a slope.
    noise, values = random.Random(5), [100.0]
    for _ in SECONDS[1:]:
        values.append(100 + 0.97 * (values[-1] - 100) + noise.gauss(0, 0.3))
    trend = trend_of(SECONDS, values)
    assert trend.per_hour < 3 * trend.error_per_hour


def test_a_step_of_one_file_in_the_middle_is_growth() -> None:
    trend = trend_of(SECONDS, [20.0 + (n >= 60) for n in range(120)])
    assert (trend.first, trend.last) == (20, 21)
    assert trend.grows(allowed=0.9)


def test_a_constant_is_flat_with_no_uncertainty() -> None:
    trend = trend_of(SECONDS, [7.0] * 120)
    assert (trend.per_hour, trend.error_per_hour) == (0, 0)
    assert not trend.grows(allowed=0.0)


def test_few_samples_tell_nothing() -> None:
    with pytest.raises(ValueError, match="too few"):
        trend_of(SECONDS[:7], [1.0] * 7)
