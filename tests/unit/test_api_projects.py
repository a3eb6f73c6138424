"""Projects, their members, and who may do what."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api import Api, Person


def test_a_project_is_made_read_changed_and_deleted(api: Api) -> None:
    ada = api.person("ada")
    made = ada.post("/projects/", {"name": " digits ", "description": "of UCI\nreally"})
    assert made.status_code == 201
    assert made.json["name"] == "digits"
    assert made.json["role"] == "owner"
    address = f"/projects/{made.json['id']}"
    assert ada.get(address).json == made.json
    assert ada.patch(address, {"name": "letters"}).json["description"] == "of UCI\nreally"
    assert ada.delete(address).status_code == 204
    assert ada.get(address).status_code == 404


def test_a_list_comes_in_pages_the_newest_first(api: Api) -> None:
    ada = api.person("ada")
    ids = [ada.project(f"p{i}") for i in range(5)]
    api.person("bob").project()
    seen, cursor = [], None
    while True:
        query: dict[str, Any] = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = ada.get("/projects", **query).json
        assert page["total"] == 5
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ids[::-1]


@pytest.mark.parametrize("cursor", ["x", "W10", "WyJhIl0", "WzFd" * 50, "WzEuNV0", "W251bGxd"])
def test_a_cursor_that_is_none_is_refused(api: Api, cursor: str) -> None:
    answer = api.person("ada").get("/projects", cursor=cursor)
    assert answer.status_code == 422
    assert list(answer.json["errors"]) == ["cursor"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": 5}, "name"),
        ({"name": None}, "name"),
        ({"name": "a", "description": "\0"}, "description"),
        ({"name": "a", "colour": "red"}, "colour"),
    ],
)
def test_wrong_fields_are_named(api: Api, body: dict[str, Any], field: str) -> None:
    ada = api.person("ada")
    answer = ada.post("/projects", body)
    assert answer.status_code == 422
    assert list(answer.json["errors"]) == [field]
    assert ada.get("/projects").json["total"] == 0


@pytest.mark.parametrize(
    "text",
    ['{"name": NaN}', '{"name": 1e999}', "{", "[]", "null", '"{}"', '{"name": "\\ud800"}', "\xff"],
)
def test_a_body_that_is_no_json_object_is_refused(api: Api, text: str) -> None:
    ada = api.person("ada")
    sent = text.encode("latin-1")
    answer = ada.call("POST", "/projects", data=sent, content_type="application/json")
    assert answer.status_code == 422


def test_a_body_must_say_that_it_is_json_and_be_of_modest_size(api: Api) -> None:
    ada = api.person("ada")
    assert ada.call("POST", "/projects", data="a=b").status_code == 415
    large = {"name": "a", "description": "x" * 2**20}
    assert ada.post("/projects", large).status_code == 413


def test_a_body_may_not_be_nested_without_end(api: Api) -> None:
    text = '{"name":' + "[" * 100_000 + "]" * 100_000 + "}"
    answer = api.person("ada").call("POST", "/projects", data=text, content_type="application/json")
    assert answer.status_code == 422


@pytest.fixture
def team(api: Api) -> dict[str, Person]:
    """People with each role in project 1."""
    people = {name: api.person(name) for name in ("owner", "editor", "viewer", "stranger")}
    people["admin"] = api.person("admin", admin=True)
    assert people["owner"].project() == 1
    for role in ("editor", "viewer"):
        body = {"email": people[role].email, "role": role}
        assert people["owner"].post("/projects/1/members", body).status_code == 201
    return people


@pytest.mark.parametrize(
    ("method", "path", "body", "allowed"),
    [
        ("GET", "/projects/1", None, "viewer"),
        ("PATCH", "/projects/1", {"name": "b"}, "editor"),
        ("DELETE", "/projects/1", None, "owner"),
        ("GET", "/projects/1/members", None, "viewer"),
        ("POST", "/projects/1/members", {"email": "new@example.org", "role": "viewer"}, "owner"),
        ("PATCH", "/projects/1/members/3", {"role": "editor"}, "owner"),
        ("DELETE", "/projects/1/members/2", None, "owner"),
    ],
)
def test_each_call_asks_for_a_role(
    api: Api, team: dict[str, Person], method: str, path: str, body: Any, allowed: str
) -> None:
    api.person("new")
    order = ["viewer", "editor", "owner"]
    for name in ("stranger", *order[: order.index(allowed)]):
        if method == "DELETE" and path.endswith("/2") and name == "editor":
            continue  # anybody may take out themselves
        answer = team[name].call(method, path, json=body)
        assert answer.status_code == (404 if name == "stranger" else 403), name
    assert team["admin"].call(method, path, json=body).status_code in (200, 201, 204)


def test_the_last_owner_stays(team: dict[str, Person]) -> None:
    owner, editor = team["owner"], team["editor"]
    assert owner.delete(f"/projects/1/members/{owner.id}").status_code == 409
    assert owner.patch(f"/projects/1/members/{owner.id}", {"role": "viewer"}).status_code == 409
    assert owner.patch(f"/projects/1/members/{editor.id}", {"role": "owner"}).status_code == 200
    assert owner.delete(f"/projects/1/members/{owner.id}").status_code == 204
    assert owner.get("/projects/1").status_code == 404


def test_a_member_may_leave(team: dict[str, Person]) -> None:
    viewer = team["viewer"]
    assert viewer.delete(f"/projects/1/members/{viewer.id}").status_code == 204
    assert viewer.get("/projects/1").status_code == 404


def test_a_member_is_added_once_and_must_exist(team: dict[str, Person]) -> None:
    owner = team["owner"]
    again = owner.post("/projects/1/members", {"email": team["viewer"].email, "role": "owner"})
    assert again.status_code == 409
    unknown = owner.post("/projects/1/members", {"email": "who@example.org", "role": "owner"})
    assert unknown.status_code == 422
    assert list(unknown.json["errors"]) == ["email"]


@pytest.mark.parametrize("id", ["0", "x", "2147483648", "9" * 40, "-1", "1.0"])
def test_an_address_that_holds_no_id_is_not_found(api: Api, id: str) -> None:
    answer = api.person("ada").get(f"/projects/{id}")
    assert answer.status_code == 404
    assert answer.mimetype == "application/problem+json"
