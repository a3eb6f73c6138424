"""The client reads event streams as the standard says, and tells refusals apart."""

from __future__ import annotations

import httpx
import pytest

from modelyard.client import (
    ApiError,
    Client,
    Invalid,
    StreamEvent,
    TooMany,
    Unreachable,
    parse_events,
)
from modelyard.ports import free_port


def test_an_event_has_an_id_a_type_and_data() -> None:
    lines = ["id: 7-0", "event: status", 'data: {"status": "running"}', ""]
    assert list(parse_events(iter(lines))) == [
        StreamEvent(id="7-0", event="status", data={"status": "running"})
    ]


def test_comments_and_empty_events_are_passed_over() -> None:
    lines = [": keep-alive", "", "id: 1", "", "data:{}", ""]
    assert list(parse_events(iter(lines))) == [StreamEvent(id=None, event="message", data={})]


def test_data_over_several_lines_is_joined() -> None:
    assert next(parse_events(iter(['data: {"a":', "data: 1}", ""]))).data == {"a": 1}


def test_an_event_that_was_cut_off_is_not_given_out() -> None:
    assert list(parse_events(iter(["event: status", 'data: {"status": "comp']))) == []


def test_a_refusal_names_the_fields_that_are_wrong() -> None:
    problem = {"title": "Unprocessable", "detail": "no", "errors": {"epochs": ["at least 1"]}}
    error = Invalid(422, problem, None)
    assert str(error) == "422 Unprocessable – no – epochs: at least 1"
    assert error.errors == {"epochs": ["at least 1"]}


@pytest.mark.parametrize(("status", "kind"), [(422, Invalid), (429, TooMany), (418, ApiError)])
def test_each_status_has_its_own_error(status: int, kind: type[ApiError]) -> None:
    transport = httpx.MockTransport(
        lambda request: httpx.Response(status, text="<html>", headers={"Retry-After": "3"})
    )
    client = Client("http://instance", transport=transport)
    with client, pytest.raises(kind) as refusal:
        client.get("/auth/me")
    assert type(refusal.value) is kind
    assert refusal.value.retry_after == "3"


def test_no_answer_is_an_error_with_the_address() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url) as client, pytest.raises(Unreachable, match=url):
        client.get("/auth/me")


def test_an_expired_token_is_renewed_once_and_the_call_repeated() -> None:
    tokens = {"access_token": "new", "refresh_token": "r2"}
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(f"{request.url.path} {request.headers.get('Authorization')}")
        if request.url.path.endswith(("/login", "/refresh")):
            first = request.url.path.endswith("/login")
            pair = {"access_token": "old", "refresh_token": "r1"} if first else tokens
            return httpx.Response(200, json=pair)
        fresh = request.headers["Authorization"] == "Bearer new"
        return httpx.Response(200 if fresh else 401, json={"id": 1})

    with Client("http://instance", transport=httpx.MockTransport(answer)) as client:
        client.login("a@b.c", "secret")
        assert client.get("/auth/me") == {"id": 1}
    assert seen[1:] == [
        "/api/v1/auth/me Bearer old",
        "/api/v1/auth/refresh Bearer r1",
        "/api/v1/auth/me Bearer new",
    ]


def test_a_stream_that_breaks_goes_on_after_the_last_event() -> None:
    streams = [
        b'id: 1\nevent: snapshot\ndata: {"status": "running"}\n\nid: 2\nevent: log\ndata: {}\n\n',
        b'id: 3\nevent: status\ndata: {"status": "completed"}\n\n',
    ]
    asked: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("Last-Event-ID"))
        return httpx.Response(200, content=streams[len(asked) - 1])

    with Client("http://instance", transport=httpx.MockTransport(answer)) as client:
        events = list(client.events(1, sleep=lambda seconds: None))
    assert [event.id for event in events] == ["1", "2", "3"]
    assert asked == [None, "2"]
