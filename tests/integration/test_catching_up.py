"""The world is further than the database: a backup was restored, or its last commits are lost."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from sqlalchemy import select, update

from adapters import wire
from adapters.contract import DatasetFormat, TaskType, TrainingJob
from adapters.wire import EventType
from tests.factories import FINISHED, STARTED, make_events, make_job
from tests.factories import metrics as epoch_metrics
from tests.services import RedisService
from webapp.extensions import db
from webapp.models import Attempt, Job, Metric, StatusChange
from webapp.models.columns import utc_now
from webapp.services import executors, job_actions
from webapp.services.catching_up import catch_up
from webapp.services.reaper import RESEND_AFTER_SECONDS, Reaper, give_up_or_conclude
from webapp.services.recorder import record
from workers.journal import Journal
from workers.lease import Lease

ERROR = {"kind": "framework", "message": "always fails", "hint": ""}
FAILED = {**FINISHED, "outcome": "failed", "error": ERROR, "exit_code": 1}


def fresh(job: Job) -> Job:
    db.session.rollback()
    db.session.refresh(job)
    return job


def trained(job: Job, attempt: int, *, output_dir: Path) -> TrainingJob:
    return TrainingJob(
        id=job.id, attempt=attempt, project_id=1, framework="timm", model_name="m",
        task_type=TaskType.IMAGE_CLASSIFICATION, dataset_path=Path("/data"),
        dataset_format=DatasetFormat.IMAGEFOLDER, epochs=4, batch_size=8, learning_rate=0.01,
    ).placed(output_dir=output_dir, weights_dir=output_dir, compute_device="cpu")  # fmt: skip


def write_journal(job: Job, home: Path, attempt: int, *steps: tuple[EventType, dict]) -> None:  # type: ignore[type-arg]
    """Write an attempt's file as its worker did."""
    folder = home / "outputs" / wire.job_folder(job.id)
    journal = Journal(trained(job, attempt, output_dir=folder))
    for type, data in steps:
        journal.append(type, data)
    journal.close()


def lease(job: Job, attempt: int, home: Path, redis: RedisService) -> Lease:
    held = Lease(redis.client(), trained(job, attempt, output_dir=home), worker="w1")
    assert held.hold()
    return held


def messages(job: Job) -> list[str]:
    client = executors.broker.redis_client()
    found = []
    for step in range(wire.PRIORITY_STEPS):
        found += client.lrange(wire.priority_list("timm", step), 0, -1)
    return [text for text in found if f'"job-{job.id}-attempt-{job.attempt}"' in text]


def let_time_pass(redis: RedisService) -> None:
    """Let the broker forget its messages, long after they were sent."""
    with redis.client() as client:
        for step in range(wire.PRIORITY_STEPS):
            client.delete(wire.priority_list("timm", step))
    age = utc_now() - timedelta(seconds=RESEND_AFTER_SECONDS + 1)
    db.session.execute(update(Attempt).values(queued_at=age))
    db.session.commit()


def epochs_of(job: Job) -> list[int]:
    return list(db.session.scalars(select(Metric.epoch).filter_by(job_id=job.id).order_by("epoch")))


def test_a_queued_attempt_that_was_over_begins_as_the_first_that_may_train(
    job: Job, redis: RedisService, tmp_path: Path
) -> None:
    """Redis has seen attempts 1 to 4 end; the database is older than all of them."""
    lease(job, 4, tmp_path, redis).release()
    let_time_pass(redis)
    reaper = Reaper()
    reaper.send_again()
    assert fresh(job).attempt == 1  # its events may be on their way
    reaper.send_again()
    assert (fresh(job).status, job.attempt, job.resume) == ("queued", 5, True)
    assert len(messages(job)) == 1
    assert lease(job, 5, tmp_path, redis)
    reason = db.session.scalars(select(StatusChange.reason).order_by(StatusChange.id)).all()[-1]
    assert reason == "attempt 1 was over, which the database did not know of"


def test_a_job_cancelled_meanwhile_is_not_begun_again(
    job: Job, redis: RedisService, tmp_path: Path
) -> None:
    lease(job, 4, tmp_path, redis).release()
    let_time_pass(redis)
    reaper = Reaper()
    reaper.send_again()
    job_actions.cancel(job, mode=job_actions.CancelMode.NOW, actor="test")
    reaper.send_again()
    assert (fresh(job).status, job.attempt) == ("cancelled", 1)
    with redis.client() as client:  # a cancel does not let ended attempts begin again
        assert client.get(wire.fence_key(job.id)) == "5"


def test_a_job_follows_the_worker_that_trains_a_later_attempt(
    job: Job, redis: RedisService, tmp_path: Path
) -> None:
    """Its worker is asked for what was said before, and goes on without a break."""
    held = lease(job, 3, tmp_path, redis)
    Reaper().follow_workers()
    assert (fresh(job).status, job.attempt) == ("queued", 3)
    Reaper().send_again()
    recorded = record(make_events(job, epoch_metrics(2, top1=0.5), first=7))
    assert recorded.gaps == {(job.id, 3): 1}
    assert held.hold()  # nothing has raised the fence over it


def test_a_lost_job_takes_from_its_file_what_came_after_the_database(
    job: Job, redis: RedisService, tmp_path: Path
) -> None:
    record(make_events(job, (EventType.STARTED, STARTED), epoch_metrics(1, top1=0.1)))
    shut_down = {**FINISHED, "outcome": "handed_back"}
    write_journal(
        job, tmp_path, 1, (EventType.STARTED, STARTED), epoch_metrics(1, top1=0.1),
        epoch_metrics(2, top1=0.2), (EventType.FINISHED, shut_down),
    )  # fmt: skip
    write_journal(job, tmp_path, 2, (EventType.STARTED, STARTED), epoch_metrics(3, top1=0.3))
    write_journal(job, tmp_path, 5, (EventType.STARTED, STARTED), epoch_metrics(4, top1=0.4))
    give_up_or_conclude(fresh(job), reason="worker w1 was lost")
    assert (fresh(job).status, job.attempt) == ("running", 5)
    assert epochs_of(job) == [1, 2, 3, 4]
    give_up_or_conclude(job, reason="worker w1 was lost")
    assert (fresh(job).status, job.attempt) == ("queued", 6)
    ends = {a.number: a.outcome for a in db.session.scalars(select(Attempt))}
    assert ends == {1: "handed_back", 2: "lost", 5: "lost", 6: None}


def test_a_job_that_has_ended_since_ends_as_its_file_says(
    job: Job, redis: RedisService, tmp_path: Path
) -> None:
    """In the database it failed; somebody resumed it after the backup, and it completed."""
    first = [(EventType.STARTED, STARTED), (EventType.FINISHED, FAILED)]
    record(make_events(job, *first))
    assert fresh(job).status == "failed"
    write_journal(job, tmp_path, 1, *first)
    write_journal(
        job, tmp_path, 2, (EventType.STARTED, STARTED), epoch_metrics(1, top1=0.4),
        (EventType.FINISHED, FINISHED),
    )  # fmt: skip
    assert catch_up(job.id) == [2]
    assert (fresh(job).status, job.attempt, job.error) == ("completed", 2, None)
    assert epochs_of(job) == [1]
    assert catch_up(job.id) == []


def test_a_job_that_was_never_started_in_the_database_takes_all_its_attempts(
    job: Job, redis: RedisService, tmp_path: Path
) -> None:
    pending = make_job()
    write_journal(pending, tmp_path, 1, (EventType.STARTED, STARTED), epoch_metrics(1, top1=0.4))
    assert catch_up(pending.id) == [1]
    assert (fresh(pending).status, pending.attempt, pending.resume) == ("running", 1, False)


def test_nobody_trains_what_the_database_does_not_have(job: Job, redis: RedisService) -> None:
    """A worker at a job, or at an attempt of an ended job, that came after the backup is ended."""
    unknown = Job(id=77, attempt=2)
    recorded = record(make_events(unknown, epoch_metrics(1, top1=0.1), first=4))
    assert recorded.refused == {(77, 2)}
    job_actions.cancel(job, mode=job_actions.CancelMode.NOW, actor="test")
    later = Job(id=job.id, attempt=3)
    recorded = record(make_events(later, epoch_metrics(1, top1=0.1), first=4))
    assert recorded.refused == {(job.id, 3)}
