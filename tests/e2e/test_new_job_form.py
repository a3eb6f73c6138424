"""The form of a new job: what it offers, what it sends, and what it says of mistakes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from adapters.wire import EventType
from tests.e2e.conftest import Watch, late_answer
from tests.e2e.dashboard_server import Dashboard, Worker
from webapp.extensions import db
from webapp.models import Dataset, Job

HYPERPARAMETERS = "What differs from the defaults"


def open_form(page: Page, dashboard: Dashboard, name: str, **columns: Any) -> int:
    """Open the form of a new project whose one data set is as the columns say."""
    project_id = dashboard.project(name)
    if columns:
        with dashboard.app.app_context():
            row = db.session.query(Dataset).filter_by(project_id=project_id).one()
            for column, value in columns.items():
                setattr(row, column, value)
            db.session.commit()
    page.goto(f"/projects/{project_id}/jobs/new")
    expect(page.locator("#models li").first).to_be_visible()
    return project_id


def picture(page: Page, name: str) -> None:
    """Keep a screenshot for whoever asks for it."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def made(dashboard: Dashboard, page: Page) -> dict[str, Any]:
    page.wait_for_url(re.compile(r"/jobs/\d+$"))
    with dashboard.app.app_context():
        job = db.session.get(Job, int(page.url.rpartition("/")[2]))
        assert job is not None
        return {c.name: getattr(job, c.name) for c in Job.__table__.columns}


def test_only_what_differs_from_the_defaults_is_sent(page: Page, dashboard: Dashboard) -> None:
    open_form(page, dashboard, "Changed only")
    page.get_by_label("Model", exact=True).fill("18 resnet")
    page.get_by_role("button", name="resnet18 ").first.click()
    expect(page.locator("#model_name-hint")).to_contain_text("M parameters, 224 px")
    page.get_by_label("Batch size").fill("0")
    fields = page.locator("fieldset[data-framework=timm]")
    fields.get_by_label("Weight decay").fill("0.25")
    fields.get_by_label("Scheduler").select_option("constant")
    fields.get_by_text("How it runs").click()
    expect(page.locator("#changed-count")).to_have_text("2 changed")
    picture(page, "new-job")
    page.emulate_media(color_scheme="dark")
    picture(page, "new-job-dark")
    page.get_by_role("button", name="Create only").click()
    job = made(dashboard, page)
    assert job["hyperparameters"] == {"weight_decay": 0.25, "scheduler": "constant"}
    assert (job["batch_size"], job["pretrained"], job["initial_job_id"]) == (0, False, None)


def test_fields_and_json_say_the_same(page: Page, dashboard: Dashboard) -> None:
    open_form(page, dashboard, "Two views")
    fields = page.locator("fieldset[data-framework=timm]")
    page.get_by_text("As JSON").click()
    text = page.get_by_label(HYPERPARAMETERS)
    fields.get_by_label("Weight decay").fill("0.5")
    assert json.loads(text.input_value()) == {"weight_decay": 0.5}
    text.fill('{"momentum": 0.8, "freeze_backbone": true}')
    expect(fields.get_by_label("Weight decay")).to_have_value("")
    expect(fields.get_by_label("Momentum", exact=True)).to_have_value("0.8")
    expect(fields.locator("[name='hyperparameters.freeze_backbone']")).to_have_value("yes")
    text.fill('{"momentun": 0.8}')
    expect(page.locator("#hyperparameters-json-problem")).to_have_text("There is no momentun here.")
    text.fill("{not json")
    expect(page.locator("#hyperparameters-json-problem")).to_contain_text("not JSON")
    page.get_by_role("button", name="Reset to the defaults").click()
    expect(page.locator("#changed-count")).to_have_text("All at their defaults")
    expect(fields.get_by_label("Momentum", exact=True)).to_have_value("")


def test_a_wrong_value_is_said_at_its_field_in_an_opened_group(
    page: Page, dashboard: Dashboard, watch: Watch
) -> None:
    open_form(page, dashboard, "Wrong values")
    page.get_by_label("Model", exact=True).fill("resnet18")
    page.evaluate("document.getElementById('new-job').noValidate = true")
    page.locator("[name='hyperparameters.mixup']:enabled").evaluate("e => { e.value = '-1' }")
    page.get_by_role("button", name="Create only").click()
    problem = page.locator("fieldset[data-framework=timm] [data-problem='hyperparameters.mixup']")
    expect(problem).to_be_visible()
    expect(problem).to_contain_text("greater than or equal to 0")
    assert "422" in watch.complaints.pop()


def test_frameworks_and_tasks_follow_the_data_set(page: Page, dashboard: Dashboard) -> None:
    tasks = ["instance_segmentation", "object_detection"]
    warning = {"severity": "warning", "code": "x", "file": None, "line": None, "message": "Odd."}
    open_form(
        page, dashboard, "Tasks", format="yolo", task_type=tasks[0], task_types=tasks,
        problems=[warning],
    )  # fmt: skip
    offered = "option => option.filter(o => !o.disabled).map(o => o.value)"
    assert page.locator("#task_type option").evaluate_all(offered) == [
        "object_detection",
        "instance_segmentation",
    ]
    expect(page.get_by_label("Task")).to_have_value("instance_segmentation")
    assert page.locator("#framework option").evaluate_all(offered) == ["ultralytics"]
    expect(page.locator("#dataset-warnings")).to_contain_text("Odd.")
    page.get_by_label("Task").select_option("object_detection")
    assert page.locator("#framework option").evaluate_all(offered) == ["ultralytics", "huggingface"]
    picture(page, "new-job-warning")


def test_a_copy_is_edited_before_it_is_made_and_may_begin_with_the_firsts_weights(
    page: Page, dashboard: Dashboard
) -> None:
    project_id = dashboard.project("Copies")
    first = dashboard.job(project_id, "first", hyperparameters={"momentum": 0.7}, epochs=7)
    with dashboard.app.app_context():
        row = db.session.get(Job, first)
        assert row is not None
        row.status, row.best_model_path = "completed", "/outputs/best"
        row.best = {"epoch": 1, "metric": "top1", "value": 0.875}
        db.session.commit()
    page.goto(f"/jobs/{first}")
    page.get_by_role("link", name="Clone and edit").click()
    expect(page.get_by_label("Epochs", exact=True)).to_have_value("7")
    expect(
        page.locator("fieldset[data-framework=timm]").get_by_label("Momentum", exact=True)
    ).to_have_value("0.7")
    page.get_by_label("Weights to begin with").select_option("job")
    expect(page.get_by_label("Job", exact=True)).to_contain_text("first, top1 0.875")
    page.get_by_role("button", name="Create only").click()
    job = made(dashboard, page)
    assert (job["initial_job_id"], job["epochs"]) == (first, 7)
    assert job["hyperparameters"] == {"momentum": 0.7}
    expect(page.locator(".facts")).to_contain_text(f"Of job {first}")


def test_the_load_of_a_jobs_machine_is_drawn_live(page: Page, dashboard: Dashboard) -> None:
    project_id = dashboard.project("Load")
    job_id = dashboard.job(project_id, "loaded", started=True)
    worker = Worker(dashboard, job_id)
    worker.starts()
    sample: dict[str, Any] = {
        "memory_bytes": 2**30,
        "gpu_percent": 40.0,
        "gpu_memory_bytes": 3 * 2**30,
    }
    worker.tells(EventType.LOAD, cpu_percent=150.0, **sample)
    page.goto(f"/jobs/{job_id}")
    chart = page.locator("[data-load=cpu_percent]")
    expect(chart).to_have_attribute("data-points", "1")
    worker.tells(EventType.LOAD, cpu_percent=90.0, **sample)
    expect(chart).to_have_attribute("data-points", "2")
    expect(page.locator("[data-load=gpu_memory_bytes] canvas")).to_have_attribute(
        "aria-label", "GPU memory by time; now 3.00 GiB"
    )
    picture(page, "job-load")

    with late_answer(page, "**/load?points=*") as wait:
        page.reload()
        wait()
        worker.tells(EventType.LOAD, cpu_percent=50.0, **sample)
        expect(chart).to_have_attribute("data-points", "1")
    expect(chart).to_have_attribute("data-points", "3")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_form_is_accessible_with_all_of_it_open(
    page: Page, dashboard: Dashboard, scheme: Any
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page.emulate_media(color_scheme=scheme)
    open_form(page, dashboard, f"Accessible {scheme}")
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_a_jobs_page_says_what_is_odd_in_its_data(page: Page, dashboard: Dashboard) -> None:
    warning = {"severity": "warning", "code": "x", "file": None, "line": None, "message": "Odd."}
    project_id = open_form(page, dashboard, "Odd data", problems=[warning])
    page.goto(f"/jobs/{dashboard.job(project_id, 'odd')}")
    page.get_by_text("The data set has 1 warning").click()
    expect(page.get_by_text("Odd.")).to_be_visible()
    picture(page, "job-warnings")
