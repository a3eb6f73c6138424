"""The pages follow what happens, without a reload."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import BrowserContext, Locator, Page, Route, expect

from tests.e2e.conftest import Watch, late_answer, log_in
from tests.e2e.dashboard_server import Dashboard, Worker


@contextmanager
def no_reload(page: Page) -> Iterator[None]:
    page.evaluate("window.stillTheSamePage = true")
    yield
    assert page.evaluate("window.stillTheSamePage === true"), "the page was loaded again"


def open_project(page: Page, project_id: int) -> None:
    page.goto(f"/projects/{project_id}")
    expect(page.locator("#live")).to_have_text("Live")


def open_job(page: Page, job_id: int) -> None:
    page.goto(f"/jobs/{job_id}")
    expect(page.locator("#live")).to_have_text("Live")


def row(page: Page, job_id: int) -> Locator:
    return page.locator(f"#experiments [data-job='{job_id}']")


def badge(place: Page | Locator) -> Locator:
    return place.locator("[data-badge]")


def test_a_row_follows_its_job_from_start_to_end(page: Page, dashboard: Dashboard) -> None:
    project_id = dashboard.project("Followed")
    job_id = dashboard.job(project_id, "followed")
    open_project(page, project_id)
    experiment = row(page, job_id)
    with no_reload(page):
        expect(badge(experiment)).to_have_text("Pending")
        experiment.get_by_role("button", name="Start").click()
        expect(badge(experiment)).to_have_text("Queued")
        expect(experiment).to_contain_text("No worker serves the queue timm")
        expect(experiment.get_by_role("button", name="Start")).to_be_hidden()
        expect(experiment.get_by_role("button", name="Cancel")).to_be_focused()

        worker = Worker(dashboard, job_id)
        worker.starts()
        expect(badge(experiment)).to_have_text("Running")
        expect(experiment.get_by_text("No worker serves")).to_be_hidden()
        worker.is_at(epoch=3, epochs=12, percent=25.5, eta_seconds=95)
        expect(experiment).to_contain_text("3 / 12")
        expect(experiment).to_contain_text("1 min 35 s left")
        expect(experiment.locator("progress")).to_have_attribute("value", "25.5")
        worker.measures(epoch=3, train_loss=0.5, val_loss=0.25, top1=0.9)
        expect(experiment.locator("[data-field=accuracy]")).to_have_text("90.0 %")
        expect(experiment.locator("[data-field=loss]")).to_have_text("0.25")
        worker.measures(epoch=4, train_loss=0.4, val_loss=0.3, top1=0.8)
        expect(experiment.locator("[data-field=accuracy]")).to_have_text("90.0 %")
        expect(experiment.locator("[data-field=loss]")).to_have_text("0.3")
        worker.ends("completed")
        expect(badge(experiment)).to_have_text("Completed")
        expect(experiment.get_by_role("button")).to_contain_text(["Delete"])


def test_a_failure_says_why_in_its_row_and_what_to_do_on_its_page(
    page: Page, dashboard: Dashboard
) -> None:
    project_id = dashboard.project("Failing")
    job_id = dashboard.job(project_id, "failing", started=True)
    open_project(page, project_id)
    worker = Worker(dashboard, job_id)
    worker.starts()
    worker.ends(
        "failed",
        error={
            "kind": "out_of_memory",
            "message": "The GPU has not enough memory for batches of 512 images",
            "hint": "Start again with batch size 256",
        },
    )
    with no_reload(page):
        expect(badge(row(page, job_id))).to_have_text("Failed")
        expect(row(page, job_id)).to_contain_text("not enough memory")
    page.get_by_role("link", name="failing").click()
    expect(page.get_by_role("alert").first).to_contain_text("batch size 256")


def test_why_a_job_waits_stays_true(page: Page, dashboard: Dashboard) -> None:
    project_id = dashboard.project("Waiting")
    job_id = dashboard.job(project_id, "waiting", started=True)
    open_project(page, project_id)
    expect(row(page, job_id)).to_contain_text("No worker serves the queue timm")
    with dashboard.draining_worker("gpu-box-9"):
        expect(row(page, job_id)).to_contain_text("takes no new job: gpu-box-9")
        open_job(page, job_id)
        expect(page.get_by_text("takes no new job: gpu-box-9")).to_be_visible()
    expect(page.get_by_text("No worker serves the queue timm")).to_be_visible()


def test_a_job_that_is_asked_for_its_place_says_so(page: Page, dashboard: Dashboard) -> None:
    project_id = dashboard.project("Places")
    job_id = dashboard.job(project_id, "makes place", started=True, priority=0)
    Worker(dashboard, job_id, name="gpu-box-8").starts()
    open_job(page, job_id)
    asked = page.get_by_text("It was asked to give its place to job")
    expect(asked).to_be_hidden()
    with dashboard.draining_worker("gpu-box-8", status="online"), no_reload(page):
        urgent = dashboard.job(project_id, "urgent", started=True, priority=9, preempt=True)
        dashboard.look_for_places()
        expect(asked).to_contain_text(f"place to job {urgent}, which is more urgent")
        expect(badge(page).first).to_have_text("Running")
        page.reload()
        expect(asked).to_be_visible()
        page.evaluate("window.stillTheSamePage = true")
        dashboard.cancel(urgent)
        dashboard.look_for_places()
        expect(asked).to_be_hidden()


def test_a_job_that_somebody_else_makes_appears(page: Page, dashboard: Dashboard) -> None:
    project_id = dashboard.project("Shared")
    open_project(page, project_id)
    expect(page.get_by_text("No experiment yet")).to_be_visible()
    with no_reload(page):
        first = dashboard.job(project_id, "first of another person")
        expect(row(page, first)).to_contain_text("first of another person")
        expect(page.get_by_text("No experiment yet")).to_be_hidden()
        second = dashboard.job(project_id, "second of another person")
        expect(row(page, second)).to_be_visible()
    expect(page.locator("#experiments tbody tr").first).to_contain_text("second")


def test_a_queued_job_is_cancelled_at_once_and_may_be_resumed(
    page: Page, dashboard: Dashboard
) -> None:
    project_id = dashboard.project("Cancelled")
    job_id = dashboard.job(project_id, "queued")
    open_project(page, project_id)
    experiment = row(page, job_id)
    with no_reload(page):
        experiment.get_by_role("button", name="Start").click()
        expect(badge(experiment)).to_have_text("Queued")
        experiment.get_by_role("button", name="Cancel").click()
        expect(badge(experiment)).to_have_text("Cancelled")
        assert dashboard.status(job_id) == "cancelled"
        experiment.get_by_role("button", name="Resume").click()
        expect(badge(experiment)).to_have_text("Queued")


def test_what_never_started_cannot_be_resumed(page: Page, dashboard: Dashboard) -> None:
    project_id = dashboard.project("Never started")
    job_id = dashboard.job(project_id, "never")
    open_project(page, project_id)
    row(page, job_id).get_by_role("button", name="Cancel").click()
    expect(badge(row(page, job_id))).to_have_text("Cancelled")
    expect(row(page, job_id).get_by_role("button")).to_contain_text(["Delete"])


def test_the_cancel_of_a_running_job_asks_how(page: Page, dashboard: Dashboard) -> None:
    project_id = dashboard.project("Asks how")
    job_id = dashboard.job(project_id, "running", started=True)
    Worker(dashboard, job_id).starts()
    open_job(page, job_id)
    cancel = page.get_by_role("button", name="Cancel", exact=True)
    dialog = page.get_by_role("dialog")
    cancel.click()
    dialog.get_by_role("button", name="Keep training").click()
    expect(dialog).to_be_hidden()
    assert dashboard.status(job_id) == "running"

    cancel.click()
    dialog.get_by_label("After this epoch").check()
    dialog.get_by_role("button", name="Cancel the job").click()
    expect(badge(page)).to_have_text("Cancelling")
    assert dashboard.status(job_id) == "cancelling"


def test_the_question_how_to_cancel_goes_when_the_job_has_ended(
    page: Page, dashboard: Dashboard
) -> None:
    job_id = dashboard.job(dashboard.project("Ends meanwhile"), "ends", started=True)
    worker = Worker(dashboard, job_id)
    worker.starts()
    open_job(page, job_id)
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.get_by_role("dialog")).to_be_visible()
    worker.ends("completed")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(badge(page)).to_have_text("Completed")
    expect(page.get_by_role("button", name="Clone", exact=True)).to_be_focused()


def test_the_curves_grow_and_an_epoch_is_never_drawn_twice(
    page: Page, dashboard: Dashboard
) -> None:
    project_id = dashboard.project("Curves")
    job_id = dashboard.job(project_id, "curves", started=True)
    worker = Worker(dashboard, job_id)
    worker.starts()
    worker.measures(epoch=1, train_loss=2.0, val_loss=1.8, top1=0.4, learning_rate=0.002)
    open_job(page, job_id)
    loss = page.locator("[data-chart=loss]")
    with no_reload(page):
        expect(loss).to_have_attribute("data-points", "1")
        for epoch in range(2, 6):
            worker.measures(epoch=epoch, train_loss=2 / epoch, val_loss=1.8 / epoch, top1=0.5)
            expect(loss).to_have_attribute("data-points", str(epoch))
        expect(loss.get_by_role("img")).to_have_attribute(
            "aria-label", "Loss by epoch. Epoch 5: train_loss 0.4, val_loss 0.36"
        )
        worker.ends("handed_back")
        expect(badge(page)).to_have_text("Queued")
        again = Worker(dashboard, job_id, attempt=2)
        again.starts()
        again.measures(epoch=5, train_loss=0.3, val_loss=0.31, top1=0.95)
        expect(loss.get_by_role("img")).to_have_attribute(
            "aria-label", re.compile("train_loss 0.3, val_loss 0.31")
        )
        expect(loss).to_have_attribute("data-points", "5")
        expect(page.get_by_text("Attempt 2", exact=True)).to_be_visible()
    page.reload()
    expect(loss).to_have_attribute("data-points", "5")


def test_the_log_grows_and_stays_where_the_reader_scrolled_to(
    page: Page, dashboard: Dashboard
) -> None:
    project_id = dashboard.project("Logs")
    job_id = dashboard.job(project_id, "logging", started=True)
    worker = Worker(dashboard, job_id)
    worker.starts()
    worker.logs("the very first line", *(f"line {number}" for number in range(80)))
    open_job(page, job_id)
    log = page.locator("#log")
    expect(log).to_contain_text("line 79")
    with no_reload(page):
        worker.logs("Grüße von line 80")
        expect(log).to_contain_text("Grüße von line 80")
        assert at_end(log)
        log.evaluate("log => { log.scrollTop = 0 }")
        expect(page.get_by_role("button", name="To the end")).to_be_visible()
        worker.logs("line 81")
        expect(log).to_contain_text("line 81")
        assert log.evaluate("log => log.scrollTop") == 0
        page.get_by_role("button", name="To the end").click()
        assert at_end(log)
        worker.logs("line 82")
        expect(log).to_contain_text("line 82")
        assert at_end(log)
    assert log.inner_text().count("line 8\n") == 1
    assert log.inner_text().count("line 81\n") == 1


def at_end(log: Locator) -> bool:
    return bool(log.evaluate("log => log.scrollHeight - log.scrollTop - log.clientHeight < 24"))


def test_the_page_of_a_job_follows_its_head_and_its_files(page: Page, dashboard: Dashboard) -> None:
    project_id = dashboard.project("Head")
    job_id = dashboard.job(project_id, "head")
    open_job(page, job_id)
    with no_reload(page):
        page.get_by_role("button", name="Start", exact=True).click()
        expect(badge(page)).to_have_text("Queued")
        worker = Worker(dashboard, job_id)
        worker.starts()
        expect(page.locator("[data-field=worker]")).to_have_text("gpu-box-1")
        worker.is_at(epoch=2, epochs=12, percent=12.5, eta_seconds=61)
        expect(page.locator(".stats [data-field=epochs]")).to_have_text("2 / 12")
        expect(page.locator(".stats [data-field=eta]")).to_have_text("1 min 1 s left")
        worker.keeps("checkpoints/best.pt")
        expect(page.get_by_role("link", name="checkpoints/best.pt")).to_be_visible()
        worker.ends("completed")
        expect(badge(page)).to_have_text("Completed")
        expect(page.locator("#live")).to_have_text("Final")
        expect(page.locator("[data-panel=history]")).to_contain_text("Completed")


def test_a_page_catches_up_after_the_server_was_away(
    page: Page, dashboard: Dashboard, watch: Watch
) -> None:
    project_id = dashboard.project("Away")
    job_id = dashboard.job(project_id, "away", started=True)
    worker = Worker(dashboard, job_id)
    worker.starts()
    worker.measures(epoch=1, train_loss=2.0, val_loss=1.8)
    worker.logs("before")
    open_job(page, job_id)
    expect(page.locator("#log")).to_contain_text("before")
    with no_reload(page):
        dashboard.stop()
        expect(page.locator("#live")).to_have_text("Reconnecting…")
        worker.measures(epoch=2, train_loss=1.0, val_loss=0.9)
        worker.logs("meanwhile")
        dashboard.start()
        expect(page.locator("#live")).to_have_text("Live")
        expect(page.locator("[data-chart=loss]")).to_have_attribute("data-points", "2")
        expect(page.locator("#log")).to_contain_text("meanwhile")
    assert page.locator("#log").inner_text() == "before\nmeanwhile\n"
    watch.complaints.clear()  # of the connections that were refused


def test_a_page_that_nobody_sees_gives_its_connection_back_and_catches_up(
    page: Page, dashboard: Dashboard
) -> None:
    project_id = dashboard.project("Unseen")
    job_id = dashboard.job(project_id, "unseen", started=True)
    worker = Worker(dashboard, job_id)
    worker.starts()
    page.clock.install()
    open_job(page, job_id)
    show(page, hidden=True)
    page.clock.fast_forward("01:10")
    expect(page.locator("#live")).to_have_text("Paused")
    worker.measures(epoch=1, train_loss=2.0)
    worker.logs("meanwhile")
    show(page, hidden=False)
    expect(page.locator("#live")).to_have_text("Live")
    expect(page.locator("[data-chart=loss]")).to_have_attribute("data-points", "1")
    expect(page.locator("#log")).to_have_text("meanwhile")


def show(page: Page, *, hidden: bool) -> None:
    """Put the page into another tab's shadow, or bring it back."""
    page.evaluate(
        """hidden => {
            Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def test_a_click_after_the_access_token_ran_out_works(
    page: Page, dashboard: Dashboard, watch: Watch
) -> None:
    project_id = dashboard.project("Expired")
    job_id = dashboard.job(project_id, "expired")
    open_project(page, project_id)
    page.context.clear_cookies(name=re.compile("^modelyard_access_"))
    row(page, job_id).get_by_role("button", name="Start").click()
    expect(badge(row(page, job_id))).to_have_text("Queued")
    assert "401" in watch.complaints.pop()


def test_what_happens_between_a_page_and_its_stream_is_shown(
    page: Page, dashboard: Dashboard
) -> None:
    project_id = dashboard.project("Between")
    job_id = dashboard.job(project_id, "first", started=True)
    late: list[int] = []

    def happens(route: Route) -> None:
        late.append(dashboard.job(project_id, "second"))
        Worker(dashboard, job_id).starts()
        route.continue_()

    page.route("**/events*", happens, times=1)
    page.goto(f"/projects/{project_id}")
    expect(badge(row(page, job_id))).to_have_text("Running")
    expect(row(page, late[0])).to_be_visible()

    def ends(route: Route) -> None:
        worker = Worker(dashboard, job_id, seq=1)
        worker.keeps("checkpoints/best.pt")
        worker.ends("completed")
        route.continue_()

    page.route("**/events*", ends, times=1)
    page.goto(f"/jobs/{job_id}")
    expect(badge(page)).to_have_text("Completed")
    expect(page.locator("[data-panel=history]")).to_contain_text("Completed")
    expect(page.get_by_role("link", name="checkpoints/best.pt")).to_be_visible()


def test_a_late_answer_takes_nothing_back_that_the_stream_has_told(
    page: Page, dashboard: Dashboard
) -> None:
    job_id = dashboard.job(dashboard.project("Late answers"), "overtaken", started=True)
    worker = Worker(dashboard, job_id)
    open_job(page, job_id)
    accuracy = page.locator(".stats [data-field=accuracy]")
    with late_answer(page, f"**/training/jobs/{job_id}") as wait:
        worker.starts()
        expect(badge(page)).to_have_text("Running")
        wait()
        worker.is_at(epoch=3, epochs=12, percent=25.5, eta_seconds=95)
        worker.measures(epoch=3, train_loss=0.5, val_loss=0.25, top1=0.9)
        expect(accuracy).to_have_text("90.0 %")
    expect(page.locator("[data-field=worker]")).to_have_text("gpu-box-1")  # by the answer
    expect(accuracy).to_have_text("90.0 %")
    expect(page.locator(".stats [data-field=epochs]")).to_have_text("3 / 12")


def test_late_curves_take_back_no_point_that_the_stream_has_told(
    page: Page, dashboard: Dashboard
) -> None:
    job_id = dashboard.job(dashboard.project("Late curves"), "overtaken", started=True)
    worker = Worker(dashboard, job_id)
    worker.starts()
    worker.measures(epoch=2, train_loss=0.6)
    worker.measures(epoch=3, train_loss=0.5)
    worker.ends("handed_back")
    again = Worker(dashboard, job_id, attempt=2)
    again.starts()
    loss = page.locator("[data-chart=loss]")
    with late_answer(page, "**/metrics?points=*") as wait:
        open_job(page, job_id)
        wait()
        again.measures(epoch=3, train_loss=0.4)
        expect(loss).to_have_attribute("data-points", "1")
    expect(loss).to_have_attribute("data-points", "2")
    expect(loss.get_by_role("img")).to_have_attribute("aria-label", re.compile("train_loss 0.4"))


def test_a_row_that_comes_late_shows_what_happened_meanwhile(
    page: Page, dashboard: Dashboard
) -> None:
    project_id = dashboard.project("Late rows")
    other = dashboard.job(project_id, "other", started=True)
    open_project(page, project_id)
    with late_answer(page, "**/row") as wait:
        job_id = dashboard.job(project_id, "late", started=True)
        wait()
        worker = Worker(dashboard, job_id)
        worker.starts()
        worker.measures(epoch=3, train_loss=0.5, val_loss=0.25, top1=0.9)
        Worker(dashboard, other).starts()
        expect(badge(row(page, other))).to_have_text("Running")  # and all before it was heard of
    expect(badge(row(page, job_id))).to_have_text("Running")
    expect(row(page, job_id)).to_contain_text("90.0 %")
    expect(page.locator("#experiments tbody tr")).to_have_count(2)


def test_a_start_while_the_broker_is_away_is_refused_and_may_be_tried_again(
    context: BrowserContext, dashboard_without_broker: Dashboard
) -> None:
    dashboard, page = dashboard_without_broker, context.new_page()
    log_in(page, at=dashboard.url)
    project_id = dashboard.project("No broker")
    job_id = dashboard.job(project_id, "waits for the broker")
    page.goto(f"{dashboard.url}/projects/{project_id}")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_contain_text("The broker cannot be reached")
    expect(page.get_by_role("button", name="Start")).to_be_enabled()
    expect(badge(row(page, job_id))).to_have_text("Pending")
    assert dashboard.status(job_id) == "pending"


def test_a_job_that_is_made_while_the_broker_is_away_is_shown_and_says_why_it_waits(
    context: BrowserContext, dashboard_without_broker: Dashboard
) -> None:
    dashboard, page = dashboard_without_broker, context.new_page()
    log_in(page, at=dashboard.url)
    project_id = dashboard.project("No broker")
    page.goto(f"{dashboard.url}/projects/{project_id}/jobs/new")
    page.get_by_label("Name").fill("made once")
    page.get_by_label("Model", exact=True).fill("resnet18")
    page.get_by_role("button", name="Create and start").click()
    expect(page.get_by_role("heading", name="made once")).to_be_visible()
    expect(page.get_by_role("alert").last).to_contain_text("The broker cannot be reached")
    expect(badge(page)).to_have_text("Pending")
    expect(page.get_by_role("button", name="Start")).to_be_enabled()

    page.go_back()
    expect(page.get_by_role("button", name="Create and start")).to_be_enabled()
