"""A TCP proxy that can swallow: what passes through it stops for a while, no connection closed."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Self


class Proxy:
    """Stands between one client and a server; use it as a context manager.

    While it swallows, connections are taken and nothing passes, as when packets are dropped on
    their way. Afterwards what was held back passes, as a TCP that sends again would have it.
    """

    def __init__(self, *, to_port: int) -> None:
        self.port = 0
        self._to_port = to_port
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def swallow(self) -> None:
        self._loop.call_soon_threadsafe(self._open.clear)

    def heal(self) -> None:
        self._loop.call_soon_threadsafe(self._open.set)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._open.set()
        server = self._loop.run_until_complete(
            asyncio.start_server(self._connected, "127.0.0.1", 0)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._open.wait()
            theirs, ours = await asyncio.open_connection("127.0.0.1", self._to_port)
            await asyncio.gather(self._carry(reader, ours), self._carry(theirs, writer))
        except (OSError, asyncio.CancelledError):
            writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


class Narrow(Proxy):
    """A way to the server that swallows all after so many bytes."""

    def __init__(self, *, to_port: int, most: int) -> None:
        super().__init__(to_port=to_port)
        self.left = most

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.left -= len(data)
            if self.left < 0:
                self._open.clear()
            await self._open.wait()
            writer.write(data)
            await writer.drain()
        writer.close()
