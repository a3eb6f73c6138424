"""The README's picture, of the real dashboard: PICTURES=docs/images pytest tests/e2e -k picture."""

from __future__ import annotations

import math
import os
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect

from tests.e2e.dashboard_server import Dashboard, Worker

EPOCHS = 12


def test_a_picture_of_the_dashboard_is_made(
    page: Page, dashboard: Dashboard, tmp_path: Path
) -> None:
    folder = Path(os.environ.get("PICTURES") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    project_id = dashboard.project("Handwritten digits", "1,797 digits of UCI's optical set")
    job_id = train_some(dashboard, project_id)
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(f"/jobs/{job_id}")
    expect(page.locator("[data-chart=loss]")).to_have_attribute("data-points", "9")
    expect(page.locator("#log")).to_contain_text("epoch 9/12")
    picture = folder / "dashboard.png"
    page.screenshot(path=picture, animations="disabled")
    with Image.open(picture) as image:
        assert image.size == (1280, 800)
        assert len(image.getcolors(maxcolors=1 << 24) or []) > 50


def train_some(dashboard: Dashboard, project_id: int) -> int:
    """Tell of a job that is in its tenth epoch; return its id."""
    job_id = dashboard.job(
        project_id, "resnet18 at 64 px", started=True, image_size=64, tags=["baseline"]
    )
    worker = Worker(dashboard, job_id)
    worker.starts()
    worker.logs("resnet18: 11.2 M parameters, bfloat16, channels last")
    for epoch in range(1, 10):
        top1 = 1 - 0.75 * math.exp(-epoch / 1.7)
        worker.measures(
            epoch=epoch,
            train_loss=0.55 + 1.7 * math.exp(-epoch / 2),
            val_loss=0.03 + 1.5 * math.exp(-epoch / 1.9),
            top1=top1,
            top5=1 - 0.2 * math.exp(-epoch),
            learning_rate=0.001 * (1 + math.cos(math.pi * epoch / EPOCHS)),
            images_per_second=830 - 12 * math.cos(epoch),
        )
        worker.logs(f"epoch {epoch}/{EPOCHS}  top-1 {top1:.3f}")
        worker.keeps("checkpoints/last.pt")
    worker.keeps("checkpoints/best.pt")
    worker.is_at(epoch=10, epochs=EPOCHS, percent=78.4, eta_seconds=11)
    return job_id
