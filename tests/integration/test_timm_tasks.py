"""What the timm adapter trains, beginning with which weights, and what its models are good for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform
from torchmetrics.functional.classification import (
    multiclass_f1_score,
    multilabel_average_precision,
    multilabel_f1_score,
)

from adapters import get_adapter
from adapters.contract import Best, DatasetFormat, ErrorKind, StopReason, TaskType, TrainingError
from adapters.contract import TrainingJob as Job
from adapters.data.reading import read_for
from adapters.exporting import export
from adapters.timm_training import trial
from adapters.timm_training.best import About, read_about, save_best
from adapters.timm_training.build import _loss, build
from adapters.timm_training.loop import Training
from adapters.timm_training.model import model_arguments
from adapters.timm_training.plan import make_plan
from adapters.timm_training.step import Step
from adapters.wire import ExportFormat
from tests import shapes
from tests.timm_jobs import (
    BATCH_SIZE,
    EVERYTHING,
    TRAIN_IMAGES,
    VAL_IMAGES,
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

CLASSIFICATION = TaskType.IMAGE_CLASSIFICATION


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tests share the machine; a second thread only waits for the first."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def job(digits: Path, tmp_path: Path) -> Job:
    return make_job(digits, tmp_path / "output")


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shapes, two or three in an image, as a folder with labels.csv."""
    folder = tmp_path_factory.mktemp("several")
    return shapes.compose(
        folder, format=DatasetFormat.IMAGEFOLDER, task_type=CLASSIFICATION, multi_label=True
    )


@pytest.fixture
def multi(several: Path, tmp_path: Path) -> Job:
    return make_job(several, tmp_path / "output", batch_size=8)


def refusal(job: Job, kind: ErrorKind) -> str:
    with pytest.raises(TrainingError) as caught:
        train(job)
    assert caught.value.kind == kind, caught.value.message
    return caught.value.message


# Several classes an image


@pytest.mark.parametrize(
    "format", [DatasetFormat.IMAGEFOLDER, DatasetFormat.YOLO, DatasetFormat.COCO]
)
def test_images_of_several_classes_are_learned_from_every_format(
    tmp_path: Path, format: DatasetFormat
) -> None:
    data = shapes.compose(
        tmp_path / "data",
        format=format,
        task_type=CLASSIFICATION,
        multi_label=True,
        train=48,
    )
    job = make_job(
        data,
        tmp_path / "output",
        dataset_format=format,
        batch_size=8,
        epochs=8,
        hyperparameters={"augment": False},
    )
    reporter = Recorder()
    result = train(job, reporter)
    measured = reporter.measured
    assert set(measured[1]) == {
        "train_loss", "val_loss", "map", "f1", "learning_rate", "images_per_second"
    }  # fmt: skip
    assert measured[8]["val_loss"] < measured[1]["val_loss"]
    assert result.best is not None
    assert result.best.metric == "map"
    assert result.accuracy == result.best.value > 0.7
    about = read_about(job.checkpoints_dir / "best.safetensors")
    assert about.multi_label
    assert set(about.classes) == set(shapes.CLASSES)


def test_map_and_f1_are_those_of_the_predictions(multi: Job, several: Path) -> None:
    reporter = Recorder()
    result = train(changed(multi, epochs=3, hyperparameters={"precision": "fp32"}), reporter)
    assert result.best is not None
    rows = (several / "val" / "labels.csv").read_text().splitlines()[1:]
    names, labels = zip(*(row.split(",") for row in rows), strict=True)
    predictor = get_adapter("timm").load(multi)
    truth = torch.tensor([[c in label.split("|") for c in predictor.classes] for label in labels])
    images = [Image.open(several / "val" / name) for name in names]
    scores = torch.tensor(np.stack([p.scores for p in predictor.predict(images)]))  # type: ignore[misc]
    told, classes = reporter.measured[result.best.epoch], len(shapes.CLASSES)
    expected = multilabel_average_precision(scores, truth.int(), num_labels=classes)
    assert told["map"] == pytest.approx(expected.item(), abs=1e-4)
    expected = multilabel_f1_score(scores, truth.int(), num_labels=classes, average="macro")
    assert told["f1"] == pytest.approx(expected.item(), abs=1e-4)


def test_f1_of_one_class_an_image_is_the_mean_of_the_classes(job: Job, digits: Path) -> None:
    reporter = Recorder()
    result = train(changed(job, epochs=5, hyperparameters={"precision": "fp32"}), reporter)
    assert result.best is not None
    paths = sorted((digits / "val").rglob("*.png"))
    predictor = get_adapter("timm").load(job)
    predictions = predictor.predict([Image.open(path).convert("RGB") for path in paths])
    said = torch.tensor([int(p.scores.argmax()) for p in predictions])  # type: ignore[union-attr]
    truth = torch.tensor([predictor.classes.index(path.parent.name) for path in paths])
    told = reporter.measured[result.best.epoch]
    expected = multiclass_f1_score(said, truth, num_classes=10, average="macro")
    assert told["f1"] == pytest.approx(expected.item(), abs=1e-6)
    assert told["top1"] == (said == truth).double().mean().item()


def test_several_classes_go_on_with_the_same_bits(multi: Job) -> None:
    everything = {**EVERYTHING, "cutmix": 0.0, "class_weights": "balanced", "loss": "asymmetric"}
    job = changed(multi, hyperparameters=everything)
    whole, part, rest = (
        Recorder(),
        Recorder(lambda n: StopReason.NOW if n == 2 else None),
        Recorder(),
    )
    train(elsewhere(job, "whole"), whole)
    assert train(job, part).stopped
    train(changed(job, resume=True), rest)
    assert differences(last_state(elsewhere(job, "whole")), last_state(job)) == []
    assert differences(best_weights(elsewhere(job, "whole")), best_weights(job)) == []
    assert comparable({**part.measured, **rest.measured}) == comparable(whole.measured)


@pytest.mark.parametrize(
    ("hyperparameters", "part"),
    [
        ({"loss": "cross_entropy"}, "one class an image"),
        ({"cutmix": 1.0}, "cutmix"),
        ({"class_weights": [1.0, 2.0]}, "class_weights has 2 numbers, and the data set 3"),
    ],
)
def test_what_several_classes_make_impossible_is_refused(
    multi: Job, hyperparameters: dict[str, Any], part: str
) -> None:
    assert part in refusal(changed(multi, hyperparameters=hyperparameters), ErrorKind.UNSUPPORTED)


def test_the_asymmetric_loss_needs_several_classes(job: Job) -> None:
    asymmetric = changed(job, hyperparameters={"loss": "asymmetric"})
    assert "several classes" in refusal(asymmetric, ErrorKind.UNSUPPORTED)


# Losses and weights of classes


@pytest.mark.parametrize("loss", ["auto", "bce", "poly"])
@pytest.mark.parametrize("mixup", [0.0, 0.5])
def test_every_loss_trains(job: Job, loss: str, mixup: float) -> None:
    reporter = Recorder()
    train(changed(job, epochs=3, hyperparameters={"loss": loss, "mixup": mixup}), reporter)
    assert reporter.measured[3]["train_loss"] < reporter.measured[1]["train_loss"]


@pytest.mark.parametrize(
    "hyperparameters",
    [
        {"class_weights": "balanced"},
        {"class_weights": "balanced", "mixup": 0.5},
        {"class_weights": "balanced", "loss": "bce"},
        {"class_weights": [1.0, 2.0, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5]},
    ],
)
def test_class_weights_change_what_is_learned(job: Job, hyperparameters: dict[str, Any]) -> None:
    job = changed(job, epochs=1, hyperparameters=hyperparameters)
    reporter = Recorder()
    train(job, reporter)
    assert math.isfinite(reporter.measured[1]["train_loss"])
    train(elsewhere(job, "plain", hyperparameters={"class_weights": "none"}))
    assert differences(best_weights(job), best_weights(elsewhere(job, "plain"))) != []


def test_a_rare_class_counts_as_much_as_a_frequent_one(job: Job, digits: Path) -> None:
    hyperparameters = {"class_weights": "balanced", "label_smoothing": 0.0}
    plan = make_plan(changed(job, hyperparameters=hyperparameters), read_for(job))
    loss = _loss(plan)
    alike = torch.zeros(1, 10)
    counts = [len(list((digits / "train" / str(label)).iterdir())) for label in range(10)]
    assert len(set(counts)) > 1
    of_class = [n * loss(alike, torch.tensor([label])).item() for label, n in enumerate(counts)]
    assert of_class == pytest.approx([TRAIN_IMAGES * math.log(10) / 10] * 10)
    # Also where a batch holds one class only.
    assert loss(alike, torch.tensor([3])) == pytest.approx(
        loss(alike.repeat(4, 1), torch.tensor([3] * 4))
    )


# Freezing, and beginning with another job's weights


@pytest.mark.parametrize(("model", "first"), [("test_resnet", "layer"), ("test_vit", "blocks")])
def test_frozen_stages_keep_their_weights_and_statistics(job: Job, model: str, first: str) -> None:
    job = changed(job, model_name=model, epochs=1)
    train(elsewhere(job, "untouched", learning_rate=1e-30, hyperparameters={"weight_decay": 0.0}))
    train(changed(job, hyperparameters={"freeze_stages": 2}))
    before, after = best_weights(elsewhere(job, "untouched")), best_weights(job)
    second_stage = f"{first}{'1' if model == 'test_resnet' else '.0'}."
    frozen = [n for n in after if n.startswith(second_stage) and "num_batches" not in n]
    assert frozen
    if model == "test_vit":  # without batch statistics, which the untouched one gathers
        assert all(torch.allclose(before[n], after[n], atol=1e-12) for n in frozen)
    changed_names = {name for name in after if not torch.equal(before[name], after[name])}
    assert any(name.startswith(("fc.", "head.")) for name in changed_names)
    running = [name for name in frozen if name.endswith("running_mean")]
    assert all(bool((after[name] == 0).all()) for name in running)


def test_more_stages_than_there_are_cannot_be_frozen(job: Job) -> None:
    message = refusal(changed(job, hyperparameters={"freeze_stages": 9}), ErrorKind.UNSUPPORTED)
    assert "test_resnet has 5 stages" in message


def begun_with(job: Job, other: Job, **changes: Any) -> Job:
    return changed(
        elsewhere(job, "second"), initial_dir=other.output_dir, initial_job_id=7, **changes
    )


def test_a_job_begins_with_another_jobs_best_weights(job: Job) -> None:
    train(changed(job, epochs=3))
    frozen = {"freeze_backbone": True}
    second = begun_with(job, job, epochs=1, learning_rate=1e-30, hyperparameters=frozen)
    second = changed(second, hyperparameters={"weight_decay": 0.0})
    reporter = Recorder()
    train(second, reporter)
    assert differences(best_weights(job), best_weights(second)) == []
    assert any("its classifier included" in line for line in reporter.lines)


def test_another_number_of_classes_means_a_new_classifier(job: Job, several: Path) -> None:
    train(changed(job, epochs=1))
    frozen = {"freeze_backbone": True}
    second = begun_with(job, job, dataset_path=several, epochs=1, hyperparameters=frozen)
    reporter = Recorder()
    train(second, reporter)
    first, then = best_weights(job), best_weights(second)
    assert then["fc.weight"].shape[0] == 3
    assert all(torch.equal(first[n], then[n]) for n in first if not n.startswith("fc."))
    assert any("with a new classifier" in line for line in reporter.lines)


def test_a_transformer_begins_with_weights_of_another_image_size(job: Job) -> None:
    job = changed(job, model_name="test_vit", epochs=1, image_size=64)
    train(job)
    train(begun_with(job, job, image_size=32))


def test_weights_of_another_model_are_refused(job: Job) -> None:
    train(changed(job, epochs=1))
    message = refusal(begun_with(job, job, model_name="test_vit"), ErrorKind.CHECKPOINT_INVALID)
    assert "job 7 trained test_resnet, and this job trains test_vit" in message


def test_a_file_that_is_no_model_cannot_be_a_beginning(job: Job, tmp_path: Path) -> None:
    (tmp_path / "first" / "checkpoints").mkdir(parents=True)
    (tmp_path / "first" / "checkpoints" / "best.safetensors").write_bytes(b"no weights at all")
    other = dataclasses.replace(job, output_dir=tmp_path / "first")
    assert "cannot be used" in refusal(begun_with(job, other), ErrorKind.CHECKPOINT_INVALID)


# The largest batch


def test_batch_size_0_takes_the_largest_that_fits_and_says_why(job: Job) -> None:
    reporter = Recorder()
    job = changed(job, batch_size=0, epochs=1)
    train(job, reporter)
    size, why = reporter.decisions["batch_size"]
    assert size == 8
    assert "96 images fewer than 16 updates" in why
    assert last_state(job)["batch_size"] == 8
    assert {p["steps"] for p in reporter.progressed if "phase" not in p} == {TRAIN_IMAGES // 8}


def test_a_resumed_job_keeps_the_size_that_was_found(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = changed(job, batch_size=0)
    train(elsewhere(job, "whole"))
    train(job, Recorder(lambda n: StopReason.SHUTDOWN if n == 5 else None))
    monkeypatch.setattr(trial, "find_batch_size", None)  # it must not be looked for again
    train(changed(job, resume=True))
    assert differences(last_state(elsewhere(job, "whole")), last_state(job)) == []


@pytest.mark.parametrize("at_step", [1, 16])  # before any checkpoint; in the second epoch
def test_out_of_memory_halves_a_size_that_was_found(
    job: Job, monkeypatch: pytest.MonkeyPatch, at_step: int
) -> None:
    whole, steps = Step.train, 0

    def short_of_memory(self: Step, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps >= at_step and len(images) == 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, images, targets)

    monkeypatch.setattr("adapters.timm_adapter.choose_batch_size", lambda plan, r, ranks: 8)
    monkeypatch.setattr(Step, "train", short_of_memory)
    reporter = Recorder()
    result = train(changed(job, batch_size=0), reporter)
    assert result.epochs_completed == 2
    size, why = reporter.decisions["batch_size"]
    assert size == 4
    assert "ran out in training with a batch of 8" in why
    assert sorted(reporter.measured) == [1, 2]
    firsts = [p for p in reporter.progressed if "phase" not in p and p["epoch"] == 1]
    assert firsts[0]["steps"] == (24 if at_step == 1 else 12)
    assert reporter.measured[2]["learning_rate"] < 1e-3  # the schedule went on to its end


def test_out_of_memory_of_a_given_size_is_an_error_with_a_remedy(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Step, "train", fail)
    with pytest.raises(TrainingError) as caught:
        train(job)
    assert caught.value.kind == ErrorKind.OUT_OF_MEMORY
    assert f"batch size {BATCH_SIZE // 2}" in caught.value.hint


# Time


def test_images_per_second_counts_images_not_updates(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    clock = Clock()
    train_step, begin = Step.train, Training.__init__

    def one_second(self: Step, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        clock.now += 1.0
        return train_step(self, images, targets)

    def with_clock(self: Training, *arguments: Any, **keywords: Any) -> None:
        begin(self, *arguments, **keywords, clock=clock)

    monkeypatch.setattr(Step, "train", one_second)
    monkeypatch.setattr(Training, "__init__", with_clock)
    reporter = Recorder()
    train(changed(job, epochs=1, hyperparameters={"accumulation_steps": 4}), reporter)
    assert reporter.measured[1]["images_per_second"] == pytest.approx(BATCH_SIZE)
    speeds = [p["images_per_second"] for p in reporter.progressed if "phase" not in p]
    assert speeds == pytest.approx([BATCH_SIZE] * len(speeds))


# The trained model, loaded for use


def test_images_are_made_ready_as_in_validation(job: Job, digits: Path) -> None:
    job = changed(job, epochs=5, hyperparameters={"precision": "fp32"})
    result = train(job)
    paths = sorted((digits / "val").rglob("*.png"))
    predictor = get_adapter("timm").load(job)
    predictions = predictor.predict([Image.open(path) for path in paths])
    assert len(predictions) == VAL_IMAGES
    scores = np.stack([p.scores for p in predictions])  # type: ignore[misc]
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
    # Plain timm says the same.
    about = read_about(job.checkpoints_dir / "best.safetensors")
    model = timm.create_model(
        about.model_name,
        num_classes=10,
        checkpoint_path=str(job.checkpoints_dir / "best.safetensors"),
        **about.model_arguments,
    ).eval()
    transform = create_transform(**about.data_config)
    with torch.no_grad():
        batch = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])
        plain = model(batch).softmax(1).numpy()
    np.testing.assert_allclose(scores, plain, atol=1e-5)
    truth = [predictor.classes.index(path.parent.name) for path in paths]
    assert (scores.argmax(1) == truth).mean() == result.accuracy


def test_any_number_of_images_of_any_size_is_told_of(multi: Job) -> None:
    train(changed(multi, epochs=1))
    predictor = get_adapter("timm").load(multi)
    assert predictor.multi_label
    assert predictor.predict([]) == []
    images = [Image.new("RGB", (20 + n, 90 - n), (n, 50, 200)) for n in range(40)]
    together = np.stack([p.scores for p in predictor.predict(images)])  # type: ignore[misc]
    alone = np.stack([predictor.predict([image])[0].scores for image in images])  # type: ignore[misc]
    assert together.shape == (40, 3)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def keep_untrained(job: Job) -> None:
    """Write the job's best model as its first weights are, with batch statistics of its own."""
    parts = build(make_plan(job, read_for(job)), Recorder(), load_weights=False)
    with torch.no_grad():
        parts.model.train()(torch.randn(8, *parts.data_config["input_size"]))
    about = About(
        model_name=job.model_name,
        model_arguments=model_arguments(job, parts.data_config),
        classes=tuple(map(str, range(10))),
        multi_label=False,
        data_config=parts.data_config,
        best=Best(epoch=1, metric="top1", value=0.5),
        versions={},
    )
    save_best(job.checkpoints_dir / "best.safetensors", parts.model, about)


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("test_resnet", 32),
        ("test_vit", 64),
        ("resnet18", 64),
        ("vit_tiny_patch16_224", 64),  # made with img_size
        ("efficientnet_b0", 64),
        ("convnext_atto", 64),
    ],
)
def test_networks_export_and_load_in_plain_timm(job: Job, model: str, size: int) -> None:
    job = changed(job, model_name=model, image_size=size)
    keep_untrained(job)
    predictor = get_adapter("timm").load(job)
    network = predictor.network()
    assert network.preprocessing["size"] == [3, size, size]
    for format in ExportFormat:
        exported = export(job, predictor, format)  # compared on batches of two sizes
        assert exported.largest_difference < 1e-4
        print(f"{model} as {format}: largest difference {exported.largest_difference:.1e}")
    path = job.checkpoints_dir / "best.safetensors"
    arguments = read_about(path).model_arguments
    plain = timm.create_model(model, num_classes=10, checkpoint_path=str(path), **arguments).eval()
    with torch.no_grad():
        assert torch.allclose(plain(network.example), network.module(network.example), atol=1e-5)


def test_a_network_is_followed_by_torch_export_too(job: Job, tmp_path: Path) -> None:
    job = changed(job, model_name="test_vit", image_size=64)
    keep_untrained(job)
    network = get_adapter("timm").load(job).network()
    file = tmp_path / "model.onnx"
    torch.onnx.export(
        network.module,
        (network.example,),
        file,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    three = torch.cat([network.example] * 2)[:3]
    (said,) = onnxruntime.InferenceSession(file).run(None, {"images": three.numpy()})
    with torch.no_grad():
        assert np.abs(said - network.module(three).numpy()).max() < 1e-4


def test_a_job_without_a_model_cannot_be_loaded(job: Job) -> None:
    with pytest.raises(TrainingError) as caught:
        get_adapter("timm").load(job)
    assert caught.value.kind == ErrorKind.CHECKPOINT_INVALID
    assert "best.safetensors" in caught.value.message
