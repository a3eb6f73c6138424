"""An attempt whose outputs travel through a store: what it begins with, and how it may end."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.contract import DatasetFormat, TaskType, TrainingError, TrainingJob
from adapters.wire import EventType, Outcome
from modelyard.settings import Settings, load_settings
from modelyard.storage import StorageError, Store, open_store
from modelyard.stored_copies import LocalState, read_state
from modelyard.stored_outputs import StoredOutputs
from tests.services import wait_for
from workers import stored
from workers.fetching import FetchStopped
from workers.journal import Journal
from workers.leash import lease_clock
from workers.stopping import Stop, StopRequest
from workers.stored import StoredAttempt
from workers.supervisor import Ending

RESULT = {"epochs_completed": 3, "stopped": None}
COMPLETED = Ending(Outcome.COMPLETED, result=RESULT, exit_code=0)


class Attempt:
    """One attempt on one host."""

    def __init__(
        self,
        home: Path,
        number: int,
        *,
        job_id: int = 7,
        initial_job_id: int | None = None,
        **environ: str,
    ) -> None:
        environ = {"MODELYARD_HOME": str(home), **environ}
        self.settings: Settings = load_settings(environ)
        self.folder = self.settings.outputs / "jobs" / str(job_id)
        self.job = TrainingJob(
            id=job_id, attempt=number, framework="timm", model_name="m",
            task_type=TaskType.IMAGE_CLASSIFICATION, dataset_path=home,
            dataset_format=DatasetFormat.IMAGEFOLDER, epochs=3, batch_size=1, learning_rate=0.1,
            resume=number > 1, initial_job_id=initial_job_id,
        ).placed(
            output_dir=self.folder, weights_dir=home, compute_device="cpu",
            initial_dir=home / "initial" if initial_job_id else None,
        )  # fmt: skip
        self.stop = StopRequest()
        self.journal = Journal(self.job)
        self.lease_until = lease_clock() + 3600
        self.stored = StoredAttempt(
            self.job, self.settings, journal=self.journal, sink=self.sink, stop=self.stop,
            lease_until=lambda: self.lease_until,
        )  # fmt: skip

    def sink(self, type: EventType, data: Any) -> None:
        self.journal.append(type, data)
        self.stored.heard(type, data)

    def trains(self, epoch: int) -> None:
        """Do what a child's epoch does: metrics, then the checkpoint."""
        self.sink(EventType.METRICS, {"epoch": epoch, "step": None, "values": {"loss": 1 / epoch}})
        self.write("checkpoints/last.pth", f"epoch {epoch}")

    def write(self, name: str, content: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(".writing").write_text(content)
        path.with_name(".writing").replace(path)
        self.sink(EventType.ARTIFACT, {"name": name, "kind": "checkpoint"})

    def told(self, type: str) -> list[Any]:
        lines = self.journal.path.read_text().splitlines()
        events = [json.loads(line) for line in lines]
        own = [event for event in events if event["attempt"] == self.job.attempt]
        return [event["data"] for event in own if event["type"] == type]

    def said(self) -> str:
        return "\n".join(line for data in self.told("log") for line in data["lines"])


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/store"


@pytest.fixture
def outputs(url: str) -> StoredOutputs:
    return StoredOutputs(open_store(url), 7)


@pytest.fixture
def begin(tmp_path: Path, url: str) -> Iterator[Callable[..., Attempt]]:
    made: list[Attempt] = []

    def begin(host: str, number: int, **environ: Any) -> Attempt:
        environ = {"MODELYARD_STORE": url, **environ}
        made.append(Attempt(tmp_path / host, number, **environ))
        return made[-1]

    yield begin
    for attempt in made:
        attempt.stored.close()
        attempt.journal.close()


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Whether the store takes nothing."""
    away, put = threading.Event(), Store.put

    def put_or_not(self: Store, *arguments: Any, **keywords: Any) -> Any:
        if away.is_set():
            raise StorageError("no way to the store")
        return put(self, *arguments, **keywords)

    monkeypatch.setattr(Store, "put", put_or_not)
    monkeypatch.setattr(stored, "LAST_EVENTS_SECONDS", 0.2)
    return away


def eventually(condition: Callable[[], object]) -> None:
    wait_for(condition, pause_seconds=0.02)


def last_in(outputs: StoredOutputs) -> str:
    file = outputs.newest().files.get("checkpoints/last.pth")
    return "" if file is None else outputs.store.read(file.key).decode()


def test_another_host_goes_on_with_the_files_and_tells_the_metrics_again(
    begin: Callable[..., Attempt], outputs: StoredOutputs
) -> None:
    first = begin("one", 1)
    first.stored.bring()
    for epoch in (1, 2):
        first.trains(epoch)
    eventually(lambda: last_in(outputs) == "epoch 2")
    second = begin("two", 2)
    second.stored.bring()
    assert (second.folder / "checkpoints" / "last.pth").read_text() == "epoch 2"
    assert [data["epoch"] for data in second.told("metrics")] == [1, 2]
    assert "Going on from what attempt 1 has in the store" in second.said()


def test_the_same_host_goes_on_with_what_the_store_has_not_heard_of(
    begin: Callable[..., Attempt], outputs: StoredOutputs, away: threading.Event
) -> None:
    first = begin("one", 1)
    first.stored.bring()
    away.set()
    for epoch in (1, 2):
        first.trains(epoch)
    first.stop.ask(Stop.LOST)  # its worker was killed
    first.stored.close()
    second = begin("one", 2)
    second.stored.bring()
    assert (second.folder / "checkpoints" / "last.pth").read_text() == "epoch 2"
    assert [data["epoch"] for data in second.told("metrics")] == [1, 2]


def test_a_completed_job_is_told_when_its_files_are_in_the_store(
    begin: Callable[..., Attempt], outputs: StoredOutputs, away: threading.Event
) -> None:
    begin("one", 1).stored.bring()
    attempt = begin("two", 2)
    attempt.stored.bring()
    away.set()
    attempt.trains(3)
    (attempt.folder / "plot.png").write_text("nobody announced it")
    eventually(lambda: "does not take them" in attempt.said())
    threading.Timer(1.0, away.clear).start()
    assert attempt.stored.finish(COMPLETED) == COMPLETED
    assert not away.is_set()
    assert sorted(outputs.newest().files) == ["checkpoints/last.pth", "plot.png"]
    assert read_state(attempt.folder) == LocalState(2, whole=True, stored=True)
    assert attempt.said().count("does not take them") == 1


@pytest.mark.parametrize(
    ("stop", "becomes"),
    [
        (None, Outcome.FAILED),
        (Stop.KILL, Outcome.CANCELLED),
        (Stop.SHUTDOWN, Outcome.HANDED_BACK),
        (Stop.LOST, None),
    ],
)
def test_a_job_whose_files_nobody_takes_is_not_called_completed(
    begin: Callable[..., Attempt],
    away: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    stop: Stop | None,
    becomes: Outcome | None,
) -> None:
    monkeypatch.setattr(stored, "COMPLETED_SECONDS", 0.5)
    monkeypatch.setattr(stored, "LEAST_SHUTDOWN_SECONDS", 0.5)
    attempt = begin("one", 1, MODELYARD_SHUTDOWN_GRACE_SECONDS="0.5")
    attempt.stored.bring()
    away.set()
    attempt.trains(3)
    if stop is not None:
        attempt.stop.ask(stop)
    ending = attempt.stored.finish(COMPLETED)
    assert ending.outcome == becomes
    if becomes == Outcome.FAILED:
        assert ending.error is not None
        assert (ending.error["kind"], ending.result) == ("storage", None)


def test_a_hand_back_sends_its_checkpoint_within_the_grace(
    begin: Callable[..., Attempt], outputs: StoredOutputs
) -> None:
    attempt = begin("one", 1, MODELYARD_SHUTDOWN_GRACE_SECONDS="120")
    attempt.stored.bring()
    attempt.stop.ask(Stop.SHUTDOWN)
    attempt.trains(1)
    handed_back = Ending(Outcome.HANDED_BACK, exit_code=0)
    assert attempt.stored.finish(handed_back) == handed_back
    assert last_in(outputs) == "epoch 1"


def test_nothing_is_written_that_others_read_once_the_lease_has_ended(
    begin: Callable[..., Attempt], outputs: StoredOutputs
) -> None:
    attempt = begin("one", 1)
    attempt.stored.bring()
    attempt.trains(1)
    eventually(lambda: last_in(outputs) == "epoch 1")
    attempt.lease_until = 0.0
    attempt.trains(2)
    attempt.stop.ask(Stop.LOST)
    assert attempt.stored.finish(Ending(None)).outcome is None
    attempt.stored.close()
    assert last_in(outputs) == "epoch 1"


def test_the_checkpoints_of_a_round_belong_together(
    begin: Callable[..., Attempt], outputs: StoredOutputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = begin("one", 1)
    for name in ("best", "last"):
        attempt.write(f"checkpoints/{name}.pth", "epoch 1")
    link, links = os.link, []

    def link_while_training_goes_on(path: Path, to: Path) -> None:
        link(path, to)
        links.append(path.name)
        if links == ["best.pth"]:  # the other one is linked next
            for name in ("best", "last"):
                attempt.write(f"checkpoints/{name}.pth", "epoch 2")

    monkeypatch.setattr(os, "link", link_while_training_goes_on)
    attempt.stored.bring()
    for name in ("best", "last"):
        attempt.sink(EventType.ARTIFACT, {"name": f"checkpoints/{name}.pth", "kind": "checkpoint"})
    eventually(lambda: len(outputs.newest().files) == 2)
    files = outputs.newest().files.values()
    assert {outputs.store.read(file.key) for file in files} == {b"epoch 2"}


def test_a_store_that_gives_nothing_at_the_beginning_is_waited_for_and_a_stop_ends_that(
    begin: Callable[..., Attempt],
) -> None:
    attempt = begin("one", 3, MODELYARD_STORE="gs://bucket/without-its-package")

    def stop() -> None:
        eventually(lambda: "again in 2 s" in attempt.said())
        attempt.stop.ask(Stop.NOW)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(FetchStopped):
        attempt.stored.bring()
    thread.join()


def test_a_damaged_checkpoint_is_told_with_what_to_do(
    begin: Callable[..., Attempt], outputs: StoredOutputs
) -> None:
    first = begin("one", 1)
    first.stored.bring()
    first.trains(1)
    eventually(lambda: last_in(outputs) == "epoch 1")
    key = outputs.newest().files["checkpoints/last.pth"].key
    outputs.store.write(key, b"epoch 9")
    second = begin("two", 2)
    with pytest.raises(TrainingError, match="SHA-256") as caught:
        second.stored.bring()
    assert (caught.value.kind, "Clone the job" in caught.value.hint) == ("checkpoint_invalid", True)


@pytest.mark.parametrize("number", [1, 2])  # the second after one that left no checkpoint
def test_what_a_job_begins_with_is_fetched(
    begin: Callable[..., Attempt], url: str, number: int
) -> None:
    other = begin("one", 1, job_id=8)
    other.stored.bring()
    other.write("checkpoints/best.pth", "the best")
    eventually(lambda: StoredOutputs(open_store(url), 8).newest().files)
    attempt = begin("two", number, initial_job_id=8)
    initial = attempt.job.initial_dir
    assert initial is not None
    attempt.stored.bring()
    assert (initial / "checkpoints" / "best.pth").read_text() == "the best"
