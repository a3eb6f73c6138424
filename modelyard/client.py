"""A small client of the REST API, used by the demo and the tests.

ClientError
├── Unreachable         nothing answers at the address
└── ApiError            the API refused; has status, title, detail and errors by field
    ├── Unauthorized    401: no token, a dead one, or a wrong password
    ├── Forbidden       403
    ├── NotFound        404
    ├── Conflict        409
    ├── Invalid         422: what was sent does not have the right form; see errors
    ├── TooMany         429: try again after retry_after seconds
    └── Unavailable     503: the broker or the database is away
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from modelyard.errors import ModelyardError

TIMEOUT_SECONDS = 30.0
ANSWER_SECONDS = 120.0  # a data set is looked at meanwhile, perhaps on a busy host
STREAM_SILENCE_SECONDS = 45.0  # three of the comment lines that an idle stream sends
RECONNECT_SECONDS = 1.0
END_STATUSES = frozenset({"completed", "failed", "cancelled"})

Json = dict[str, Any]


class ClientError(ModelyardError):
    """The API cannot be reached, or refused."""


class Unreachable(ClientError):
    """Nothing answers at the address."""


class ApiError(ClientError):
    """The API refused a request."""

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after: str | None) -> None:
        self.status = status
        self.title = str(problem.get("title", ""))
        self.detail = str(problem.get("detail", ""))
        self.errors: dict[str, list[str]] = dict(problem.get("errors") or {})
        self.retry_after = retry_after
        fields = "; ".join(f"{name}: {' '.join(texts)}" for name, texts in self.errors.items())
        super().__init__(
            " – ".join(part for part in (f"{status} {self.title}", self.detail, fields) if part)
        )


class Unauthorized(ApiError):
    """401"""


class Forbidden(ApiError):
    """403"""


class NotFound(ApiError):
    """404"""


class Conflict(ApiError):
    """409"""


class Invalid(ApiError):
    """422"""


class TooMany(ApiError):
    """429"""


class Unavailable(ApiError):
    """503"""


_ERRORS: dict[int, type[ApiError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: Invalid,
    429: TooMany,
    503: Unavailable,
}


@dataclass(frozen=True)
class StreamEvent:
    """One event of a job's stream; the id makes a later stream go on after it."""

    id: str | None
    event: str
    data: Json


class Client:
    """One person's session with one instance."""

    def __init__(self, url: str, *, transport: httpx.BaseTransport | None = None) -> None:
        timeout = httpx.Timeout(TIMEOUT_SECONDS, read=ANSWER_SECONDS)
        self._http = httpx.Client(base_url=f"{url}/api/v1", timeout=timeout, transport=transport)
        self._refresh_token: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def login(self, email: str, password: str) -> None:
        """Log in; later calls carry the token and renew it when it has expired."""
        self._keep(self.post("/auth/login", {"email": email, "password": password}))

    def get(self, path: str, **query: Any) -> Any:
        return self._json("GET", path, params=query)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self._json("POST", path, json=dict(body or {}))

    def delete(self, path: str) -> None:
        self._send("DELETE", path)

    def items(self, path: str, **query: Any) -> Iterator[Json]:
        """Yield every item of a list, page after page."""
        page = self.get(path, **query)
        while True:
            yield from page["items"]
            if page["next_cursor"] is None:
                return
            page = self.get(path, **query, cursor=page["next_cursor"])

    def events(
        self, job_id: int, *, sleep: Callable[[float], None] = time.sleep
    ) -> Iterator[StreamEvent]:
        """Yield the events of a job until it has ended, through lost connections."""
        last_id: str | None = None
        ended = False
        while not ended:
            try:
                for event in self._stream(job_id, last_id):
                    last_id = event.id or last_id
                    ended = _ends(event)
                    yield event
            except httpx.TransportError:
                sleep(RECONNECT_SECONDS)
            else:
                if not ended:  # the server closed the stream for reasons of its own
                    sleep(RECONNECT_SECONDS)

    def _stream(self, job_id: int, last_id: str | None) -> Iterator[StreamEvent]:
        headers = {"Accept": "text/event-stream"}
        if last_id is not None:
            headers["Last-Event-ID"] = last_id
        timeout = httpx.Timeout(TIMEOUT_SECONDS, read=STREAM_SILENCE_SECONDS)
        path = f"/training/jobs/{job_id}/events"
        with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
            if response.status_code == 401 and self._renew():
                return
            if response.is_error:
                response.read()
                raise _refusal(response)
            yield from parse_events(response.iter_lines())

    def _json(self, method: str, path: str, **request: Any) -> Any:
        response = self._send(method, path, **request)
        return response.json() if response.content else None

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **request)
            if response.status_code == 401 and self._renew():
                response = self._http.request(method, path, **request)
        except httpx.TransportError as error:
            raise Unreachable(f"no answer from {self._http.base_url}: {error}") from error
        if response.is_error:
            raise _refusal(response)
        return response

    def _renew(self) -> bool:
        """Exchange the refresh token, once; tell whether there are fresh tokens."""
        token, self._refresh_token = self._refresh_token, None
        if token is None:
            return False
        response = self._http.post("/auth/refresh", headers={"Authorization": f"Bearer {token}"})
        if response.is_error:
            return False
        self._keep(response.json())
        return True

    def _keep(self, tokens: Json) -> None:
        self._http.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        self._refresh_token = tokens["refresh_token"]


def parse_events(lines: Iterator[str]) -> Iterator[StreamEvent]:
    """Read the lines of a `text/event-stream`, as the HTML standard defines it."""
    fields: dict[str, list[str]] = {}
    for line in lines:
        if not line:
            if "data" in fields:
                yield _event(fields)
            fields = {}
        elif not line.startswith(":"):  # a comment keeps proxies from closing the stream
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))


def _event(fields: Mapping[str, list[str]]) -> StreamEvent:
    return StreamEvent(
        id=fields["id"][-1] if "id" in fields else None,
        event=fields.get("event", ["message"])[-1],
        data=json.loads("\n".join(fields["data"])),
    )


def _ends(event: StreamEvent) -> bool:
    if event.event not in ("snapshot", "status"):
        return False
    job = event.data.get("job", event.data)
    return job.get("status") in END_STATUSES


def _refusal(response: httpx.Response) -> ApiError:
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    problem.setdefault("title", response.reason_phrase)
    kind = _ERRORS.get(response.status_code, ApiError)
    return kind(response.status_code, problem, response.headers.get("Retry-After"))
