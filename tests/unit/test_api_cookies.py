"""A browser's login: cookies that scripts cannot read, and a CSRF value that they must send."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import jsonify
from flask.testing import FlaskClient
from flask_jwt_extended import create_access_token, decode_token

from tests.api import Api, serve
from webapp.api.authentication import set_login_cookies
from webapp.extensions import db
from webapp.models import User
from webapp.services import auth


@pytest.fixture
def browser(api: Api) -> FlaskClient:
    """A client with the cookies of a login."""
    ada = api.person("ada")

    @api.app.post("/log-in-for-test")
    def log_in() -> Any:
        user = db.session.get(User, ada.id)
        assert user is not None
        response = jsonify({})
        set_login_cookies(response, auth.open_session(user))
        return response

    client = api.app.test_client()
    client.post("/log-in-for-test")
    return client


def cookie(api: Api, browser: FlaskClient, kind: str) -> Any:
    return browser.get_cookie(api.app.config[f"JWT_{kind}_COOKIE_NAME"])


def test_cookies_suffice_for_reading(browser: FlaskClient) -> None:
    assert browser.get("/api/v1/auth/me").status_code == 200


def test_the_tokens_are_out_of_reach_of_scripts_and_other_sites(
    api: Api, browser: FlaskClient
) -> None:
    for kind in ("ACCESS", "REFRESH"):
        assert cookie(api, browser, kind).http_only
        assert cookie(api, browser, kind).same_site == "Lax"
        assert not cookie(api, browser, f"{kind}_CSRF").http_only


def test_a_change_needs_the_csrf_value(api: Api, browser: FlaskClient) -> None:
    refused = browser.post("/api/v1/projects", json={"name": "digits"})
    assert refused.status_code == 401
    wrong = {"X-CSRF-TOKEN": "0" * 36}
    assert browser.post("/api/v1/projects", json={}, headers=wrong).status_code == 401
    right = {"X-CSRF-TOKEN": cookie(api, browser, "ACCESS_CSRF").value}
    made = browser.post("/api/v1/projects", json={"name": "digits"}, headers=right)
    assert made.status_code == 201


def test_reading_renews_a_login_whose_access_token_ran_out(api: Api, browser: FlaskClient) -> None:
    name = api.app.config["JWT_ACCESS_COOKIE_NAME"]
    with api.app.test_request_context():
        claims = decode_token(browser.get_cookie(name).value)
        spent = create_access_token(
            claims["sub"],
            additional_claims={"sid": claims["sid"]},
            expires_delta=timedelta(seconds=-1),
        )
    browser.set_cookie(name, spent)
    assert browser.get("/api/v1/auth/me").status_code == 200
    assert browser.get_cookie(name).value != spent
    right = {"X-CSRF-TOKEN": cookie(api, browser, "ACCESS_CSRF").value}
    assert browser.post("/api/v1/projects", json={"name": "a"}, headers=right).status_code == 201


def test_a_login_that_ended_is_not_renewed(api: Api, browser: FlaskClient) -> None:
    right = {"X-CSRF-TOKEN": cookie(api, browser, "ACCESS_CSRF").value}
    assert browser.post("/api/v1/auth/logout", headers=right).status_code == 204
    assert browser.get("/api/v1/auth/me").status_code == 401


def test_two_instances_on_one_host_have_cookies_of_their_own(tmp_path: Path) -> None:
    with serve(tmp_path / "a") as one, serve(tmp_path / "b") as other:
        names = {app.config["JWT_ACCESS_COOKIE_NAME"] for app in (one.app, other.app)}
    assert len(names) == 2
