"""An urgent job that takes another's place: asked for in the form, told on both jobs' pages."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.e2e.conftest import Watch, log_in
from tests.e2e.dashboard_server import PASSWORD, Dashboard, Worker
from tests.e2e.test_new_job_form import made, open_form, picture
from webapp.extensions import db
from webapp.models import Project, Role
from webapp.services import accounts, projects


def test_the_form_asks_for_anothers_place_and_says_who_may(
    page: Page, dashboard: Dashboard, watch: Watch
) -> None:
    project_id = open_form(page, dashboard, "Urgent")
    page.get_by_label("Model", exact=True).fill("resnet18")
    box = page.get_by_label("If no slot is free")
    box.check()
    page.get_by_role("button", name="Create only").click()
    problem = page.locator("[data-problem=preempt]")
    expect(problem).to_contain_text("Only a job of priority 5 or more may take another's place")
    picture(page, "new-job-preempt")
    assert "422" in watch.complaints.pop()  # Chromium reports the refusal itself
    page.get_by_label("Priority").fill("9")
    page.get_by_role("button", name="Create only").click()
    job = made(dashboard, page)
    assert (job["preempt"], job["priority"]) == (True, 9)
    expect(page.get_by_text("may take the place of a less urgent job")).to_be_visible()
    page.goto(f"/projects/{project_id}/jobs/new?from={job['id']}")
    expect(box).to_be_checked()


def test_both_jobs_tell_who_makes_place_for_whom(page: Page, dashboard: Dashboard) -> None:
    project_id = dashboard.project("Displaced")
    low = dashboard.job(project_id, "less urgent", started=True, priority=2)
    worker = Worker(dashboard, low, name="gpu-box-6")  # nobody else's jobs are on it
    worker.starts()
    worker.is_at(epoch=3, epochs=12, percent=25.5, eta_seconds=950)
    with dashboard.draining_worker("gpu-box-6", status="online", busy=1):
        urgent = dashboard.job(project_id, "urgent", started=True, priority=9, preempt=True)
        dashboard.look_for_places()
        page.goto(f"/jobs/{urgent}")
        expect(page.locator("[data-field=waiting]")).to_have_text(
            f"Job {low} (priority 2) on gpu-box-6 is writing its checkpoint to make place"
        )
        picture(page, "job-urgent")
        page.goto(f"/jobs/{low}")
        expect(page.locator("#live")).to_have_text("Live")
        worker.ends("preempted")
        expect(page.locator("[data-badge]").first).to_have_text("Queued")
        expect(page.locator("[data-field=waiting]")).to_contain_text(
            re.compile(
                rf"Gave its place to job {urgent}; \d+ jobs? (is|are) ahead in the queue timm"
            )
        )
        history = page.locator("[data-panel=history]")
        expect(history).to_contain_text(f"gave its place to job {urgent} (priority 9)")
        expect(page.locator("[data-panel=attempts]")).to_contain_text("Preempted")
        picture(page, "job-displaced")
    dashboard.cancel(urgent)


def editor(dashboard: Dashboard, project_id: int, email: str) -> None:
    """Let another person be an editor of a project."""
    with dashboard.app.app_context():
        accounts.create_user(email=email, password=PASSWORD, name="Eve")
        project = db.session.get_one(Project, project_id)
        projects.add_member(project, email=email, role=Role.EDITOR)


def test_who_may_not_let_a_job_take_anothers_place_has_copies_that_do_not(
    visitor: Page, dashboard: Dashboard
) -> None:
    project_id = dashboard.project("Urgent copies")
    urgent = dashboard.job(project_id, "urgent", priority=9, preempt=True)
    editor(dashboard, project_id, "eve@example.org")
    log_in(visitor, email="eve@example.org")
    visitor.goto(f"/jobs/{urgent}")
    visitor.get_by_role("button", name="Clone").click()
    expect(visitor.get_by_role("heading", name="urgent (copy)")).to_be_visible()
    expect(visitor.get_by_text("only an owner of the project may allow that")).to_be_visible()
    expect(visitor.locator("[data-panel=history]")).to_contain_text(f"cloned from job {urgent}")
    expect(visitor.locator("[data-panel=facts]")).not_to_contain_text("may take the place")
    visitor.goto(f"/projects/{project_id}/jobs/new?from={urgent}")
    expect(visitor.get_by_text("that is for owners of the project")).to_be_visible()
