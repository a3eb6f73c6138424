"""The page of what takes how much room."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from tests.e2e.dashboard_server import Dashboard, Worker
from webapp.extensions import db
from webapp.models import Job
from webapp.services import disk_use
from webapp.services.outputs import output_dir

DISKS = [
    {"name": "outputs", "total": 10**12, "free": 4 * 10**9, "low": True},
    {"name": "data_cache", "total": 10**12, "free": 5 * 10**11, "low": False},
]


ONE_VOLUME = [
    {"name": name, "volume": 66306, "total": 10**12, "free": free, "low": False}
    for name, free in (("outputs", 3 * 10**11), ("data_cache", 3 * 10**11 - 4096))
]


def left_files(dashboard: Dashboard, job_id: int, size: int) -> Path:
    with dashboard.app.app_context():
        folder = output_dir(job_id)
        folder.mkdir(parents=True)
        (folder / "model.bin").write_bytes(b"x" * size)
        disk_use.measure()
        return folder


def test_it_tells_what_is_used_and_what_is_left(page: Page, dashboard: Dashboard) -> None:
    project = dashboard.project("Voluminous")
    job = dashboard.job(project, "large")
    left_files(dashboard, job, 2_500_000)
    with dashboard.draining_worker("gpu-box-7", status="online", disks=DISKS):
        page.get_by_role("link", name="Storage").click()
        expect(page.get_by_role("row").filter(has_text="Voluminous")).to_contain_text("2.5 MB")
        expect(page.get_by_role("row").filter(has_text="Web host").first).to_contain_text("free")
        cells = page.get_by_role("row").filter(has_text="gpu-box-7")
        expect(cells.first).to_contain_text("4 GB of 1 TB freenearly full")
        expect(cells.last).to_contain_text("Cache of data sets")
        page.goto("/workers")
        worker = page.get_by_role("row").filter(has_text="gpu-box-7.lan")
        expect(worker).to_contain_text("Outputs: the disk is nearly full")
    page.goto(f"/jobs/{job}")
    expect(page.locator("dl.facts")).to_contain_text("2.5 MB")


def test_a_volume_that_holds_both_folders_of_a_worker_is_listed_once(
    page: Page, dashboard: Dashboard
) -> None:
    with dashboard.draining_worker("gpu-box-8", status="online", disks=ONE_VOLUME):
        page.goto("/storage")
        row = page.get_by_role("row").filter(has_text="gpu-box-8")
        expect(row).to_have_count(1)
        expect(row).to_contain_text("Outputs of jobs")
        expect(row).to_contain_text("Cache of data sets")
        expect(row).to_contain_text("300 GB of 1 TB free")


def test_a_job_whose_last_checkpoint_is_gone_offers_no_resume(
    page: Page, dashboard: Dashboard
) -> None:
    job = dashboard.job(dashboard.project("Old"), "stopped", started=True)
    worker = Worker(dashboard, job)
    worker.starts()
    worker.ends("failed", error={"kind": "nan_loss", "message": "NaN", "hint": "Less"})
    page.goto(f"/jobs/{job}")
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    with dashboard.app.app_context():
        db.session.get_one(Job, job).last_checkpoint = "gone"
        db.session.commit()
    page.goto(f"/jobs/{job}")
    expect(page.locator("dl.facts")).to_contain_text("it cannot be resumed")
    expect(page.get_by_role("button", name="Resume")).to_have_count(0)
