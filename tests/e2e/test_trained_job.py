"""The job's page after training: evaluation, try it, export, model card.

The pictures are kept where PICTURES_OF_TRAINED names a folder.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from adapters.contract import TaskType
from tests.e2e.conftest import Watch, held_back
from tests.e2e.dashboard_server import Dashboard
from tests.e2e.test_dashboard_accessibility import findings
from tests.e2e.trained_job import TrainedJob

FOUND = re.compile(r"The image with [1-9] found: ")
PICTURES = os.environ.get("PICTURES_OF_TRAINED")


def make(dashboard: Dashboard, task_type: TaskType) -> TrainedJob:
    return TrainedJob(dashboard, dashboard.project("Shapes"), task_type=task_type)


def test_the_evaluation_appears_when_training_has_ended_with_no_reload(
    page: Page, dashboard: Dashboard
) -> None:
    job = make(dashboard, TaskType.IMAGE_CLASSIFICATION)
    page.goto(f"/jobs/{job.id}")
    page.evaluate("window.stillTheSamePage = true")
    expect(page.locator("#live")).to_have_text("Live")
    for heading in ("Evaluation of the best model", "Try it", "Export", "Model card"):
        expect(page.get_by_role("heading", name=heading)).to_be_hidden()
    job.follow_training()
    job.ends()
    for heading in ("Evaluation of the best model", "Try it", "Export", "Model card"):
        expect(page.get_by_role("heading", name=heading)).to_be_visible()
    section = page.locator("#evaluation")
    expect(section.locator(".stat", has_text="Top-1").locator("dd")).to_have_text("66.7 %")
    expect(section.locator(".gallery img")).to_have_count(4)
    shown = section.locator(".gallery img").first
    expect.soft(shown).to_have_js_property("complete", True)
    assert shown.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
    expect(section.locator("figcaption").first).to_contain_text("truly disc")
    confused = section.get_by_title("disc, said to be square: 4 (100.0 % of the row)")
    expect(confused).to_have_text("4")
    expect(section.locator(".curves-chart canvas")).to_be_visible()
    assert page.evaluate("window.stillTheSamePage === true")


def test_what_follows_training_is_shown_where_it_came_before_the_pages_scripts(
    page: Page, dashboard: Dashboard
) -> None:
    job = make(dashboard, TaskType.IMAGE_CLASSIFICATION)
    with held_back(page, "trained.js"):
        page.goto(f"/jobs/{job.id}", wait_until="commit")
        expect(page.locator("[data-badge]")).to_have_text("Running")
        job.follow_training()
        job.ends()
    expect(page.locator("[data-badge]")).to_have_text("Completed")
    for heading in ("Evaluation of the best model", "Try it", "Export", "Model card"):
        expect(page.get_by_role("heading", name=heading)).to_be_visible()


def test_the_table_of_classes_is_sorted_by_any_column(page: Page, dashboard: Dashboard) -> None:
    job = make(dashboard, TaskType.IMAGE_CLASSIFICATION)
    job.follow_training()
    job.ends()
    page.goto(f"/jobs/{job.id}")
    table = page.locator('#evaluation [data-part="classes"]')
    names = table.locator("tbody td.title")
    expect(names).to_have_text(["disc", "square", "triangle"])
    by_f1 = table.get_by_role("button", name="F1")
    by_f1.click()
    expect(names).to_have_text(["triangle", "square", "disc"])
    expect(table.locator('[aria-sort="descending"]')).to_have_text("F1")
    by_f1.press("Enter")
    expect(names).to_have_text(["disc", "square", "triangle"])


def test_a_person_tries_the_model_and_exports_it(
    page: Page, dashboard: Dashboard, watch: Watch
) -> None:
    job = make(dashboard, TaskType.INSTANCE_SEGMENTATION)
    job.follow_training()
    job.ends()
    page.goto(f"/jobs/{job.id}")
    with job.answered():
        page.locator("#try-file").set_input_files(job.image)
        expect(page.locator("#try-told")).to_contain_text("the model took 12 ms")
        found = page.locator("#try-list li")
        expect(found.first).to_contain_text("90.0 %")
        expect(page.locator("#try-canvas")).to_have_attribute("aria-label", FOUND)
        page.locator("#try-threshold input").fill("0.95")
        expect(page.locator("#try-list")).to_have_text("Nothing was found with this score.")

        onnx, script = (
            page.locator('[data-export="onnx"]'),
            page.locator("[data-export=torchscript]"),
        )
        onnx.get_by_role("button", name="Export").click()
        expect(onnx.locator("[data-part=state]")).to_have_text("Exported")
        expect(onnx.locator("[data-part=difference]")).to_have_text("6.0e-8")
        with page.expect_download() as download:
            onnx.get_by_role("link", name="Download").click()
        assert download.value.path().read_bytes().startswith(b"exported at ")
        script.get_by_role("button", name="Export").click()
        expect(script.locator("[data-part=state]")).to_contain_text("it has a loop")
        expect(script.get_by_role("button", name="Export")).to_be_enabled()

    page.locator("#model-card summary").click()
    expect(page.locator("#model-card pre")).to_contain_text("To be filled in by a person")


def test_an_image_that_cannot_be_read_is_told_of(
    page: Page, dashboard: Dashboard, watch: Watch, tmp_path: Path
) -> None:
    job = make(dashboard, TaskType.IMAGE_CLASSIFICATION)
    job.follow_training()
    job.ends()
    page.goto(f"/jobs/{job.id}")
    page.locator("#try-file").set_input_files(job.image)
    expect(page.locator(".toast.error")).to_contain_text("No worker of the framework 'timm' is up")
    watch.complaints.clear()  # the browser's own word on the refusal


@pytest.mark.parametrize(
    "task_type",
    [
        TaskType.IMAGE_CLASSIFICATION,
        TaskType.INSTANCE_SEGMENTATION,
        TaskType.SEMANTIC_SEGMENTATION,
    ],
)
def test_axe_finds_nothing_and_nothing_is_cut_off(
    page: Page, dashboard: Dashboard, task_type: TaskType
) -> None:
    job = make(dashboard, task_type)
    job.follow_training()
    job.ends()
    page.goto(f"/jobs/{job.id}")
    expect(page.locator("#evaluation")).to_have_attribute("data-loaded", "true")
    with job.answered():
        page.locator("#try-file").set_input_files(job.image)
        expect(page.locator("#try-list li").first).to_be_visible()
    page.locator("#model-card summary").click()
    expect(page.locator("#model-card pre")).to_contain_text("Licence")
    assert findings(page) == []
    keep(page, f"{task_type}-light")
    page.emulate_media(color_scheme="dark")
    assert findings(page) == []
    keep(page, f"{task_type}-dark")
    page.set_viewport_size({"width": 390, "height": 800})
    # The charts follow the new width in a moment.
    page.wait_for_function("document.documentElement.scrollWidth <= 390")
    keep(page, f"{task_type}-narrow")


def keep(page: Page, name: str) -> None:
    if PICTURES:
        page.locator("#evaluation .gallery img").first.scroll_into_view_if_needed()
        page.wait_for_load_state("networkidle")
        page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)
