"""Reading a large JSON object element by element, so that what was read can be thrown away.

An annotation file of half a gigabyte becomes five as dictionaries and lists. Here the long lists
of the outermost object are parsed one element at a time, by the same parser written in C, and
each element comes with its line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adapters.data.description import DatasetError
from adapters.data.images import FileUnreadable, read_limited
from adapters.data.roots import printable

MAX_JSON_BYTES = 1024**3
_SPACE = " \t\n\r"


def _text(path: Path, shown: str) -> str:
    try:
        return read_limited(path, limit=MAX_JSON_BYTES).decode("utf-8-sig")
    except FileUnreadable as failure:
        raise DatasetError(f"'{shown}' cannot be read: {failure}") from failure
    except UnicodeDecodeError:
        raise DatasetError(f"'{shown}' is not UTF-8 text") from None


class JsonDocument:
    """A JSON object in a file that problems name as ``shown``.

    Raises DatasetError where it cannot be read, or is not JSON, naming the line.
    """

    def __init__(self, path: Path, *, shown: str) -> None:
        self.keys: set[str] = set()  # that were met so far
        self._text = _text(path, shown)
        self._shown = shown
        self._decoder = json.JSONDecoder()
        self._position = 0
        self._counted = 0  # up to where lines were counted
        self._line = 1

    def elements(self) -> Iterator[tuple[str, Any, int]]:
        """Yield (key, element, line): of a list each element, of anything else the value."""
        try:
            yield from self._members()
        except RecursionError:
            message = f"'{self._shown}' is nested too deeply to hold annotations"
            raise DatasetError(message) from None

    def _members(self) -> Iterator[tuple[str, Any, int]]:
        self._expect("{", "an object with 'images', 'annotations' and 'categories'")
        if self._next() != "}":
            yield from self._member()
            while self._next() == ",":
                self._position += 1
                yield from self._member()
        self._expect("}", "',' or '}'")
        if self._next():
            raise self._wrong("the end of the file")

    def _member(self) -> Iterator[tuple[str, Any, int]]:
        if self._next() != '"':
            raise self._wrong("a key in quotation marks")
        key, _ = self._value()
        self.keys.add(key)
        self._expect(":", "':'")
        if self._next() != "[":
            yield (key, *self._value())
            return
        self._position += 1
        if self._next() != "]":
            yield (key, *self._value())
            while self._next() == ",":
                self._position += 1
                yield (key, *self._value())
        self._expect("]", "',' or ']'")

    def _value(self) -> tuple[Any, int]:
        self._next()
        line = self._line_here()
        try:
            value, self._position = self._decoder.raw_decode(self._text, self._position)
        except json.JSONDecodeError as failure:
            message = f"line {failure.lineno} of '{self._shown}' is not JSON: {failure.msg}"
            raise DatasetError(message) from None
        except ValueError as failure:  # a number of thousands of digits
            reason = printable(str(failure))[:100]
            raise DatasetError(f"line {line} of '{self._shown}' is not JSON: {reason}") from None
        return value, line

    def _next(self) -> str:
        """Pass over white space and return the character that follows, or nothing at the end."""
        while (character := self._text[self._position : self._position + 1]) in _SPACE:
            if not character:
                return ""
            self._position += 1
        return character

    def _expect(self, character: str, what: str) -> None:
        if self._next() != character:
            raise self._wrong(what)
        self._position += 1

    def _wrong(self, expected: str) -> DatasetError:
        line = self._line_here()
        return DatasetError(f"line {line} of '{self._shown}' is not JSON: expected {expected}")

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._position)
        self._counted = self._position
        return self._line
