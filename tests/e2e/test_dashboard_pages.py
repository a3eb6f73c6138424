"""What a person does in the dashboard with the mouse and the keyboard."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import Watch, held_back, late_answer, log_in
from tests.e2e.dashboard_server import Dashboard, Worker


def test_a_wrong_password_is_refused_and_the_right_one_leads_to_the_projects(
    visitor: Page, watch: Watch
) -> None:
    log_in(visitor, password="not the password at all")
    expect(visitor.get_by_role("alert")).to_have_text("The address or the password is wrong")
    expect(visitor.get_by_label("Email")).to_have_value("ada@example.org")
    assert len(watch.complaints) == 1
    assert "401" in watch.complaints.pop()  # Chromium reports the refusal itself

    log_in(visitor)
    expect(visitor.get_by_role("heading", name="Projects")).to_be_visible()
    expect(visitor.get_by_text("Ada Lovelace")).to_be_visible()


def test_a_page_that_needs_a_login_is_shown_after_it(visitor: Page, dashboard: Dashboard) -> None:
    project_id = dashboard.project("Asked for")
    visitor.goto(f"/projects/{project_id}?q=resnet")
    expect(visitor).to_have_url(re.compile("/login"))
    visitor.get_by_label("Email").fill("ada@example.org")
    visitor.get_by_label("Password").fill("correct horse battery staple")
    visitor.keyboard.press("Enter")
    expect(visitor).to_have_url(f"{dashboard.url}/projects/{project_id}?q=resnet")


def test_the_login_leads_to_no_other_site(visitor: Page, dashboard: Dashboard) -> None:
    visitor.goto("/login?next=https://elsewhere.example/")
    visitor.get_by_label("Email").fill("ada@example.org")
    visitor.get_by_label("Password").fill("correct horse battery staple")
    visitor.get_by_role("button", name="Log in").click()
    expect(visitor).to_have_url(f"{dashboard.url}/")


def test_after_logging_out_no_page_is_shown(visitor: Page) -> None:
    log_in(visitor)
    visitor.get_by_role("button", name="Log out").click()
    expect(visitor).to_have_url(re.compile("/login"))
    visitor.goto("/")
    expect(visitor).to_have_url(re.compile("/login"))


def test_a_project_is_made_and_says_what_to_do_first(page: Page) -> None:
    page.get_by_role("button", name="New project").first.click()
    page.get_by_label("Name").fill("Steel plates")
    page.get_by_label("Description").fill("Defects, found by camera")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", name="Steel plates")).to_be_visible()
    expect(page.get_by_text("Defects, found by camera")).to_be_visible()
    expect(page.get_by_text("No experiment yet")).to_be_visible()
    page.get_by_role("link", name="Register a data set").click()
    expect(page.get_by_role("heading", name="Register a data set")).to_be_visible()


def test_a_job_is_described_in_the_form_and_started_with_it(
    page: Page, dashboard: Dashboard
) -> None:
    project_id = dashboard.project("New jobs")
    page.goto(f"/projects/{project_id}")
    page.get_by_role("link", name="New job").first.click()
    page.get_by_label("Name").fill("From the form")
    page.get_by_label("Model", exact=True).fill("resnet18")
    expect(page.locator("#model_name-hint")).to_contain_text("11.69 M parameters")
    page.get_by_label("Epochs", exact=True).fill("3")
    page.locator("[name='hyperparameters.weight_decay']:enabled").fill("0.01")
    page.get_by_role("button", name="Create and start").click()
    expect(page.get_by_role("heading", name="From the form")).to_be_visible()
    expect(page.locator("[data-badge]")).to_have_text("Queued")
    expect(page.locator(".facts")).to_contain_text("weight_decay")


def test_what_is_wrong_with_a_job_is_said_at_the_field(
    page: Page, dashboard: Dashboard, watch: Watch
) -> None:
    project_id = dashboard.project("Wrong jobs")
    page.goto(f"/projects/{project_id}/jobs/new")
    page.get_by_label("Model", exact=True).fill("resnet1800")
    page.locator("[name='hyperparameters.weight_decay']:enabled").fill("-1")
    page.evaluate("document.getElementById('new-job').noValidate = true")  # the server's own word
    page.get_by_role("button", name="Create only").click()
    expect(page.locator("[data-problem=model_name]")).to_contain_text("resnet18")
    problem = page.locator("fieldset:enabled [data-problem='hyperparameters.weight_decay']")
    expect(problem).to_contain_text("greater than or equal to 0")
    expect(page.get_by_label("Model", exact=True)).to_be_focused()
    assert "422" in watch.complaints.pop()


def test_a_long_list_is_turned_page_by_page(page: Page, dashboard: Dashboard) -> None:
    project_id = dashboard.project("Many")
    for number in range(53):
        dashboard.job(project_id, f"job {number:02}")
    page.goto(f"/projects/{project_id}")
    rows = page.locator("#experiments tbody tr")
    expect(rows).to_have_count(50)
    expect(rows.first).to_contain_text("job 52")
    page.get_by_role("link", name="Older").click()
    expect(rows).to_have_count(3)
    expect(rows.last).to_contain_text("job 00")
    page.get_by_role("link", name="Newest").click()
    expect(rows).to_have_count(50)


@pytest.mark.parametrize("path", ["/projects/999999", "/jobs/999999"])
def test_what_is_not_there_is_said_so_in_a_page(page: Page, watch: Watch, path: str) -> None:
    page.goto(path)
    expect(page.get_by_role("heading", name="Not found")).to_be_visible()
    assert "404" in watch.complaints.pop()


def test_the_parts_of_a_job_without_curves_and_files_stand_in_line(
    page: Page, dashboard: Dashboard
) -> None:
    page.goto(f"/jobs/{dashboard.job(dashboard.project('In line'), 'waits')}")
    expect(page.get_by_text("No curve yet")).to_be_visible()
    tops = page.evaluate(
        """() => [document.getElementById("charts-empty"),
                  document.getElementById("facts-title").closest(".card")]
                 .map((element) => element.getBoundingClientRect().top)"""
    )
    assert tops[0] == tops[1]
    files = page.get_by_text("Checkpoints and other files are listed here")
    expect(files).to_have_css("padding-left", re.compile(r"^1\d"))


def test_a_job_is_deleted_after_a_question_that_says_what_goes(
    page: Page, dashboard: Dashboard, watch: Watch
) -> None:
    project_id = dashboard.project("Deleted here")
    unstarted = dashboard.job(project_id, "never started")
    job_id = dashboard.job(project_id, "no longer wanted", started=True)
    page.goto(f"/jobs/{job_id}")
    delete = page.get_by_role("button", name="Delete")
    expect(page.locator("[data-badge]")).to_have_text("Queued")
    expect(delete).to_be_hidden()
    worker = Worker(dashboard, job_id)
    worker.starts()
    worker.ends("failed", error={"kind": "nan_loss", "message": "NaN", "hint": "Less"})
    expect(page.locator("[data-badge]")).to_have_text("Failed")
    delete.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Delete no longer wanted?")
    expect(dialog).to_contain_text("checkpoints, artifacts, exports, curves, log and history go")
    expect(dialog.get_by_role("button", name="Keep it")).to_be_focused()
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    expect(delete).to_be_focused()
    delete.click()
    dialog.get_by_role("button", name="Delete the job").click()
    expect(page).to_have_url(re.compile(rf"/projects/{project_id}$"))
    expect(page.get_by_text("no longer wanted: Deleted.")).to_be_visible()
    expect(page.locator("#experiments tbody tr")).to_have_count(1)
    page.goto(f"/jobs/{unstarted}")
    delete.click()
    expect(dialog).to_contain_text("It was never started")
    dialog.get_by_role("button", name="Delete the job").click()
    expect(page.get_by_text("No experiment yet")).to_be_visible()
    # The page of a job may still be asking for its parts when it is gone.
    watch.complaints[:] = [complaint for complaint in watch.complaints if "404" not in complaint]


def test_jobs_are_deleted_in_the_table_and_the_keyboard_keeps_its_place(
    page: Page, dashboard: Dashboard
) -> None:
    project_id = dashboard.project("Deleted there")
    for name in ("one", "two", "three"):
        dashboard.cancel(dashboard.job(project_id, name))
    page.goto(f"/projects/{project_id}")
    rows = page.locator("#experiments tbody tr")
    for left, name, next_one in ((2, "two", "one"), (1, "one", "three")):
        page.get_by_role("button", name=f"Delete {name}").press("Enter")
        page.get_by_role("button", name="Delete the job").press("Enter")
        expect(rows).to_have_count(left)
        expect(page.get_by_role("heading", name="Experiments")).to_have_text(f"Experiments {left}")
        expect(page.get_by_role("link", name=next_one, exact=True)).to_be_focused()
    page.get_by_role("button", name="Delete three").click()
    page.get_by_role("button", name="Delete the job").click()
    expect(page.get_by_text("No experiment yet")).to_be_visible()
    expect(page.get_by_text("three: Deleted.")).to_be_visible()


def test_a_job_that_comes_while_one_looks_is_counted(page: Page, dashboard: Dashboard) -> None:
    project_id = dashboard.project("Counted")
    dashboard.job(project_id, "first")
    page.goto(f"/projects/{project_id}")
    expect(page.locator("#live")).to_have_text("Live")
    dashboard.job(project_id, "second")
    expect(page.locator("#experiments tbody tr")).to_have_count(2)
    expect(page.get_by_role("heading", name="Experiments")).to_have_text("Experiments 2")


def test_a_click_before_the_scripts_have_come_is_not_lost(page: Page, dashboard: Dashboard) -> None:
    project_id = dashboard.project("Slow network")
    dashboard.job(project_id, "hasty")
    with held_back(page, "project.js"):
        page.goto(f"/projects/{project_id}", wait_until="commit")
        start = page.get_by_role("button", name="Start")
        start.click()
        start.click()
        expect(start).to_have_attribute("aria-busy", "true")
        expect(page.locator("[data-badge]")).to_have_text("Pending")
    expect(page.locator("[data-badge]")).to_have_text("Queued")
    expect(page.get_by_role("alert")).to_be_empty()


def test_a_form_sent_before_the_scripts_have_come_is_sent_by_them(
    page: Page, dashboard: Dashboard
) -> None:
    with held_back(page, "forms.js"):
        page.goto("/", wait_until="commit")
        page.get_by_role("button", name="New project").first.click()
    page.get_by_label("Name").fill("Hasty")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", name="Hasty")).to_be_visible()

    project_id = dashboard.project("Hasty form")
    with held_back(page, "new-job.js"):
        page.goto(f"/projects/{project_id}/jobs/new", wait_until="commit")
        page.get_by_label("Name").fill("before the scripts")
        page.get_by_label("Model", exact=True).fill("resnet18")
        epochs = page.get_by_label("Epochs", exact=True)
        epochs.fill("7")
        epochs.press("Enter")
    expect(page.get_by_role("heading", name="before the scripts")).to_be_visible()
    expect(page.locator(".stats [data-field=epochs]")).to_have_text("0 / 7")


def test_what_is_filled_in_before_the_scripts_have_come_stays(
    page: Page, dashboard: Dashboard, tmp_path: Path
) -> None:
    project_id = dashboard.project("Hasty fields")
    job_id = dashboard.job(project_id, "to be copied")
    with held_back(page, "new-job.js"):
        page.goto(f"/projects/{project_id}/jobs/new?from={job_id}", wait_until="commit")
        page.get_by_label("Epochs", exact=True).fill("9")
        page.get_by_label("Weights to begin with").select_option("job")
        page.get_by_label("Model", exact=True).fill("no model at all")
    expect(page.get_by_label("Job", exact=True)).to_be_visible()
    expect(page.get_by_label("Epochs", exact=True)).to_have_value("9")
    expect(page.get_by_label("Batch size")).to_have_value("32")
    expect(page.locator("#model_name-hint")).to_contain_text("No model has these words")

    (tmp_path / "early bird.zip").write_bytes(b"no zip")
    with held_back(page, "dataset-form.js"):
        page.goto(f"/projects/{project_id}/datasets", wait_until="commit")
        page.get_by_label("Zip file").set_input_files(tmp_path / "early bird.zip")
        page.get_by_label("Already on the server").check()
    expect(page.get_by_label("Folder")).to_be_visible()
    expect(page.get_by_label("Name")).to_have_value("early bird")


def test_the_keyboard_stays_where_the_person_went_while_the_models_are_looked_for(
    page: Page, dashboard: Dashboard
) -> None:
    page.goto(f"/projects/{dashboard.project('Slow models')}/jobs/new")
    page.get_by_label("Model", exact=True).fill("18 resnet")
    choice = page.get_by_role("button", name="resnet18 ").first
    expect(choice).to_be_visible()
    with late_answer(page, "**/api/v1/models?*q=*"):
        choice.click()
        page.get_by_label("Seed").focus()
    expect(page.locator("#model_name-hint")).to_contain_text("M parameters")
    expect(page.get_by_label("Seed")).to_be_focused()


def test_a_form_whose_answer_is_late_makes_one_job(page: Page, dashboard: Dashboard) -> None:
    project_id = dashboard.project("Once only")
    page.goto(f"/projects/{project_id}/jobs/new")
    page.get_by_label("Name").fill("only one")
    page.get_by_label("Model", exact=True).fill("resnet18")
    with late_answer(page, "**/api/v1/training/jobs"):
        page.get_by_role("button", name="Create only").click()
        page.get_by_role("button", name="Create and start").click()
    expect(page.get_by_role("heading", name="only one")).to_be_visible()
    expect(page.locator("[data-badge]")).to_have_text("Pending")
    page.goto(f"/projects/{project_id}")
    expect(page.locator("#experiments tbody tr")).to_have_count(1)
