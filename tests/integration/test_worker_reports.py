"""What a real worker tells of itself and of what its child takes, up to the API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from adapters.catalog import models
from tests.factories import make_job
from tests.services import RedisService, wait_for
from tests.worker_service import Instance, instance, job_is
from webapp.extensions import db
from webapp.models import JobEvent, LoadSample
from webapp.services import broker, job_actions, load


@pytest.fixture
def there(tmp_path: Path, redis_service: RedisService) -> Iterator[Instance]:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    with instance(tmp_path, database_url=url, redis=redis_service) as there:
        there.recorder()
        yield there


def test_a_childs_load_is_sampled_while_it_trains_and_the_worker_tells_its_models(
    there: Instance,
) -> None:
    there.worker("w1")
    job = make_job(
        dataset_path=str(there.data / "digits"), epochs=500, model_name="test_resnet",
        image_size=32, batch_size=64,
    )  # fmt: skip
    job_actions.start(job, actor="test")

    def sampled() -> bool:
        db.session.rollback()
        return len(load.curves(job)["cpu_percent"]) >= 3

    try:
        wait_for(sampled, what="three samples")
    except TimeoutError as error:
        raise AssertionError(f"{error}\n{there.logs()}") from None
    [worker] = wait_for(broker.workers, what="the worker")
    told = worker["models"]["timm"]
    assert (told["models"], told["missing"], told["weights"]) == (len(models("timm")), [], [])
    assert told["version"] == worker["versions"]["timm"]
    samples = list(db.session.scalars(select(LoadSample).order_by(LoadSample.id)))
    assert max(sample.cpu_percent for sample in samples) > 1  # of a core that others want, too
    assert 50e6 < samples[-1].memory_bytes < 4e9  # torch, a tiny model, no copy of the template
    assert {(sample.attempt, sample.gpu_percent) for sample in samples} == {(1, None)}
    assert len(list(db.session.scalars(select(JobEvent).filter_by(type="load")))) == 1
    job_actions.cancel(job, mode=job_actions.CancelMode.KILL, actor="test")
    wait_for(job_is(job, lambda j: j.status == "cancelled"), what="the end")
