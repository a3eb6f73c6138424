"""The page of queues and workers."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.e2e.conftest import log_in
from tests.e2e.dashboard_server import ADMIN_EMAIL, Dashboard


def test_an_administrator_drains_a_worker_and_lets_it_take_jobs_again(
    visitor: Page, dashboard: Dashboard
) -> None:
    log_in(visitor, email=ADMIN_EMAIL)
    with dashboard.draining_worker("gpu-box-3", status="online"):
        visitor.goto("/workers")
        worker = visitor.get_by_role("row").filter(has_text="gpu-box-3")
        drain = visitor.get_by_role("button", name="Drain gpu-box-3")
        drain.focus()
        visitor.keyboard.press("Enter")
        expect(visitor.get_by_text("takes nothing new")).to_be_visible()  # for some seconds
        expect(worker.locator("[data-badge]")).to_have_text("Draining")
        undo = visitor.get_by_role("button", name="Let gpu-box-3 take jobs again")
        expect(undo).to_be_focused()
        undo.click()
        expect(worker.locator("[data-badge]")).to_have_text("Online")
        expect(drain).to_be_visible()


def test_who_is_no_administrator_sees_workers_and_no_buttons(
    page: Page, dashboard: Dashboard
) -> None:
    with dashboard.draining_worker("gpu-box-4"):
        page.goto("/workers")
        worker = page.get_by_role("row").filter(has_text="gpu-box-4")
        expect(worker.locator("[data-badge]")).to_have_text("Draining")
        expect(worker.get_by_role("button")).to_have_count(0)
