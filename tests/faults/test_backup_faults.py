"""Backups that are taken while everything runs, and come back into a world that has gone on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from adapters import wire
from modelyard.settings import load_settings
from tests.factories import environment
from tests.faults.invariants import Invariants
from tests.faults.site import Site, ended, in_epoch, kill, site, training
from tests.services import RedisService
from tests.worker_service import ROOT
from webapp import create_app
from webapp.extensions import db
from webapp.models import Job
from webapp.services import job_actions, schema


def migrated(home: Path, database_url: str) -> None:
    """Make the tables as a release does; a backup is of a revision."""
    home.mkdir(exist_ok=True)
    app = create_app(load_settings(environment(home, database_url=database_url)))
    with app.app_context():
        schema.migrate()
        db.engine.dispose()


def modelyard(there: Site, *words: str) -> str:
    """Run the command line beside an instance, and return what it says."""
    let_go()
    done = subprocess.run(
        [sys.executable, "-m", "modelyard", *words],
        env={"PATH": "/usr/bin", **there.environ}, cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def let_go() -> None:
    """Close this process's connections, as a stopped web process has."""
    db.session.remove()
    db.engine.dispose()


def job_again(job_id: int) -> Job:
    return db.session.get_one(Job, job_id)


def whole(there: Site, accepted: dict[int, str]) -> None:
    let_go()
    invariants = Invariants(there.home, database_url=there.database_url, redis=there.redis)
    assert invariants.check(accepted=accepted).all() == [], there.logs()


def test_a_backup_under_load_goes_on_elsewhere_with_another_database_and_redis(
    tmp_path: Path, postgres_url: str, redis_service: RedisService
) -> None:
    """The machine burns down; what is left is the backup and the outputs' disk."""
    file, first, second = tmp_path / "backup.tar.gz", tmp_path / "first", tmp_path / "second"
    url = f"sqlite:///{first / 'modelyard.db'}"
    migrated(first, url)
    with site(first, database_url=url, redis=redis_service) as here:
        here.recorder()
        here.quick_worker("w1")
        done = here.job(epochs=2)
        here.wait(done, ended)
        running, waiting = here.job(epochs=6, hold_in=4), here.job(epochs=2)
        idle = here.job(epochs=1, start=False)
        here.wait(running, in_epoch(4))
        ids = [job.id for job in (done, running, waiting, idle)]
        said = modelyard(here, "backup", str(file))
        assert "4 jobs" in said
        for process in here._processes:
            kill(process)
    new_redis = RedisService(tmp_path / "new-redis")
    new_redis.start()
    try:
        shutil.copytree(first / "outputs", second / "outputs")
        with site(second, database_url=postgres_url, redis=new_redis) as there:
            db.drop_all()
            there.environ["MODELYARD_DATA_ROOTS"] = str(first / "data")
            said = modelyard(there, "restore", str(file))
            assert f"2 jobs go on, queued or running: {ids[1]}, {ids[2]}" in said
            with new_redis.client() as client:
                # As one that was kept: it has seen three attempts of the waiting job end.
                client.set(wire.fence_key(ids[2]), 4)
            there.let_go(ids[1])
            there.recorder()
            there.quick_worker("w2")
            for job_id in ids[1:3]:
                there.wait(job_again(job_id), ended)
            assert [job_again(job_id).attempt for job_id in ids[1:3]] == [2, 4]
            assert job_again(ids[3]).status == "pending"
            whole(there, dict.fromkeys(ids[:3], "completed"))
    finally:
        new_redis.stop()


def test_a_backup_comes_back_while_workers_have_gone_on(
    tmp_path: Path, redis_service: RedisService
) -> None:
    """Since the backup one job's worker has died, one job has ended, and one has come."""
    home, file = tmp_path / "home", tmp_path / "backup.tar.gz"
    url = f"sqlite:///{home / 'modelyard.db'}"
    migrated(home, url)
    with site(home, database_url=url, redis=redis_service) as here:
        recorder = here.recorder()
        workers = {name: here.quick_worker(name) for name in ("w1", "w2", "w3", "w4")}
        moved, steady = (here.job(epochs=6, hold_in=3).id for _ in range(2))
        waiting = here.job(epochs=2, start=False).id
        for job_id in (moved, steady):
            here.wait(job_again(job_id), in_epoch(3))
        modelyard(here, "backup", str(file))
        job_actions.start(job_again(waiting), actor="test")
        here.wait(job_again(waiting), ended)
        late = here.job(epochs=10000).id
        here.wait(job_again(late), training)
        kill(workers[str(job_again(moved).worker)])
        here.wait(job_again(moved), lambda job: training(job) and job.attempt == 2)
        assert training(job_again(steady))
        kill(recorder)

        said = modelyard(here, "restore", "--replace", str(file))
        assert f"Job {moved}: recorded attempt 2 from its files, later than the backup" in said
        assert f"2 jobs go on, queued or running: {moved}, {steady}" in said
        lost = "1 job was made after the backup and is lost; its files are still there"
        assert f"{lost}: {late}" in said
        assert job_again(waiting).status == "completed"
        for job_id in (moved, steady):
            here.let_go(job_id)
        here.recorder()
        for job_id in (moved, steady):
            here.wait(job_again(job_id), ended)
        # Nobody disturbed the workers that trained them.
        assert (job_again(moved).attempt, job_again(steady).attempt) == (2, 1)
        new = here.job(epochs=1)
        assert new.id > late + 1000
        here.wait(new, ended)
        # The late one, which would train for half an hour, holds no lease and has no process.
        whole(here, dict.fromkeys([moved, steady, waiting, new.id], "completed"))
