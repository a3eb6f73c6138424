"""How numbers and times read in the pages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from webapp.dashboard import formats
from webapp.dashboard.blueprint import local_target

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(None, "–"), (0.0, "0.0 %"), (0.99438, "99.4 %"), (1.0, "100.0 %")],
)
def test_a_fraction_reads_in_percent_and_zero_is_a_value(fraction: float | None, text: str) -> None:
    assert formats.percent(fraction) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (0.123456, "0.1235"),
        (812.34, "812.3"),
        (1500, "1500"),
        (0.00001, "1.00e-5"),
        (2.5e7, "2.50e+7"),
        (-0.0004, "-4.00e-4"),
    ],
)
def test_a_number_reads_with_four_significant_digits(value: float | None, text: str) -> None:
    assert formats.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0, "0 s"),
        (59.4, "59 s"),
        (61, "1 min 1 s"),
        (3725, "1 h 2 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_a_duration_reads_in_its_two_largest_units(seconds: float | None, text: str) -> None:
    assert formats.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "just now"), (42, "42 s ago"), (150, "2 min ago"), (7300, "2 h ago"), (180000, "2 d ago")],
)
def test_a_time_reads_as_how_long_ago_it_was(seconds: int, text: str) -> None:
    time = NOW - timedelta(seconds=seconds)
    assert formats.ago(time, NOW) == text
    assert formats.ago(formats.iso(time), NOW) == text


@pytest.mark.parametrize(
    ("actor", "text"),
    [
        ("user:3 ada@example.org", "ada@example.org"),
        ("worker:gpu1", "worker gpu1"),
        ("reaper", "reaper"),
    ],
)
def test_an_actor_reads_as_a_person_knows_them(actor: str, text: str) -> None:
    assert formats.actor(actor) == text


@pytest.mark.parametrize(
    ("asked", "target"),
    [
        ("/projects/3?q=a", "/projects/3?q=a"),
        ("", "/"),
        ("https://elsewhere.example/", "/"),
        ("//elsewhere.example/", "/"),
        ("/\\elsewhere.example/", "/"),
        ("javascript:alert(1)", "/"),
    ],
)
def test_the_login_leads_only_to_pages_of_this_site(asked: str, target: str) -> None:
    assert local_target(asked, default="/") == target
