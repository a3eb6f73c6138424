"""A person trains a real model in the dashboard: `modelyard up`, real digits, a real worker.

The README's picture is made here: PICTURES=docs/images pytest tests/e2e/test_real_training.py
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect

from modelyard.samples import make_samples
from tests.e2e.conftest import PATIENCE_MS, Watch
from tests.services import Spawned, wait_for

READY = re.compile(r"^READY (http://\S+)$", re.MULTILINE)
EMAIL, PASSWORD = "admin@modelyard.local", "correct horse battery staple"
PICTURES = os.environ.get("PICTURES")
SIZE: ViewportSize = {"width": 1280, "height": 560}
EPOCHS = 5 if PICTURES else 4
# In the picture a model that people know, and epochs of a job that is still at it when it is
# cancelled; without one, a tiny model shows the same.
MODEL, LONGER = ("resnet18", 60) if PICTURES else ("test_resnet", 600)
TRAINING_MS = 600_000  # generous: other tests may keep the machine busy


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    return make_samples(tmp_path / "home" / "data" / "samples", names=["digits"])["digits"]


@pytest.fixture
def url(tmp_path: Path, digits: Path) -> Iterator[str]:
    """The address of a whole instance."""
    home = tmp_path / "home"
    command = [sys.executable, "-m", "modelyard", "up", "--home", str(home)]
    environ = {
        "MODELYARD_ADMIN_PASSWORD": PASSWORD,
        "MODELYARD_WEB_PROCESSES": "1",
        "MODELYARD_THREADS": "1",  # on a busy machine, more would wait for each other
    }
    with Spawned(
        [*command, "--port", "0", "--frameworks", "timm"],
        log=tmp_path / "up.log",
        environ={**os.environ, **environ},
        cwd=tmp_path,
    ) as instance:

        def ready() -> re.Match[str] | None:
            assert instance.alive(), instance.output()
            return READY.search(instance.output())

        found = wait_for(ready, timeout_seconds=300, what="READY")
        assert found is not None
        yield found[1]
        instance.stop(timeout_seconds=120)


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    watch = Watch(url)
    with browser.new_context(base_url=url, viewport=SIZE) as context:
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        watch.follow(page)
        yield page
    assert watch.complaints == []
    assert watch.outside == []


@pytest.mark.timeout(1500)
def test_a_person_trains_watches_clones_cancels_and_resumes(
    page: Page, digits: Path, tmp_path: Path
) -> None:
    log_in(page)
    make_project(page, "Handwritten digits", "1,797 digits of UCI's optical recognition set")
    register(page, "Digits", digits)

    describe(page, name=f"{MODEL} at 32 px", epochs=EPOCHS)
    page.get_by_role("button", name="Create and start").click()
    watch_it_complete(page, epochs=EPOCHS)
    take_picture(page, tmp_path / "job.png")
    page.get_by_role("button", name="Clone").click()
    expect(page.get_by_role("heading", name=f"{MODEL} at 32 px (copy)")).to_be_visible()
    expect(badge(page)).to_have_text("Pending")

    page.get_by_role("link", name="Handwritten digits").click()
    describe(page, name=f"{MODEL}, longer", epochs=LONGER)
    page.get_by_role("button", name="Create only").click()
    expect(badge(page)).to_have_text("Pending")
    page.get_by_role("link", name="Handwritten digits").click()
    longer = page.locator("#experiments tr", has_text="longer")
    copy = page.locator("#experiments tr", has_text="copy")
    longer.get_by_role("button", name="Start").click()
    expect(badge(longer)).to_have_text("Running", timeout=TRAINING_MS)
    copy.get_by_role("button", name="Start").click()
    expect(badge(copy)).to_have_text("Queued")
    expect(copy).to_contain_text("Next in the queue timm")
    expect(longer.locator("[data-field=epochs]")).to_have_text(
        re.compile(rf"^([3-9]|\d\d+) / {LONGER}$"), timeout=TRAINING_MS
    )
    expect(longer.locator("[data-field=accuracy]")).to_contain_text("%")
    take_picture(page, tmp_path / "dashboard.png")
    copy.get_by_role("button", name="Cancel").click()
    expect(badge(copy)).to_have_text("Cancelled")

    cancel(page, longer)
    expect(badge(longer)).to_have_text("Cancelled", timeout=TRAINING_MS)
    longer.get_by_role("button", name="Resume").click()
    expect(badge(longer)).to_have_text("Running", timeout=TRAINING_MS)
    longer.get_by_role("link").click()
    expect(page.get_by_text("Attempt 2", exact=True)).to_be_visible()
    loss = page.locator("[data-chart=loss]")
    # The curve begins with the first attempt's epochs.
    expect(loss).to_have_attribute("data-points", re.compile(r"^([3-9]|\d\d+)$"))
    shown = loss.get_attribute("data-points") or ""
    expect(loss).not_to_have_attribute("data-points", shown, timeout=TRAINING_MS)
    cancel(page, page.locator("main"))
    expect(badge(page)).to_have_text("Cancelled", timeout=TRAINING_MS)


def log_in(page: Page) -> None:
    page.goto("/login")
    page.get_by_label("Email").fill(EMAIL)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_text("No project yet")).to_be_visible()


def make_project(page: Page, name: str, description: str) -> None:
    page.get_by_role("button", name="New project").first.click()
    page.get_by_label("Name").fill(name)
    page.get_by_label("Description").fill(description)
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", name=name)).to_be_visible()


def register(page: Page, name: str, folder: Path) -> None:
    page.get_by_role("link", name="Register a data set").click()
    page.get_by_label("Name").fill(name)
    page.get_by_label("Already on the server").check()
    page.get_by_label("Folder").fill(str(folder))
    page.get_by_role("button", name="Register").click()
    expect(page.locator(".badge")).to_have_text("Valid")
    page.get_by_role("link", name="Handwritten digits").click()


def describe(page: Page, *, name: str, epochs: int) -> None:
    page.get_by_role("link", name="New job").first.click()
    page.get_by_label("Name").fill(name)
    page.get_by_label("Model", exact=True).fill(MODEL)
    page.get_by_label("Epochs", exact=True).fill(str(epochs))
    page.get_by_label("Batch size").fill("64")
    page.get_by_label("Image size").fill("32")


def watch_it_complete(page: Page, *, epochs: int) -> None:
    """See the curves grow to their end, the log, the result and its files, with no reload."""
    expect(page).to_have_url(re.compile(r"/jobs/\d+$"))
    # What it shows for a moment only is noted by the page itself, as long as it is this one.
    page.evaluate(
        """() => {
            const badge = document.querySelector("[data-badge]");
            window.statuses = [badge.textContent];
            new MutationObserver(() => window.statuses.push(badge.textContent))
                .observe(badge, { childList: true });
        }"""
    )
    loss = page.locator("[data-chart=loss]")
    expect(loss).to_have_attribute("data-points", re.compile(r"^\d+$"), timeout=TRAINING_MS)
    expect(loss).to_have_attribute("data-points", str(epochs), timeout=TRAINING_MS)
    expect(badge(page)).to_have_text("Completed", timeout=TRAINING_MS)
    expect(page.locator(".stats [data-field=epochs]")).to_have_text(f"{epochs} / {epochs}")
    expect(page.locator(".stats [data-field=accuracy]")).to_contain_text("%")
    expect(page.locator("#log")).not_to_be_empty()
    assert "Running" in page.evaluate("window.statuses")
    with page.expect_download() as download:
        page.get_by_role("link", name="checkpoints/best").click()
    assert download.value.path().stat().st_size > 1_000_000


def cancel(page: Page, place: Locator) -> None:
    place.get_by_role("button", name="Cancel").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()


def badge(place: Page | Locator) -> Locator:
    return place.locator("[data-badge]")


def take_picture(page: Page, path: Path) -> None:
    if PICTURES:
        path = Path(PICTURES, path.name)
        path.parent.mkdir(parents=True, exist_ok=True)
    expect(page.locator(".toast")).to_have_count(0)
    page.mouse.move(0, 0)
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=path, animations="disabled")
    with Image.open(path) as image:
        assert image.size == (SIZE["width"], SIZE["height"])
        assert len(image.getcolors(maxcolors=1 << 24) or []) > 50
