"""Several devices: real processes that train together, here two on the CPU."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from adapters.contract import (
    DatasetFormat,
    ErrorKind,
    Reporter,
    StopReason,
    TaskType,
    TrainingError,
    TrainingJob,
)
from adapters.ranks import Rank, devices_of, on_ranks
from adapters.timm_training.data import Order
from tests import shapes
from tests.timm_jobs import (
    EVERYTHING,
    Recorder,
    best_weights,
    changed,
    comparable,
    differences,
    elsewhere,
    last_state,
    make_job,
    train,
    write_digits,
)

# Ranks wait for each other at every step: on a busy machine each time for a turn.
pytestmark = pytest.mark.timeout(900)

TWO = "cpu*2"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # nothing that forks may have computed with several
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def job(digits: Path, tmp_path: Path) -> TrainingJob:
    return make_job(digits, tmp_path / "output", compute_device=TWO)


@pytest.mark.parametrize(
    ("named", "devices"),
    [
        ("cpu", ("cpu",)),
        ("cuda:1", ("cuda:1",)),
        ("cuda:0,1", ("cuda:0", "cuda:1")),
        ("cuda:0,2,3", ("cuda:0", "cuda:2", "cuda:3")),
        ("cpu*2", ("cpu", "cpu")),
    ],
)
def test_a_job_names_its_devices(named: str, devices: tuple[str, ...]) -> None:
    assert devices_of(named) == devices


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_share_every_image_once(ranks: int) -> None:
    orders = [
        Order(train_size=50, val_size=23, batch_size=16, seed=3, rank=Rank("cpu", n, ranks))
        for n in range(ranks)
    ]
    alone = Order(train_size=50, val_size=23, batch_size=16, seed=3, rank=Rank())
    for batch, *parts in zip(alone.train(2), *(order.train(2) for order in orders), strict=True):
        assert sorted(key for part in parts for key in part) == sorted(batch)
    val = [key for order in orders for keys in order.val() for key in keys]
    assert sorted(val) == sorted(key for keys in alone.val() for key in keys)
    steps = {order.val_steps for order in orders}
    assert steps == {max(len(list(order.val())) for order in orders)}


def work_of(name: str) -> object:
    def work(rank: Rank, reporter: Reporter) -> object:
        if name == "sums":
            reporter.log(f"rank {rank.number} of {rank.total}, group {os.getpgid(0)}")
            found = rank.sum(torch.tensor([1.0 + rank.number]))
            return found.item(), rank.gather(rank.number), rank.first(lambda: rank.number)
        if name == "stops":
            steps = 0
            while rank.agree(reporter.should_stop()) is None:
                steps += 1
            return rank.gather(steps)
        if rank.number == 1:
            if name == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if name == "fails":
                raise torch.OutOfMemoryError("CUDA out of memory")
        return rank.agree(None)  # waits for a rank that never comes

    return work


def run(name: str, job: TrainingJob, reporter: Recorder) -> object:
    return on_ranks(work_of(name), job=job, reporter=reporter, devices=devices_of(TWO))  # type: ignore[arg-type]


def test_ranks_add_up_and_only_the_first_reports(job: TrainingJob) -> None:
    reporter = Recorder()
    assert run("sums", job, reporter) == (3.0, [0, 1], 0)
    # In the group of the process that started them: what kills it kills them.
    assert reporter.lines == [f"rank 0 of 2, group {os.getpgid(0)}"]


def test_a_stop_is_obeyed_by_all_ranks_at_the_same_step(job: TrainingJob) -> None:
    asked = Recorder(lambda n: StopReason.NOW if n > 3 else None)
    steps = run("stops", job, asked)
    assert isinstance(steps, list)
    assert steps[0] == steps[1] > 0


@pytest.mark.parametrize(
    ("name", "kind", "part"),
    [
        ("killed", ErrorKind.CHILD_DIED, "2 of 2, was killed by SIGKILL"),
        ("fails", ErrorKind.OUT_OF_MEMORY, "does not fit"),
    ],
)
def test_a_rank_that_dies_ends_all_with_its_error(
    job: TrainingJob, name: str, kind: ErrorKind, part: str
) -> None:
    before = set(psutil.Process().children())  # other tests' template, too
    with pytest.raises(TrainingError) as caught:
        run(name, job, Recorder())
    assert caught.value.kind == kind
    assert part in caught.value.message
    assert set(psutil.Process().children()) <= before


def test_two_ranks_train_as_one_would(job: TrainingJob) -> None:
    # Without batch norm, augmentation and momentum the two differ in rounding only.
    plain = {"augment": False, "precision": "fp32", "ema": True, "ema_decay": 0.5}
    job = changed(job, model_name="test_vit", optimizer="sgd", hyperparameters=plain)
    together, alone = Recorder(), Recorder()
    result = train(job, together)
    train(elsewhere(job, "alone", compute_device="cpu"), alone)
    assert sorted(together.measured) == [1, 2]
    for epoch, values in alone.measured.items():
        for name in ("train_loss", "val_loss", "top1", "top5", "f1", "learning_rate"):
            assert together.measured[epoch][name] == pytest.approx(values[name], abs=2e-3), name
    one, two = best_weights(elsewhere(job, "alone")), best_weights(job)
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)
    trained = [p for p in together.progressed if p.get("phase", "train") == "train"]
    assert [p["step"] for p in trained] == [1, 2, 3, 4, 5, 6] * 2
    assert result.epochs_completed == 2
    assert {path.name for path in together.artifacts} == {"last.pth", "best.safetensors"}


def test_two_ranks_go_on_with_the_same_bits(job: TrainingJob) -> None:
    # An epoch more than is asked to stop in: ranks train on while the request is on its way.
    job = changed(job, epochs=3, hyperparameters={**EVERYTHING, "workers": 1})
    whole = Recorder()
    train(elsewhere(job, "whole"), whole)
    asks = threading.Event()

    def stop_in_the_second_epoch(n: int) -> StopReason | None:
        return StopReason.SHUTDOWN if asks.is_set() else None

    part = Recorder(stop_in_the_second_epoch)
    tell = part.progress

    def progress(**values: object) -> None:
        tell(**values)
        if values["epoch"] == 2:
            asks.set()

    part.progress = progress  # type: ignore[method-assign]
    assert train(job, part).stopped == StopReason.SHUTDOWN
    rest = Recorder()
    assert train(changed(job, resume=True), rest).stopped is None
    assert differences(last_state(elsewhere(job, "whole")), last_state(job)) == []
    assert differences(best_weights(elsewhere(job, "whole")), best_weights(job)) == []
    assert comparable({**part.measured, **rest.measured}) == comparable(whole.measured)


def test_two_ranks_learn_images_of_several_classes_in_the_largest_batch(tmp_path: Path) -> None:
    data = shapes.compose(
        tmp_path / "data",
        format=DatasetFormat.IMAGEFOLDER,
        task_type=TaskType.IMAGE_CLASSIFICATION,
        multi_label=True,
        train=25,
        val=5,
    )
    job = make_job(data, tmp_path / "output", batch_size=0, compute_device=TWO)
    reporter = Recorder()
    result = train(job, reporter)
    size, why = reporter.decisions["batch_size"]
    assert size == 16
    assert "8 on each of 2 devices" in why
    assert result.best is not None
    assert result.best.metric == "map"


def test_a_batch_that_cannot_be_shared_is_refused(job: TrainingJob) -> None:
    with pytest.raises(TrainingError, match="cannot be shared by 2 devices"):
        train(changed(job, batch_size=1))
    with pytest.raises(TrainingError, match="a batch size that 4 divides"):
        train(changed(job, batch_size=6, hyperparameters={"mixup": 0.2}))
