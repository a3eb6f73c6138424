"""A child's output as lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.log_lines import MAX_LINE_CHARACTERS, MAX_LINES_PER_EVENT, LogLines


def collect(*pieces: bytes) -> list[str]:
    lines = LogLines()
    for piece in pieces:
        lines.feed(piece)
    lines.finish()
    return lines.take()


def test_lines_cut_anywhere_are_put_together() -> None:
    assert collect(b"first li", b"ne\nsecond", b"\nthird") == ["first line", "second", "third"]


def test_of_a_redrawn_progress_bar_only_its_last_form_is_kept() -> None:
    assert collect(b"\r 10%\r 20%", b"\r 30%\r100%\nnext\n") == ["100%", "next"]


def test_windows_line_ends_are_no_redraws() -> None:
    assert collect(b"one\r\ntwo\r\n") == ["one", "two"]


def test_colours_and_control_characters_are_removed() -> None:
    assert collect(b"\x1b[31mred\x1b[0m \x1b[2Kplain\x07\n") == ["red plain"]


def test_a_letter_of_several_bytes_may_be_cut_in_two() -> None:
    raw = "손글씨\n".encode()
    assert collect(raw[:4], raw[4:]) == ["손글씨"]


def test_a_flood_is_cut_and_the_number_of_lines_left_out_is_told() -> None:
    lines = collect(b"x\n" * (MAX_LINES_PER_EVENT + 7))
    assert len(lines) == MAX_LINES_PER_EVENT + 1
    assert lines[-1].startswith("… 7 lines left out")


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    lines = LogLines()
    for _ in range(100):
        lines.feed(b"y" * 10_000)
    lines.finish()
    [line] = lines.take()
    assert len(line) < MAX_LINE_CHARACTERS + 100


@given(text=st.text(alphabet="ab \nü", max_size=60), cut=st.integers(0, 70))
def test_where_the_output_is_cut_makes_no_difference(text: str, cut: int) -> None:
    raw = text.encode()
    assert collect(raw[:cut], raw[cut:]) == collect(raw)
