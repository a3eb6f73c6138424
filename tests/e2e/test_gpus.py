"""GPUs that others have, and jobs that did not fit into one, as the pages show them."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page, expect

from tests.e2e.dashboard_server import Dashboard, Worker

HELD = "is held by process 4312 (python, 18.2 GB), which is not ours"


def gpu(index: int, *, used: int, held_by: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "index": index, "name": "NVIDIA L4", "memory": 24000, "memory_used": used,
        "utilisation": 0, "uuid": f"GPU-{index}", "held_by": held_by,
    }  # fmt: skip


def test_who_has_a_gpu_is_said_of_the_worker_and_of_the_job_that_waits(
    page: Page, dashboard: Dashboard
) -> None:
    project_id = dashboard.project("Waiting for a GPU")
    job_id = dashboard.job(project_id, "waiting for a GPU", started=True)
    gpus = [gpu(0, used=900), gpu(1, used=18700, held_by={"text": HELD, "pid": 4312})]
    with dashboard.draining_worker("gpu-box-5", status="online", gpu=gpus, slots=2, busy=1, held=1):
        page.goto("/workers")
        worker = page.get_by_role("row").filter(has_text="gpu-box-5.lan")
        expect(worker).to_contain_text(f"GPU 1 {HELD}")
        expect(worker).to_contain_text("1 held by others")
        page.goto(f"/jobs/{job_id}")
        # Whether it says before that its slots are busy depends on the jobs of other tests.
        reason = f"; GPU 1 of gpu-box-5.lan {HELD}"
        expect(page.locator("[data-field=waiting]")).to_contain_text(reason)


def test_what_ran_out_of_memory_is_started_again_with_half_the_batch(
    page: Page, dashboard: Dashboard
) -> None:
    project_id = dashboard.project("Too large")
    job_id = dashboard.job(project_id, "too large", started=True)
    page.goto(f"/jobs/{job_id}")
    expect(page.locator("#live")).to_have_text("Live")
    again = page.get_by_role("button", name="Again with batch size")
    expect(again).to_be_hidden()
    worker = Worker(dashboard, job_id)
    worker.starts()
    error = {"kind": "out_of_memory", "message": "It does not fit", "hint": "Take half of it."}
    worker.ends("failed", error=error)
    expect(again).to_be_visible()
    half = int(str(again.inner_text()).rsplit(" ", 1)[1])
    again.click()
    expect(page).not_to_have_url(f"{dashboard.url}/jobs/{job_id}")
    expect(page.locator("[data-badge]").first).to_have_text("Queued")
    expect(page.locator("[data-panel=facts]")).to_contain_text(str(half))


def test_another_failure_has_no_such_button(page: Page, dashboard: Dashboard) -> None:
    project_id = dashboard.project("Otherwise")
    job_id = dashboard.job(project_id, "fails otherwise", started=True)
    worker = Worker(dashboard, job_id)
    worker.starts()
    worker.ends("failed", error={"kind": "nan_loss", "message": "The loss is nan", "hint": "Less."})
    page.goto(f"/jobs/{job_id}")
    expect(page.get_by_role("alert").first).to_contain_text("The loss is nan")
    expect(page.get_by_role("button", name="Again with batch size")).to_be_hidden()
