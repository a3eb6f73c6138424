"""A large upload to a gunicorn of one process: straight to the disk, and nobody else waits."""

from __future__ import annotations

import io
import random
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image

from tests.api import Person
from tests.integration.test_api_gunicorn import Server
from tests.services import wait_for

MEGABYTE = 1024 * 1024
FILES, FILE_MEGABYTES = 10, 30
BOUNDARY = b"a-boundary-that-is-long-enough"


class Pieces(io.RawIOBase):
    """What a zip is written to, handed on piece by piece; it cannot be sought."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.waiting.append(bytes(data))
        return len(data)

    def taken(self) -> Iterator[bytes]:
        yield from self.waiting
        self.waiting.clear()


def zip_in_pieces() -> Iterator[bytes]:
    """Yield a stored zip of a small data set and 300 MB beside it, composed as it is sent."""
    pieces = Pieces()
    block = random.Random(0).randbytes(MEGABYTE)
    with zipfile.ZipFile(pieces, "w") as file:
        for number in range(12):
            split, label = ("train", "val")[number % 3 == 2], ("dark", "light")[number % 2]
            image = io.BytesIO()
            Image.new("RGB", (16, 16), (20 * number,) * 3).save(image, "PNG")
            file.writestr(f"shades/{split}/{label}/{number}.png", image.getvalue())
        for number in range(FILES):
            with file.open(f"shades/train/dark/{number}.bin", "w", force_zip64=True) as entry:
                for _ in range(FILE_MEGABYTES):
                    entry.write(block)
                    yield from pieces.taken()
    yield from pieces.taken()


def form() -> Iterator[bytes]:
    for name, value in (("project_id", b"1"), ("name", b"large")):
        yield b'--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (
            BOUNDARY, name.encode(), value,
        )  # fmt: skip
    yield b'--%s\r\nContent-Disposition: form-data; name="file"; filename="a.zip"\r\n' % BOUNDARY
    yield b"Content-Type: application/zip\r\n\r\n"
    yield from zip_in_pieces()
    yield b"\r\n--%s--\r\n" % BOUNDARY


class Memory:
    """The most memory that a process has while it is watched."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.before = self.most = self._process.memory_info().rss
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, self._process.memory_info().rss)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("home")
    running = Server(home, f"sqlite:///{home / 'modelyard.db'}", processes=1)
    yield running
    running.close()


@pytest.fixture(scope="module")
def ada(server: Server) -> Person:
    person = server.api.person("ada")
    assert person.project() == 1
    return person


def send(server: Server, person: Person, body: Any) -> httpx.Response:
    kind = f"multipart/form-data; boundary={BOUNDARY.decode()}"
    with server.client(person) as client:
        return client.post(
            "/datasets/upload?project_id=1",
            content=body,
            headers={"Content-Type": kind},
            timeout=280,
        )


def worker(server: Server) -> int:
    return psutil.Process(server.process.pid).children()[0].pid


def left(home: Path) -> set[str]:
    folder = home / "uploads"  # the first upload makes it
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def test_a_large_upload_takes_no_memory_and_lets_others_through(
    server: Server, ada: Person
) -> None:
    answers: list[httpx.Response] = []
    sender = threading.Thread(target=lambda: answers.append(send(server, ada, form())))
    waits = []
    with Memory(worker(server)) as memory, server.client(ada) as client:
        began = time.monotonic()
        sender.start()
        while sender.is_alive():
            asked = time.monotonic()
            assert client.get("/auth/me").status_code == 200
            waits.append(time.monotonic() - asked)
        seconds = time.monotonic() - began
    sender.join()
    assert answers[0].status_code == 201, answers[0].text
    found = answers[0].json()
    assert (found["num_images"], found["status"]) == (12, "valid")
    sizes = sum(path.stat().st_size for path in Path(found["path"]).rglob("*.bin"))
    assert sizes == FILES * FILE_MEGABYTES * MEGABYTE
    grown = (memory.most - memory.before) / MEGABYTE
    waits.sort()
    print(
        f"{sizes / MEGABYTE / seconds:.0f} MB/s with unpacking and checking, {grown:.0f} MB more, "
        f"{len(waits)} others, median {waits[len(waits) // 2]:.3f} s, worst {waits[-1]:.3f} s"
    )
    assert grown < 60
    assert len(waits) > 20
    assert waits[-1] < seconds / 2, "somebody waited for the upload"


def test_a_sender_who_goes_away_leaves_nothing(server: Server, ada: Person) -> None:
    before = left(server.api.data.parent)

    def half() -> Iterator[bytes]:
        for number, piece in enumerate(form()):
            if number == 60:
                raise ConnectionAbortedError
            yield piece

    with pytest.raises(ConnectionAbortedError):
        send(server, ada, half())
    wait_for(lambda: left(server.api.data.parent) == before, what="the end of what was sent")


def test_a_server_that_is_killed_leaves_nothing_after_its_next_start(
    server: Server, ada: Person
) -> None:
    home = server.api.data.parent
    before = left(home)

    def until_it_is_killed() -> Iterator[bytes]:
        for number, piece in enumerate(form()):
            if number == 120:
                wait_for(lambda: left(home) != before, what="the beginning of the upload")
                psutil.Process(worker(server)).kill()  # gunicorn starts another
            yield piece

    with pytest.raises(httpx.TransportError):
        send(server, ada, until_it_is_killed())
    wait_for(lambda: left(home) == before, what="the sweep of the next process")
