"""How an S3 client of aiobotocore is set up, so that no call waits for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from aiobotocore.httpsession import AIOHTTPSession
from botocore.exceptions import ReadTimeoutError

CONNECT_SECONDS = 5
# aiohttp counts them while a part is being sent, too. So what is under way at once must pass in
# that time: here over a line of 4 Mbit/s. With the library's own ten parts of 50 MiB, a line of
# less than 70 Mbit/s would never send a checkpoint.
READ_SECONDS = 60
PUT: dict[str, Any] = {"chunksize": 8 * 1024 * 1024, "max_concurrency": 3}
TRIES = 3  # of a request; whoever asks has its own patience for a store that is away


class Session(AIOHTTPSession):  # type: ignore[misc]  # aiobotocore has no types
    """Bounds the sending of what a server is asked to take.

    aiohttp counts no time while it waits for the word to go on (Expect: 100-continue), nor while
    a server takes nothing of a body: a server that is silent then would be waited for for ever.
    """

    put_seconds = READ_SECONDS

    async def send(self, request: Any) -> Any:
        """Send a request; extends aiobotocore.httpsession.AIOHTTPSession.send."""
        if "Expect" not in request.headers:
            return await super().send(request)
        try:
            return await asyncio.wait_for(super().send(request), self.put_seconds)
        except TimeoutError as error:
            raise ReadTimeoutError(endpoint_url=request.url, error=error) from error


def options() -> dict[str, Any]:
    """Return what s3fs is given."""
    return {
        "config_kwargs": {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "retries": {"total_max_attempts": TRIES, "mode": "standard"},
            "http_session_cls": Session,
        }
    }


def bound(filesystem: Any) -> None:
    """Let a file system of s3fs leave trying again to botocore, which knows when.

    s3fs does so, too, around it: five times each, and twice as deep where it reads.
    """
    filesystem.retries = 1
