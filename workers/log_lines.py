"""A child's raw output made into lines that are fit to keep and to show."""

from __future__ import annotations

import re

MAX_LINE_CHARACTERS = 4000
MAX_LINES_PER_EVENT = 200

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[@-Z\\-_]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class LogLines:
    """Collects output and gives it out as whole lines.

    A progress bar redraws its line with carriage returns: only its last form is kept, so that
    thousands of redraws become one line.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[str] = []
        self._omitted = 0

    def feed(self, data: bytes) -> None:
        """Take raw output of any length, cut anywhere."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._add(line)
        # Of a line still being redrawn, what lies before its last return will never be shown.
        last_return = self._rest.rstrip(b"\r").rfind(b"\r")
        self._rest = self._rest[last_return + 1 :][-4 * MAX_LINE_CHARACTERS :]

    def finish(self) -> None:
        """Count what has no line end yet as a line: nothing more will come."""
        if self._rest.strip():
            self._add(self._rest)
        self._rest = b""

    def take(self) -> list[str]:
        """Return the lines since the last call; of a flood its beginning, and how many followed."""
        lines, self._lines = self._lines, []
        if self._omitted:
            lines.append(f"… {self._omitted} lines left out: more than can be kept at once")
            self._omitted = 0
        return lines

    def _add(self, raw: bytes) -> None:
        if len(self._lines) >= MAX_LINES_PER_EVENT:
            self._omitted += 1
            return
        text = raw.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace")
        text = _ANSI.sub("", text).rstrip()
        if len(text) > MAX_LINE_CHARACTERS:
            text = text[:MAX_LINE_CHARACTERS] + " … (line cut)"
        self._lines.append(text)
