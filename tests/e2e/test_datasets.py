"""Data sets in the browser: uploaded or registered, looked at, shown with what is in them."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from adapters.contract import DatasetFormat, TaskType
from tests import shapes
from tests.e2e.conftest import Watch
from tests.e2e.dashboard_server import Dashboard
from tests.services import wait_for


def zipped(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, f"around/{path.relative_to(folder)}")
    return archive


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A zip of a segmentation data set with a folder around it."""
    shapes.compose(
        tmp_path / "shapes",
        format=DatasetFormat.COCO,
        task_type=TaskType.INSTANCE_SEGMENTATION,
        train=8,
        val=4,
    )
    return zipped(tmp_path / "shapes", tmp_path / "my shapes.zip")


def test_a_zip_is_uploaded_and_shown_with_what_was_found(
    page: Page, dashboard: Dashboard, archive: Path
) -> None:
    project_id = dashboard.empty_project("Uploads")
    page.goto(f"/projects/{project_id}/datasets")
    page.get_by_label("Zip file").set_input_files(archive)
    expect(page.get_by_label("Name")).to_have_value("my shapes")
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("heading", name="my shapes")).to_be_visible()
    expect(page.locator(".badge")).to_have_text("Valid")
    expect(page.locator(".stats")).to_contain_text("Train8")
    expect(page.locator(".facts")).to_contain_text("Uploaded; deleted with the data set")
    expect(page.locator(".preview-card")).to_have_count(8)


def test_the_progress_is_that_of_the_bytes_and_then_of_the_server(
    page: Page, dashboard: Dashboard, archive: Path
) -> None:
    """The server stands still meanwhile, so that what is shown can be looked at."""
    project_id = dashboard.empty_project("Progress")
    page.goto(f"/projects/{project_id}/datasets")
    told = {"phase": "unpacking", "done": 40_000_000, "total": 160_000_000}
    page.route("**/datasets/checks/*", lambda route: route.fulfill(json=told))
    page.route("**/auth/me", lambda route: route.fulfill(json={}))
    page.get_by_label("Zip file").set_input_files(archive)
    waiting = page.locator("[data-waiting]")
    with dashboard.frozen():
        page.get_by_role("button", name="Upload").click()
        expect(waiting).to_contain_text("Unpacking")
        expect(waiting).to_contain_text("40 MB of 160 MB")
        expect(waiting.get_by_role("progressbar")).to_have_attribute("value", "25")
        told |= {"phase": "checking", "done": 3000, "total": 4000}
        expect(waiting).to_contain_text("Looking at every image")
        expect(waiting).to_contain_text("3,000 of 4,000")
        expect(waiting.get_by_role("progressbar")).to_have_attribute("value", "75")
        expect(page.get_by_role("button", name="Upload")).to_be_disabled()
    expect(page.get_by_role("heading", name="my shapes")).to_be_visible()


def test_an_upload_is_cancelled_and_leaves_nothing(
    page: Page, dashboard: Dashboard, archive: Path, watch: Watch
) -> None:
    project_id = dashboard.empty_project("Cancelled")
    page.goto(f"/projects/{project_id}/datasets")
    arrived: list[Route] = []
    page.route("**/datasets/upload?*", lambda route: arrived.append(route))
    page.get_by_label("Zip file").set_input_files(archive)
    page.get_by_role("button", name="Upload").click()
    wait_for(lambda: page.evaluate("true") and arrived, what="the upload")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Upload")).to_be_enabled()
    expect(page.get_by_role("button", name="Upload")).to_be_focused()
    expect(page.locator("[data-waiting]")).to_be_hidden()
    page.reload()
    expect(page.get_by_text("No data set yet")).to_be_visible()
    watch.complaints.clear()  # there was no check yet to give up

    page.get_by_label("Zip file").set_input_files(archive)
    logins: list[Route] = []
    page.route("**/auth/me", lambda route: logins.append(route))
    page.get_by_role("button", name="Upload").click()
    wait_for(lambda: page.evaluate("true") and logins, what="the look at the login before it")
    page.get_by_role("button", name="Cancel").click()
    logins[0].continue_()
    expect(page.get_by_role("button", name="Upload")).to_be_enabled()
    assert len(arrived) == 1
    watch.complaints.clear()


def test_a_file_that_is_no_zip_is_refused_at_its_field(
    page: Page, dashboard: Dashboard, tmp_path: Path, watch: Watch
) -> None:
    project_id = dashboard.empty_project("No zips")
    (tmp_path / "no.zip").write_bytes(b"no zip")
    page.goto(f"/projects/{project_id}/datasets")
    page.get_by_role("button", name="Upload").click()
    expect(page.locator("[data-problem=file]")).to_have_text("Choose a zip file")
    page.get_by_label("Zip file").set_input_files(tmp_path / "no.zip")
    page.get_by_role("button", name="Upload").click()
    expect(page.locator("[data-problem=file]")).to_contain_text("not a zip")
    expect(page.get_by_label("Zip file")).to_be_focused()
    assert "422" in watch.complaints.pop()


def test_a_file_may_be_dropped(page: Page, dashboard: Dashboard) -> None:
    project_id = dashboard.empty_project("Dropped")
    page.goto(f"/projects/{project_id}/datasets")
    dropped = page.evaluate_handle(
        "() => { const t = new DataTransfer(); t.items.add(new File(['x'], 'a.zip')); return t; }"
    )
    page.locator("#drop-zone").dispatch_event("drop", {"dataTransfer": dropped})
    expect(page.locator("#file-chosen")).to_have_text("a.zip, 1 bytes")
    expect(page.get_by_label("Name")).to_have_value("a")


def test_a_folder_is_registered_and_listed(page: Page, dashboard: Dashboard) -> None:
    project_id = dashboard.empty_project("Shades")
    page.goto(f"/projects/{project_id}/datasets")
    page.get_by_label("Already on the server").check()
    page.get_by_label("Name").fill("Dark and light")
    page.get_by_label("Folder").fill(str(dashboard.images))
    page.get_by_role("button", name="Register").click()
    expect(page.get_by_role("heading", name="Dark and light")).to_be_visible()
    expect(page.locator(".badge")).to_have_text("Valid")
    page.get_by_role("link", name="Data sets").click()
    card = page.locator(".dataset-card")
    expect(card).to_contain_text("Dark and light")
    expect(card).to_contain_text("Images12")


def test_a_folder_outside_the_data_roots_is_refused_at_its_field(
    page: Page, dashboard: Dashboard, tmp_path: Path, watch: Watch
) -> None:
    project_id = dashboard.empty_project("Outside")
    page.goto(f"/projects/{project_id}/datasets")
    page.get_by_label("Already on the server").check()
    page.get_by_label("Name").fill("Elsewhere")
    page.get_by_label("Folder").fill(str(tmp_path))
    page.get_by_role("button", name="Register").click()
    field = page.get_by_label("Folder")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    expect(page.locator("[data-problem=path]")).not_to_be_empty()
    expect(page.get_by_role("button", name="Register")).to_be_enabled()
    assert any("422" in complaint for complaint in watch.complaints)
    watch.complaints.clear()


def test_findings_are_grouped_and_filtered(page: Page, dashboard: Dashboard) -> None:
    project_id = dashboard.empty_project("Broken")
    page.goto(f"/datasets/{dashboard.broken_dataset(project_id)}")
    expect(page.locator(".badge")).to_have_text("Invalid")
    expect(page.get_by_role("link", name="Train on it")).to_have_count(0)
    findings = page.locator(".finding")
    first = findings.first
    expect(first).to_contain_text("Label out of range")
    expect(first).to_contain_text("labels/train/train000.txt:1")
    page.get_by_role("button", name=re.compile("^Warnings")).click()
    expect(first).to_be_hidden()
    expect(page.get_by_text("Image without label")).to_be_visible()
    page.get_by_role("button", name=re.compile("^All")).click()
    expect(first).to_be_visible()


def test_a_data_set_without_any_image_says_so(
    page: Page, dashboard: Dashboard, tmp_path: Path
) -> None:
    project_id = dashboard.empty_project("Nothing in it")
    with zipfile.ZipFile(tmp_path / "nothing.zip", "w") as file:
        for name in ("train/cat/a.heic", "train/dog/a.heic"):
            file.writestr(name, b"x")
    page.goto(f"/projects/{project_id}/datasets")
    page.get_by_label("Zip file").set_input_files(tmp_path / "nothing.zip")
    page.get_by_role("button", name="Upload").click()
    expect(page.locator(".badge")).to_have_text("Invalid")
    expect(page.locator(".finding").first).to_contain_text("'train/cat' holds no image")
    expect(page.get_by_text("The data set has no image.")).to_be_visible()
    expect(page.locator("[data-preview-split]")).to_be_hidden()


def test_annotations_are_drawn_and_can_be_hidden(page: Page, dashboard: Dashboard) -> None:
    project_id = dashboard.empty_project("Poses")
    dataset = dashboard.dataset(project_id, DatasetFormat.YOLO, TaskType.POSE_ESTIMATION)
    page.goto(f"/datasets/{dataset}")
    card = page.locator(".preview-card").first
    box, dot = card.locator("rect.layer-boxes").first, card.locator("circle").first
    expect(box).to_be_visible()
    expect(dot).to_be_visible()
    page.get_by_label("Boxes").uncheck()
    expect(box).to_be_hidden()
    expect(dot).to_be_visible()
    page.get_by_label("Split", exact=True).select_option("val")
    expect(page.locator(".preview-card")).to_have_count(4)
    expect(page.locator(".preview-card rect.layer-boxes").first).to_be_hidden()
    expect(page.locator(".legend")).to_contain_text("disc")


def test_an_image_is_looked_at_larger_with_the_keyboard(page: Page, dashboard: Dashboard) -> None:
    project_id = dashboard.empty_project("Larger")
    dataset = dashboard.dataset(project_id, DatasetFormat.MASKS, TaskType.SEMANTIC_SEGMENTATION)
    page.goto(f"/datasets/{dataset}")
    images = page.locator(".preview-open")
    expect(images).to_have_count(8)
    images.first.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("image.layer-mask")).to_be_visible()
    title = dialog.get_by_role("heading")
    first = title.text_content()
    page.keyboard.press("ArrowRight")
    expect(title).not_to_have_text(str(first))
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(images.nth(1)).to_be_focused()


def test_another_look_and_the_way_to_a_job(page: Page, dashboard: Dashboard) -> None:
    project_id = dashboard.project("Looked at again")
    page.goto(f"/projects/{project_id}/datasets")
    page.get_by_role("link", name="shades").click()
    with page.expect_navigation():
        page.get_by_role("button", name="Look again").click()
    expect(page.locator(".badge")).to_have_text("Valid")
    page.get_by_role("link", name="Train on it").click()
    expect(page.get_by_label("Data set")).to_have_value(re.compile(r"^\d+$"))


def test_an_uploaded_data_set_is_deleted_with_its_files(
    page: Page, dashboard: Dashboard, archive: Path
) -> None:
    project_id = dashboard.empty_project("Deleted")
    page.goto(f"/projects/{project_id}/datasets")
    page.get_by_label("Zip file").set_input_files(archive)
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("heading", name="my shapes")).to_be_visible()
    folder = Path(page.locator(".facts dd.mono").first.text_content() or "")
    assert folder.is_dir()
    expect(page.locator(".preview-card")).to_have_count(8)  # nothing is asked for any more
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete the data set").click()
    expect(page.get_by_text("No data set yet")).to_be_visible()
    assert not folder.exists()
