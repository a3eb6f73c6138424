"""Every page, light and dark, wide and narrow: no finding of axe, nothing cut off."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from adapters.contract import DatasetFormat, TaskType
from tests.e2e.dashboard_server import Dashboard, Worker

PAGES = (
    "/",
    "/projects/{project}",
    "/projects/{project}?q=nothing",
    "/projects/{project}/datasets",
    "/datasets/{dataset}",
    "/datasets/{broken}",
    "/projects/{project}/jobs/new",
    "/jobs/{running}",
    "/jobs/{failed}",
    "/jobs/{pending}",
    "/workers",
    "/storage",
)


@pytest.fixture(scope="module")
def ids(dashboard: Dashboard) -> dict[str, int]:
    """A project with a job of each look."""
    project = dashboard.project("Everything", "A job of each look")
    other = dashboard.empty_project("Data sets")
    dataset = dashboard.dataset(other, DatasetFormat.YOLO, TaskType.POSE_ESTIMATION)
    running = dashboard.job(project, "running", started=True, tags=["baseline"], notes="Why not")
    worker = Worker(dashboard, running)
    worker.starts()
    worker.is_at(epoch=2, epochs=12, percent=14.0, eta_seconds=40)
    for epoch in (1, 2):
        worker.measures(epoch=epoch, train_loss=1 / epoch, val_loss=1.2 / epoch, top1=0.5)
    worker.logs("epoch 1", "epoch 2")
    worker.keeps("checkpoints/last.pt")
    failed = dashboard.job(project, "failed", started=True)
    unlucky = Worker(dashboard, failed)
    unlucky.starts()
    unlucky.ends("failed", error={"kind": "nan_loss", "message": "NaN", "hint": "Less"})
    dashboard.job(project, "queued", started=True)
    return {
        "project": project,
        "dataset": dataset,
        "broken": dashboard.broken_dataset(other),
        "running": running,
        "failed": failed,
        "pending": dashboard.job(project, "pending"),
    }


@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_nothing_in_light_and_in_dark(page: Page, ids: dict[str, int], path: str) -> None:
    page.goto(path.format(**ids))
    wait_until_drawn(page)
    assert findings(page) == []
    page.emulate_media(color_scheme="dark")
    assert findings(page) == []


def test_axe_finds_nothing_in_the_login(visitor: Page) -> None:
    visitor.goto("/login")
    assert findings(visitor) == []


def test_axe_finds_nothing_in_the_dialogs(page: Page, ids: dict[str, int]) -> None:
    page.get_by_role("button", name="New project").first.click()
    assert findings(page) == []
    page.goto(f"/jobs/{ids['running']}")
    page.get_by_role("button", name="Cancel", exact=True).click()
    assert findings(page) == []
    page.goto(f"/jobs/{ids['pending']}")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert findings(page) == []
    page.goto(f"/datasets/{ids['dataset']}")
    page.locator(".preview-open").first.click()
    assert findings(page) == []


@pytest.mark.parametrize("path", PAGES)
def test_a_narrow_screen_needs_no_sideways_scrolling(
    page: Page, ids: dict[str, int], path: str
) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(path.format(**ids))
    wait_until_drawn(page)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390


def test_long_names_and_the_whole_navigation_fit_a_narrow_screen(
    page: Page, dashboard: Dashboard
) -> None:
    project_id = dashboard.project("unbroken" * 12)
    job_id = dashboard.job(
        project_id, "unbroken" * 25, tags=["unbroken" * 6], notes="unbroken" * 50
    )
    page.set_viewport_size({"width": 390, "height": 800})
    project = f"/projects/{project_id}"
    for path in ("/", project, f"{project}/jobs/new", f"/jobs/{job_id}", "/storage"):
        page.goto(path)
        wait_until_drawn(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    navigation = page.get_by_role("navigation", name="Main")
    assert navigation.evaluate("element => element.scrollWidth <= element.clientWidth")


def wait_until_drawn(page: Page) -> None:
    if page.locator("#live").count():
        expect(page.locator("#live")).not_to_have_text("Connecting…")
    loss = page.locator(".stats [data-field=loss]")
    if loss.count() and loss.inner_text() != "–":  # the server's word, before any curve
        expect(page.locator("[data-chart=loss]")).to_be_visible()
    if page.locator("#preview").count():
        expect(page.locator(".preview-card").first).to_be_visible()
    page.evaluate("document.fonts.ready")


def findings(page: Page) -> list[str]:
    violations = Axe().run(page).response["violations"]
    return [
        f"{violation['impact']} {violation['id']}: {node['html'][:150]} {node['failureSummary']}"
        for violation in violations
        for node in violation["nodes"]
    ]
