"""Forms with a file, read from the request piece by piece: the file goes straight to the disk.

Werkzeug's own ``request.files`` would write it to the system's temporary folder first, and only
then call the view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from flask import request
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from webapp.services.cpu import run_blocking, within
from webapp.services.errors import Invalid

_CHUNK_BYTES = 1024 * 1024
_MAX_PARTS = 32
_MAX_FIELDS_BYTES = 64 * 1024
_IDLE_SECONDS = 120.0  # a sender that is silent for longer is given up


@dataclass
class Receiver:
    """Reads one form: its fields into a dictionary, its one file to a path."""

    file_field: str
    into: Path
    most_bytes: int  # of the whole body
    before_file: Callable[[dict[str, str]], None]  # called with the fields that came before it
    progress: Callable[[int, int | None], None]  # bytes received, and of how many
    fields: dict[str, str] = field(default_factory=dict)
    has_file: bool = False

    def run(self) -> dict[str, str]:
        """Read the request to its end and return its fields.

        Raises Invalid where the form is not as it should be, and HTTP errors where the body is
        too large or no form.
        """
        request.max_content_length = self.most_bytes
        events = self._events()
        for event in events:
            if isinstance(event, Field):
                self.fields[self._fresh(event.name)] = self._text(event.name, events)
            elif isinstance(event, File):
                self._take_file(event.name, events)
        if not self.has_file:
            raise Invalid({self.file_field: ["This field is required"]})
        return self.fields

    def _take_file(self, name: str, events: Iterator[Event]) -> None:
        if name != self.file_field:
            raise Invalid({name: ["There is no such file field"]})
        if self.has_file:
            raise Invalid({name: ["Send one file"]})
        self.has_file = True
        self.before_file(self.fields)
        with self.into.open("xb") as file:
            self._store(file, events)

    def _store(self, file: BinaryIO, events: Iterator[Event]) -> None:
        for event in events:
            assert isinstance(event, Data)
            # In a thread: a disk that is slow to take more must not stop everybody else, and
            # a sender that is faster than the disk lets the others have their turn.
            run_blocking(file.write, event.data)
            if not event.more_data:
                return

    def _fresh(self, name: str) -> str:
        if name in self.fields:
            raise Invalid({name: ["Send this field once"]})
        return name

    def _text(self, name: str, events: Iterator[Event]) -> str:
        content = b""
        room = _MAX_FIELDS_BYTES - sum(map(len, self.fields.values()))
        for event in events:
            assert isinstance(event, Data)
            content += event.data
            if len(content) > room:
                raise RequestEntityTooLarge("The fields beside the file are too long")
            if not event.more_data:
                break
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise Invalid({name: ["This is not UTF-8"]}) from None

    def _events(self) -> Iterator[Event]:
        """Yield the fields, the files and their data in the order in which they are sent."""
        if request.mimetype != "multipart/form-data" or not request.mimetype_params.get("boundary"):
            raise UnsupportedMediaType("Send the body as multipart/form-data")
        decoder = MultipartDecoder(
            request.mimetype_params["boundary"].encode("latin-1", "replace"),
            2 * _CHUNK_BYTES,  # of what it holds back
            max_parts=_MAX_PARTS,
        )
        received = 0
        while True:
            try:
                event = decoder.next_event()
            except ValueError:
                raise _unreadable() from None
            if isinstance(event, Epilogue):
                return
            if isinstance(event, NeedData):
                chunk = within(_IDLE_SECONDS, request.stream.read, _CHUNK_BYTES)
                received += len(chunk)
                self.progress(received, request.content_length)
                decoder.receive_data(chunk or None)
            elif isinstance(event, Field | File) and event.name is None:
                raise _unreadable()
            elif isinstance(event, Field | File | Data):
                yield event


def _unreadable() -> Invalid:
    return Invalid({"body": ["The body is not a form that can be read"]})
