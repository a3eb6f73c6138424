"""transformers' models on several devices: real processes that train together, here on the CPU."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from adapters.contract import DatasetFormat, ErrorKind, StopReason, TaskType, TrainingJob
from adapters.huggingface_training.data import Order
from adapters.ranks import Rank
from tests.integration import test_huggingface_adapter as alone
from tests.integration.test_huggingface_adapter import (
    CLASSIFY,
    DETECT,
    EVERYTHING,
    SEGMENT,
    TRAIN_IMAGES,
    Make,
    Recorder,
    best_weights,
    changed,
    comparable,
    differences,
    elsewhere,
    last_state,
    refused,
    train,
)

# Ranks wait for each other at every step: on a busy machine each time for a turn.
pytestmark = pytest.mark.timeout(900)

composed, make, _one_thread = alone.composed, alone.make, alone._one_thread
TWO = "cpu*2"
WEIGHTED = {"accumulation_steps": 2, "class_weights": [1.0, 0.1, 5.0]}


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize(("train_size", "val_size"), [(50, 23), (50, 25), (7, 4)])
def test_ranks_share_every_image_once(ranks: int, train_size: int, val_size: int) -> None:
    sizes = {"train_size": train_size, "val_size": val_size, "batch_size": 12, "seed": 3}
    orders = [Order(**sizes, rank=Rank("cpu", n, ranks)) for n in range(ranks)]
    one = Order(**sizes, rank=Rank())
    for batch, *parts in zip(one.train(2), *(order.train(2) for order in orders), strict=True):
        keys = [key for part in parts for key in part]
        assert len({len(part) for part in parts}) == 1
        assert set(keys) <= set(batch)
        assert len(set(keys)) == len(keys) == len(batch) // ranks * ranks
    val = [list(order.val()) for order in orders]
    assert {len(batches) for batches in val} == {orders[0].val_steps}
    assert all(keys for batches in val for keys in batches)
    shared = [key for batches in val for keys in batches for key in keys]
    assert sorted(shared) == sorted(key for keys in one.val() for key in keys)


# Without batch norm, augmentation and dropout, of which DPT's head alone has some, ranks differ
# from one in rounding only.
@pytest.mark.parametrize(
    ("model", "task_type", "format", "ranks", "batch_size", "more"),
    [
        ("vit-test", CLASSIFY, DatasetFormat.IMAGEFOLDER, 2, 4, WEIGHTED),
        ("vit-test", CLASSIFY, DatasetFormat.COCO, 5, 5, {}),  # some validate one image more
        ("yolos-test", DETECT, DatasetFormat.YOLO, 2, 4, {}),
        ("dpt-test", SEGMENT, DatasetFormat.MASKS, 2, 4, {"class_weights": "balanced"}),
    ],
)
def test_ranks_train_as_one_would(
    make: Make,
    model: str,
    task_type: TaskType,
    format: DatasetFormat,
    ranks: int,
    batch_size: int,
    more: dict[str, object],
) -> None:
    plain = {"augment": False, "precision": "fp32", "ema": True, "ema_decay": 0.5, **more}
    job = make(
        model,
        task_type,
        format,
        multi_label=format == DatasetFormat.COCO,
        optimizer="sgd",
        learning_rate=0.02,
        hyperparameters=plain,
        batch_size=batch_size,
    )
    together, one = Recorder(), Recorder()
    result = train(changed(job, compute_device=f"cpu*{ranks}"), together)
    train(elsewhere(job, "alone"), one)
    assert sorted(together.measured) == [1, 2]
    for epoch, values in comparable(one.measured).items():
        for name, value in values.items():
            assert together.measured[epoch][name] == pytest.approx(value, abs=2e-3), name
    trained, same = best_weights(elsewhere(job, "alone")), best_weights(job)
    apart = {name: float((trained[name] - same[name]).abs().max()) for name in trained}
    assert max(apart.values()) < 5e-4, sorted(apart.items(), key=lambda i: -i[1])[:5]
    steps = [p["step"] for p in together.progressed if p.get("phase", "train") == "train"]
    assert steps == [*range(1, TRAIN_IMAGES // batch_size + 1)] * 2
    assert result.epochs_completed == 2
    names = {path.relative_to(job.checkpoints_dir).parts[0] for path in together.artifacts}
    assert names == {"last.pth", "best"}


@pytest.mark.parametrize(
    ("model", "task_type", "format", "epochs", "at"),
    [
        ("resnet-test", CLASSIFY, DatasetFormat.IMAGEFOLDER, 3, {"epoch": 2}),
        ("rtdetr-test", DETECT, DatasetFormat.YOLO, 2, {"epoch": 1, "phase": "val"}),
    ],
)
def test_two_ranks_go_on_with_the_same_bits(
    make: Make,
    model: str,
    task_type: TaskType,
    format: DatasetFormat,
    epochs: int,
    at: dict[str, object],
) -> None:
    # An epoch more than is asked to stop in: ranks train on while the request is on its way.
    job = make(
        model, task_type, format, epochs=epochs, hyperparameters=EVERYTHING, compute_device=TWO
    )
    whole = Recorder()
    train(elsewhere(job, "whole"), whole)
    asks = threading.Event()
    part = Recorder(lambda n: StopReason.SHUTDOWN if asks.is_set() else None)
    tell = part.progress

    def progress(**values: object) -> None:
        tell(**values)
        if at.items() <= values.items():
            asks.set()

    part.progress = progress  # type: ignore[method-assign]
    assert train(job, part).stopped == StopReason.SHUTDOWN
    rest = Recorder()
    assert train(changed(job, resume=True), rest).stopped is None
    assert differences(last_state(elsewhere(job, "whole")), last_state(job)) == []
    assert differences(best_weights(elsewhere(job, "whole")), best_weights(job)) == []
    assert comparable({**part.measured, **rest.measured}) == comparable(whole.measured)


def test_the_largest_batch_is_found_for_two_ranks(make: Make) -> None:
    job = make(
        "vit-test",
        CLASSIFY,
        DatasetFormat.IMAGEFOLDER,
        batch_size=0,
        epochs=1,
        compute_device=TWO,
    )
    reporter = Recorder()
    assert train(job, reporter).epochs_completed == 1
    [(name, size, why)] = reporter.chosen
    assert name == "batch_size"
    assert f"{int(size) // 2} on each of 2 devices" in why
    assert last_state(job)["chosen_batch_size"] == size


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"batch_size": 5}, "a batch of 5 cannot be shared evenly by 2 devices"),
        ({"compute_device": "cpu*26", "batch_size": 26}, "24 train images cannot be shared by 26"),
    ],
)
def test_what_ranks_cannot_share_is_refused(
    make: Make, changes: dict[str, object], part: str
) -> None:
    job: TrainingJob = make("vit-test", CLASSIFY, DatasetFormat.IMAGEFOLDER, compute_device=TWO)
    assert part in refused(changed(job, **changes), ErrorKind.UNSUPPORTED).message


def test_only_the_first_rank_writes(make: Make) -> None:
    job = make("vit-test", CLASSIFY, DatasetFormat.IMAGEFOLDER, compute_device=TWO, epochs=1)
    reporter = Recorder()
    train(job, reporter)
    assert sum("million parameters" in line for line in reporter.lines) == 1
    assert list(reporter.measured) == [1]
    assert {path.name for path in Path(job.checkpoints_dir).iterdir()} == {"last.pth", "best"}
