"""Who packs which data set, and what becomes of its copy: on both databases, with a real queue."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask
from sqlalchemy import select, update

from adapters.data.manifest import dataset_prefix, manifest_key
from modelyard.storage import Store, open_store
from tests.factories import application, environment, make_job
from tests.unit.data_sets import make_imagefolder, write_image
from webapp import packer
from webapp.extensions import db
from webapp.models import Attempt, CopyStatus, Dataset, DatasetCopy, Job, Project, StatusChange
from webapp.models.columns import utc_now
from webapp.packer import Packer
from webapp.services import dataset_claims, dataset_copies, datasets, job_actions, reaper
from webapp.services.job_view import view
from webapp.services.reaper import Reaper


@dataclass
class There:
    app: Flask
    folder: Path
    store: Store
    redis: redis.Redis

    @property
    def data(self) -> Path:
        return self.folder / "home" / "data"

    def register(self, name: str = "tiny") -> Dataset:
        if not (self.data / name).exists():
            make_imagefolder(self.data / name)
        project = Project(name="cats")
        db.session.add(project)
        db.session.commit()
        return datasets.register(project, name=name, path=str(self.data / name))

    def job(self, dataset: Dataset, **fields: Any) -> Job:
        values = {
            "dataset_id": dataset.id,
            "dataset_path": dataset.path,
            "dataset_fingerprint": dataset.fingerprint,
        }
        job = make_job(**{**values, **fields})
        job_actions.start(job, actor="test")
        return job

    def pack(self) -> None:
        with self.app.app_context():  # and a session of its own, as in its process
            Packer(self.app, self.store).run()
        db.session.rollback()

    def objects(self, dataset: Dataset) -> list[str]:
        return [entry.key for entry in self.store.list(f"{dataset_prefix(dataset.fingerprint)}/")]

    def queued(self) -> int:
        return int(self.redis.llen("timm\x06\x165"))  # type: ignore[arg-type]


def copy_of(dataset: Dataset | str) -> DatasetCopy:
    db.session.rollback()
    fingerprint = dataset if isinstance(dataset, str) else dataset.fingerprint
    return db.session.get_one(DatasetCopy, fingerprint, populate_existing=True)


def silent(copy: DatasetCopy) -> None:
    """Let the last word of who is at a copy be long ago."""
    copy.updated_at -= timedelta(minutes=1)
    db.session.commit()


@contextmanager
def instance(folder: Path, database_url: str, redis_url: str) -> Iterator[There]:
    url = f"file://{folder}/store"
    environ = environment(
        folder / "home", database_url=database_url, redis_url=redis_url, MODELYARD_STORE=url
    )
    with application(environ) as app, redis.Redis.from_url(redis_url) as client:
        yield There(app, folder, open_store(url), client)


@pytest.fixture
def there(tmp_path: Path, redis_url: str) -> Iterator[There]:
    with instance(tmp_path, f"sqlite:///{tmp_path / 'modelyard.db'}", redis_url) as there:
        yield there


@pytest.fixture
def on_both(tmp_path: Path, database_url: str, redis_url: str) -> Iterator[There]:
    """The same on each database, for what is decided by its transactions."""
    with instance(tmp_path, database_url, redis_url) as there:
        yield there


def test_a_registered_data_set_is_stored_and_its_jobs_are_sent(on_both: There):
    dataset = on_both.register()
    job = on_both.job(dataset)
    assert on_both.queued() == 0
    assert view(job)["waiting_reason"] == "Its data set waits to be put into the store"
    on_both.pack()
    copy = copy_of(dataset)
    assert (copy.status, copy.error, copy.packer) == (CopyStatus.STORED, None, None)
    assert len(on_both.objects(dataset)) == 2
    assert on_both.queued() == 1
    assert "data set" not in (view(job)["waiting_reason"] or "")
    on_both.job(dataset)
    assert on_both.queued() == 2  # at once
    assert not dataset_claims.anything_to_do()


def test_the_reaper_leaves_jobs_alone_while_their_copy_is_made(on_both: There):
    dataset = on_both.register()
    job = on_both.job(dataset)
    db.session.execute(update(Attempt).values(queued_at=utc_now() - timedelta(hours=1)))
    db.session.commit()
    assert reaper.forgotten() == []
    dataset.fingerprint = "2" * 64  # checked again meanwhile, and the job has not begun: it follows
    db.session.commit()
    assert reaper.forgotten() == [job.id]
    Reaper().send_again()
    assert db.session.get_one(Job, job.id).dataset_fingerprint == "2" * 64
    assert copy_of("2" * 64).status == CopyStatus.WANTED
    assert reaper.forgotten() == []
    copy_of("2" * 64).status = CopyStatus.STORED  # and its packer died before it sent the jobs
    db.session.commit()
    Reaper().send_again()
    assert on_both.queued() == 1


def test_the_page_of_a_data_set_says_how_far_its_copy_is(there: There):
    dataset = there.register()
    assert dataset_copies.in_words(dataset) == "Not yet"
    dataset_claims.claim("one")
    dataset_claims.tell(db.session(), dataset.fingerprint, "one", done=5, total=12)
    db.session.commit()
    assert dataset_copies.in_words(dataset) == "Being put there, 41 %"
    assert "(41 %)" in view(there.job(dataset))["waiting_reason"]
    dataset_claims.postpone(dataset.fingerprint, "one", error="it is full", tries=1)
    assert dataset_copies.in_words(dataset) == "Not yet: it is full"
    dataset_claims.postpone(dataset.fingerprint, "one", error=None, tries=0)
    silent(copy_of(dataset))
    copy_of(dataset).try_at = None
    db.session.commit()
    there.pack()
    assert (dataset_copies.in_words(dataset) or "").startswith("Yes, ")


def test_the_same_content_elsewhere_is_stored_once(there: There):
    first = there.register()
    shutil.copytree(there.data / "tiny", there.data / "same")
    second = there.register("same")
    assert first.fingerprint == second.fingerprint
    there.pack()
    assert len(there.objects(first)) == 2
    there.job(second)
    assert there.queued() == 1


def test_a_copy_in_the_store_is_found_also_by_a_database_that_does_not_know_of_it(there: There):
    dataset = there.register()
    there.pack()
    db.session.delete(copy_of(dataset))
    db.session.commit()
    shutil.rmtree(there.data / "tiny")  # it could not be packed again
    there.job(dataset)
    there.pack()
    assert copy_of(dataset).status == CopyStatus.STORED
    assert there.queued() == 1


def test_of_many_packers_one_has_the_claim(on_both: There):
    dataset = on_both.register()
    taken: list[bool] = []

    def claim(number: int) -> None:
        with on_both.app.app_context():
            taken.append(dataset_claims.claim(f"packer {number}") is not None)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [False, False, False, True]
    assert copy_of(dataset).status == CopyStatus.PACKING


def test_a_claim_lapses_and_its_first_holder_has_nothing_more_to_say(on_both: There):
    dataset = on_both.register()
    assert dataset_claims.claim("one") is not None
    assert dataset_claims.claim("other") is None
    silent(copy_of(dataset))
    assert dataset_claims.claim("other") is not None
    assert not dataset_claims.tell(db.session(), dataset.fingerprint, "one", done=1)
    assert dataset_claims.stored(dataset.fingerprint, "one", size=1) == []
    dataset_claims.give_up(dataset.fingerprint, "one", error="no")
    copy = copy_of(dataset)
    assert (copy.status, copy.packer, copy.done) == (CopyStatus.PACKING, "other", 0)


def test_a_packer_that_lost_its_claim_stops_packing(there: There, monkeypatch: pytest.MonkeyPatch):
    dataset = there.register()
    monkeypatch.setattr(packer, "_TELL_SECONDS", 0.01)
    real = Store.put

    def put(store: Store, local: Path, key: str) -> Any:
        db.session.rollback()
        copy_of(dataset).packer = "another"
        db.session.commit()
        assert lost.wait(120)
        return real(store, local, key)

    lost = threading.Event()
    told = dataset_claims.tell

    def tell(*how: Any, **values: Any) -> bool:
        held = told(*how, **values)
        if not held:
            lost.set()
        return held

    monkeypatch.setattr(Store, "put", put)
    monkeypatch.setattr(dataset_claims, "tell", tell)
    there.pack()
    assert copy_of(dataset).packer == "another"
    assert manifest_key(dataset.fingerprint) not in there.objects(dataset)


def test_what_a_killed_packer_stored_is_not_stored_again(
    there: There, monkeypatch: pytest.MonkeyPatch
):
    dataset = there.register()
    there.pack()
    there.store.delete(manifest_key(dataset.fingerprint))  # it is written last
    left = there.data.parent / "packing" / f"{'0' * 32}"
    left.mkdir()
    left.with_suffix(".lock").touch()
    copy = copy_of(dataset)
    copy.status, copy.packer = CopyStatus.PACKING, "killed"
    silent(copy)
    put: list[str] = []
    monkeypatch.setattr(Store, "put", lambda store, local, key: put.append(key))
    there.pack()
    assert put == []
    assert copy_of(dataset).status == CopyStatus.STORED
    assert list((there.data.parent / "packing").iterdir()) == []


def test_a_damaged_copy_is_packed_again_and_no_job_is_sent_before(there: There):
    dataset = there.register()
    there.pack()
    shard = next(key for key in there.objects(dataset) if key.endswith(".tar"))
    whole = there.store.read(shard)
    there.store.write(shard, bytes(len(whole)))
    dataset_copies.report_damage(db.session(), dataset.fingerprint)
    db.session.commit()
    there.job(dataset)
    assert there.queued() == 0
    there.pack()
    assert there.store.read(shard) == whole
    assert (copy_of(dataset).damaged, there.queued()) == (False, 1)


def test_a_store_that_takes_nothing_is_tried_again_ever_more_seldom(
    there: There, monkeypatch: pytest.MonkeyPatch
):
    dataset = there.register()
    job = there.job(dataset)
    (there.folder / "store").write_text("a file where the store's folder should be")
    waits = []
    for tries in (1, 2, 3):
        there.pack()
        copy = copy_of(dataset)
        assert (copy.status, copy.tries) == (CopyStatus.WANTED, tries)
        assert copy.try_at is not None
        waits.append(copy.try_at - copy.updated_at)
        assert not dataset_claims.anything_to_do()
        assert "is tried again:" in view(job)["waiting_reason"]
        copy.try_at = copy.updated_at
        db.session.commit()
    assert waits == sorted(waits)
    (there.folder / "store").unlink()
    there.pack()
    assert (copy_of(dataset).status, there.queued()) == (CopyStatus.STORED, 1)


def test_a_folder_that_changed_fails_its_jobs_with_what_to_do(on_both: There):
    dataset = on_both.register()
    job = on_both.job(dataset)
    write_image(on_both.data / "tiny" / "val" / "dog" / "new.png")
    on_both.pack()
    db.session.refresh(job)
    assert job.status == "failed"
    assert job.error is not None
    assert "has changed since it was checked; validate it again" in job.error["message"]
    last = db.session.scalars(select(StatusChange).order_by(StatusChange.id.desc())).first()
    assert last is not None
    assert (last.actor, last.status) == ("packer", "failed")
    assert manifest_key(dataset.fingerprint) not in on_both.objects(dataset)
    datasets.look_again(dataset)
    job_actions.resume(job, actor="test")
    on_both.pack()
    assert (job.status, job.dataset_fingerprint) == ("queued", dataset.fingerprint)
    assert on_both.queued() == 1


def test_a_job_that_has_begun_keeps_its_content(there: There):
    dataset = there.register()
    there.pack()
    before = dataset.fingerprint
    job = there.job(dataset)
    job.started_at = job.created_at
    write_image(there.data / "tiny" / "val" / "dog" / "new.png")
    datasets.look_again(dataset)
    assert dataset.fingerprint != before
    assert dataset_copies.at_hand(job)
    assert job.dataset_fingerprint == before


def test_a_copy_goes_with_the_last_that_needs_it(on_both: There):
    dataset = on_both.register()
    fingerprint = dataset.fingerprint
    on_both.pack()
    copy = copy_of(dataset)
    silent(copy)
    dataset_claims.forget_unused()
    assert copy_of(dataset).status == CopyStatus.STORED
    job = on_both.job(dataset)
    job_actions.cancel(job, mode=job_actions.CancelMode.NOW, actor="test")
    datasets.remove(dataset)
    other = on_both.job(dataset=Dataset(path=job.dataset_path, fingerprint=fingerprint))
    dataset_claims.forget_unused()
    assert copy_of(fingerprint).status == CopyStatus.STORED
    job_actions.cancel(other, mode=job_actions.CancelMode.NOW, actor="test")
    dataset_claims.forget_unused()
    on_both.pack()
    assert db.session.get(DatasetCopy, fingerprint, populate_existing=True) is None
    assert list(on_both.store.list("datasets/")) == []


def test_without_a_store_nothing_is_copied(tmp_path: Path, redis_url: str):
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    environ = environment(tmp_path / "home", database_url=url, redis_url=redis_url)
    with application(environ) as app, redis.Redis.from_url(redis_url) as client:
        there = There(app, tmp_path, open_store(f"file://{tmp_path}/store"), client)
        there.job(there.register())
        assert there.queued() == 1
        assert db.session.scalars(select(DatasetCopy)).all() == []
