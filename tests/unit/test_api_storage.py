"""What takes how much room, over the API and for Prometheus."""

from __future__ import annotations

from tests.api import Api
from webapp.extensions import db
from webapp.models import Job
from webapp.services import disk_use
from webapp.services.outputs import output_dir


def with_files(api: Api, job_id: int, size: int) -> None:
    with api.app.app_context():
        output_dir(job_id).mkdir(parents=True)
        (output_dir(job_id) / "model").write_bytes(b"x" * size)
        disk_use.measure()


def test_everybody_sees_the_totals_and_their_own_projects(api: Api) -> None:
    ada, eve = api.person("ada"), api.person("eve")
    project = ada.project("Shades")
    job = ada.job(project, api.dataset(project))
    eve.project("Another")
    with_files(api, job["id"], 5000)
    told = ada.get("/storage").json
    sizes = {use["name"]: use["size"] for use in told["uses"]}
    assert sizes["outputs"] == 5000
    assert sizes["database"] > 0
    assert told["projects"] == [{"project_id": project, "name": "Shades", "jobs": 1, "size": 5000}]
    assert "outputs" in told["volumes"][0]["names"]
    assert 0 < told["volumes"][0]["free"] <= told["volumes"][0]["total"]
    assert eve.get("/storage").json["projects"] == []
    assert api.nobody.get("/storage").status_code == 401
    assert ada.get(f"/training/jobs/{job['id']}").json["output_bytes"] == 5000


def test_prometheus_is_told_what_is_used_and_what_is_left(api: Api) -> None:
    ada = api.person("ada")
    project = ada.project()
    with_files(api, ada.job(project, api.dataset(project))["id"], 5000)
    text = api.app.test_client().get("/metrics").text
    assert 'modelyard_used_bytes{name="outputs"} 5000.0' in text
    assert 'modelyard_free_bytes{name="outputs"}' in text
    assert 'modelyard_volume_bytes{name="database"}' in text


def test_a_job_tells_whether_it_can_be_resumed(api: Api) -> None:
    ada = api.person("ada")
    project = ada.project()
    job_id = ada.job(project, api.dataset(project))["id"]

    def resumable(**columns: object) -> bool:
        with api.app.app_context():
            job = db.session.get_one(Job, job_id)
            for name, value in columns.items():
                setattr(job, name, value)
            db.session.commit()
        return bool(ada.get(f"/training/jobs/{job_id}").json["resumable"])

    assert not resumable()
    assert not resumable(status="cancelled")  # before it started
    assert resumable(status="failed", attempt=1)
    assert not resumable(status="completed")
    assert not resumable(status="failed", last_checkpoint="gone")
    answer = ada.post(f"/training/jobs/{job_id}/resume")
    assert answer.status_code == 400
    assert "MODELYARD_KEEP_LAST_DAYS" in answer.json["detail"]
