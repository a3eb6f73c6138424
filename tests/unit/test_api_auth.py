"""Accounts, logins and tokens."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from modelyard.settings import SettingsError
from tests.api import PASSWORD, Api, Person, serve
from webapp.extensions import db
from webapp.models import AuthSession, PersonalToken, User
from webapp.models.columns import utc_now
from webapp.services import accounts
from webapp.services.accounts import ensure_admin

REGISTRATION = {"email": "ada@example.org", "password": PASSWORD, "name": "Ada"}


def login(api: Api, email: str = "ada@example.org", password: str = PASSWORD) -> Person:
    """Return the person that a login makes; its refresh token is in ``refresh``."""
    answer = api.nobody.post("/auth/login", {"email": email, "password": password})
    assert answer.status_code == 200, answer.text
    person = Person(api.app, token=answer.json["access_token"])
    person.refresh = answer.json["refresh_token"]  # type: ignore[attr-defined]
    return person


def refresh(api: Api, token: str) -> object:
    return api.nobody.call("POST", "/auth/refresh", headers={"Authorization": f"Bearer {token}"})


def test_a_person_registers_logs_in_and_is_known(api: Api) -> None:
    registered = api.nobody.post("/auth/register", {**REGISTRATION, "email": "Ada@Example.org"})
    assert registered.status_code == 201
    assert registered.json["email"] == "ada@example.org"
    assert "password" not in registered.text
    assert login(api, "ADA@example.org").get("/auth/me").json == registered.json


def test_the_password_is_kept_as_argon2id(api: Api) -> None:
    api.nobody.post("/auth/register", REGISTRATION)
    with api.app.app_context():
        stored = db.session.scalar(select(User.password_hash))
    assert stored is not None
    assert stored.startswith("$argon2id$")


def test_an_address_registers_once_whatever_its_case(api: Api) -> None:
    api.nobody.post("/auth/register", REGISTRATION)
    again = api.nobody.post("/auth/register", {**REGISTRATION, "email": "ADA@EXAMPLE.ORG"})
    assert again.status_code == 409


@pytest.mark.parametrize(
    "password",
    ["short", "aaaaaaaaaaaa", "Password123", "abcdefghijkl", "9876543210", "ada@example.org"],
)
def test_a_weak_password_is_refused_and_not_repeated(api: Api, password: str) -> None:
    answer = api.nobody.post("/auth/register", {**REGISTRATION, "password": password})
    assert answer.status_code == 422
    assert list(answer.json["errors"]) == ["password"]
    if "@" not in password:
        assert password not in answer.text
    with api.app.app_context():
        assert accounts.find_user("ada@example.org") is None


def test_nobody_registers_where_registration_is_closed(tmp_path: Path) -> None:
    with serve(tmp_path, MODELYARD_REGISTRATION="closed") as api:
        assert api.nobody.post("/auth/register", REGISTRATION).status_code == 403


def test_a_wrong_password_and_an_unknown_address_are_told_alike(api: Api) -> None:
    api.person_with_password("ada")
    answers = [
        api.nobody.post("/auth/login", {"email": email, "password": "wrong password"})
        for email in ("ada@example.org", "nobody@example.org")
    ]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert answers[0].json == answers[1].json


def test_an_unknown_address_takes_as_long_as_a_wrong_password(api: Api) -> None:
    api.person_with_password("ada")

    def seconds(email: str) -> float:
        began = time.thread_time()  # of this thread: whatever else the machine does
        api.nobody.post("/auth/login", {"email": email, "password": "wrong password"})
        return time.thread_time() - began

    seconds("nobody@example.org")  # makes the hash that stands for nobody's password
    # In turn, that what slows the processor for a while slows both.
    pairs = [(seconds("ada@example.org"), seconds("nobody@example.org")) for _ in range(4)]
    known, unknown = (min(column) for column in zip(*pairs, strict=True))
    assert unknown == pytest.approx(known, rel=0.5)


def test_repeated_failures_are_answered_with_429_for_that_account_only(tmp_path: Path) -> None:
    with serve(tmp_path, MODELYARD_LOGIN_LIMIT="3 per minute") as api:
        api.person_with_password("ada")
        api.person_with_password("bob")
        wrong = {"email": "ada@example.org", "password": "wrong password"}
        statuses = [api.nobody.post("/auth/login", wrong).status_code for _ in range(3)]
        assert statuses == [401, 401, 401]
        blocked = api.nobody.post("/auth/login", {**wrong, "password": PASSWORD})
        assert blocked.status_code == 429
        assert blocked.mimetype == "application/problem+json"
        assert 0 < int(blocked.headers["Retry-After"]) <= 60
        assert login(api, "bob@example.org").get("/auth/me").status_code == 200


def test_successful_logins_are_not_counted(tmp_path: Path) -> None:
    with serve(tmp_path, MODELYARD_LOGIN_LIMIT="2 per minute") as api:
        api.person_with_password("ada")
        for _ in range(4):
            login(api)


def test_a_host_that_tries_many_accounts_is_stopped_too(tmp_path: Path) -> None:
    with serve(tmp_path, MODELYARD_LOGIN_LIMIT="1 per minute") as api:
        statuses = [
            api.nobody.post(
                "/auth/login", {"email": f"{i}@example.org", "password": "wrong password"}
            ).status_code
            for i in range(6)
        ]
    assert statuses == [401] * 5 + [429]


def test_a_limit_that_is_none_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="MODELYARD_LOGIN_LIMIT"):
        serve(tmp_path, MODELYARD_LOGIN_LIMIT="often").__enter__()


def test_a_refresh_token_is_exchanged_once(api: Api) -> None:
    api.person_with_password("ada")
    person = login(api)
    first = refresh(api, person.refresh)
    assert first.status_code == 200
    assert refresh(api, person.refresh).status_code == 401
    assert refresh(api, first.json["refresh_token"]).status_code == 200


def test_a_refresh_token_may_come_in_the_body(api: Api) -> None:
    api.person_with_password("ada")
    person = login(api)
    body = {"refresh_token": person.refresh}
    assert api.nobody.post("/auth/refresh", body).status_code == 200
    assert api.nobody.post("/auth/refresh", body).status_code == 401
    for token in (person.token, "nonsense", "a.b.c"):
        assert api.nobody.post("/auth/refresh", {"refresh_token": token}).status_code == 401


def test_a_refresh_token_that_comes_again_late_ends_the_session(api: Api) -> None:
    api.person_with_password("ada")
    person = login(api)
    pair = refresh(api, person.refresh).json
    with api.app.app_context():
        db.session.execute(update(AuthSession).values(rotated_at=utc_now() - timedelta(minutes=1)))
        db.session.commit()
    assert refresh(api, person.refresh).status_code == 401
    assert refresh(api, pair["refresh_token"]).status_code == 401
    assert Person(api.app, token=pair["access_token"]).get("/auth/me").status_code == 401


def test_logout_kills_both_tokens_at_once(api: Api) -> None:
    api.person_with_password("ada")
    person = login(api)
    other = login(api)
    assert person.call("POST", "/auth/logout").status_code == 204
    assert person.get("/auth/me").status_code == 401
    assert refresh(api, person.refresh).status_code == 401
    assert other.get("/auth/me").status_code == 200


def test_logout_holds_in_every_web_process(api: Api, tmp_path: Path) -> None:
    api.person_with_password("ada")
    person = login(api)
    with serve(tmp_path) as other_process:
        elsewhere = Person(other_process.app, token=person.token)
        assert elsewhere.get("/auth/me").status_code == 200
        person.call("POST", "/auth/logout")
        assert elsewhere.get("/auth/me").status_code == 401


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer x", "Bearer a.b.c", "Bearer my_x", "Basic YTpi", "Bearer a b c"],
)
def test_whatever_is_no_token_is_answered_alike(api: Api, header: str) -> None:
    answer = api.nobody.call("GET", "/auth/me", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json == api.nobody.get("/auth/me").json


def test_a_refresh_token_is_no_access_token(api: Api) -> None:
    api.person_with_password("ada")
    person = login(api)
    assert Person(api.app, token=person.refresh).get("/auth/me").status_code == 401
    assert refresh(api, person.token).status_code == 401


def test_a_personal_token_is_shown_once_and_kept_as_a_hash(api: Api) -> None:
    ada = api.person("ada")
    made = ada.post("/auth/tokens", {"name": "ci"})
    assert made.status_code == 201
    token = made.json["token"]
    assert token.startswith("my_")
    assert Person(api.app, token=token).get("/auth/me").json["id"] == ada.id
    listed = ada.get("/auth/tokens")
    assert token not in listed.text
    assert listed.json["items"][0]["last_used_at"] is not None
    with api.app.app_context():
        assert token not in str(db.session.scalar(select(PersonalToken.token_hash)))


def test_a_personal_token_dies_when_it_is_deleted_or_has_expired(api: Api) -> None:
    ada, bob = api.person("ada"), api.person("bob")
    made = ada.post("/auth/tokens", {"name": "ci", "expires_in_days": 1}).json
    with_token = Person(api.app, token=made["token"])
    assert bob.delete(f"/auth/tokens/{made['id']}").status_code == 404
    assert with_token.get("/auth/me").status_code == 200
    with api.app.app_context():
        db.session.execute(update(PersonalToken).values(expires_at=PersonalToken.created_at))
        db.session.commit()
    assert with_token.get("/auth/me").status_code == 401
    assert ada.delete(f"/auth/tokens/{made['id']}").status_code == 204
    assert ada.get("/auth/tokens").json["total"] == 0


def test_the_first_start_makes_one_administrator(api: Api) -> None:
    with api.app.app_context():
        made = ensure_admin()
        assert made is not None
        email, password = made
        assert password is not None
        assert ensure_admin() is None
    assert login(api, email, password).get("/auth/me").json["is_admin"] is True


def test_a_chosen_password_of_the_administrator_is_not_told(tmp_path: Path) -> None:
    with serve(tmp_path, MODELYARD_ADMIN_PASSWORD=PASSWORD) as api, api.app.app_context():
        assert ensure_admin() == ("admin@modelyard.local", None)
