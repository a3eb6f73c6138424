"""The API's pages for people, in a browser under the content security policy."""

from __future__ import annotations

from playwright.sync_api import Browser, expect

from tests.e2e.conftest import Watch
from tests.e2e.dashboard_server import Dashboard


def test_the_docs_list_every_call_with_nothing_from_outside(
    browser: Browser, dashboard: Dashboard
) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        watch = Watch(dashboard.url)
        watch.follow(page)
        page.goto(f"{dashboard.url}/api/docs")
        expect(page.locator(".opblock").nth(40)).to_be_attached()
        page.locator("#operations-Auth-auth_login .opblock-summary-control").click()
        page.get_by_text("Example Value").first.wait_for()
        assert watch.complaints == []
        assert watch.outside == []
