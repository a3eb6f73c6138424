"""The transformers adapter, training real models on a few composed shapes."""

from __future__ import annotations

import dataclasses
import http.server
import json
import math
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image

from adapters import get_adapter
from adapters.contract import (
    DatasetFormat,
    ErrorKind,
    Result,
    StopReason,
    TaskType,
    TrainingError,
    TrainingJob,
)
from adapters.exporting import TOLERANCE, export
from adapters.huggingface_training import pretrained
from adapters.huggingface_training.pretrained import CONFIG, PREPROCESSOR, WEIGHTS
from adapters.huggingface_training.trainer import ReportingTrainer
from adapters.prediction import Predictor
from adapters.schemas.huggingface import OPTIMIZERS
from adapters.wire import ExportFormat
from tests.services import wait_for
from tests.shapes import CLASSES, SIDE, compose

ROOT = Path(__file__).parents[2]
TRAIN_IMAGES, VAL_IMAGES = 24, 12
BATCH_SIZE = 4
STEPS = TRAIN_IMAGES // BATCH_SIZE
CLASSIFY, DETECT = TaskType.IMAGE_CLASSIFICATION, TaskType.OBJECT_DETECTION
SEGMENT = TaskType.SEMANTIC_SEGMENTATION
BEST_FILES = {"config.json", "model.safetensors", "preprocessor_config.json"}
SHARED = {"train_loss", "val_loss", "learning_rate", "images_per_second"}
METRICS = {
    CLASSIFY: {"top1", "top5", "f1"},
    DETECT: {"map50", "map50_95", "recall"},
    SEGMENT: {"mean_iou", "pixel_accuracy"},
}

# All that draws random numbers, keeps a state of its own or spans several batches.
EVERYTHING: dict[str, Any] = {
    "ema": True,
    "ema_decay": 0.9,
    "accumulation_steps": 4,  # of six: an interruption falls between the batches of an update
    "hflip": 0.5,
    "gradient_clip": 1.0,
}

Compose = Callable[..., Path]


class Recorder:
    """Keeps what an adapter reports; ``stop`` answers the n-th question, from 1 on."""

    def __init__(self, stop: Callable[[int], StopReason | None] = lambda n: None) -> None:
        self.progressed: list[dict[str, Any]] = []
        self.measured: dict[int, dict[str, float]] = {}
        self.chosen: list[tuple[str, float | str, str]] = []
        self.artifacts: list[Path] = []
        self.lines: list[str] = []
        self.questions = 0
        self._stop = stop

    def progress(self, **values: Any) -> None:
        self.progressed.append(values)

    def metrics(self, *, epoch: int, values: Mapping[str, float], step: int | None = None) -> None:
        self.measured[epoch] = dict(values)

    def decided(self, name: str, value: float | str, *, why: str) -> None:
        self.chosen.append((name, value, why))

    def artifact(self, path: Path, *, kind: str) -> None:
        assert path.is_file()
        self.artifacts.append(path)

    def log(self, line: str) -> None:
        self.lines.append(line)

    def should_stop(self) -> StopReason | None:
        self.questions += 1
        return self._stop(self.questions)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tests share the machine; a second thread only waits for the first."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Compose:
    """Return a function that gives a data set of shapes, composed once."""
    made: dict[tuple[Any, ...], Path] = {}

    def give(format: DatasetFormat, task_type: TaskType, multi_label: bool = False) -> Path:
        key = (format, task_type, multi_label)
        if key not in made:
            folder = tmp_path_factory.mktemp("shapes") / "data"
            made[key] = compose(
                folder,
                format=format,
                task_type=task_type,
                multi_label=multi_label,
                train=TRAIN_IMAGES,
                val=VAL_IMAGES,
            )
        return made[key]

    return give


Make = Callable[..., TrainingJob]


@pytest.fixture
def make(composed: Compose, tmp_path: Path) -> Make:
    """Return a function that makes a job; its hyperparameters leave loader processes out."""

    def job(
        model: str,
        task_type: TaskType,
        format: DatasetFormat,
        *,
        multi_label: bool = False,
        compute_device: str = "cpu",
        **fields: Any,
    ) -> TrainingJob:
        hyperparameters = {"workers": 0, **fields.pop("hyperparameters", {})}
        defaults = {"epochs": 2, "batch_size": BATCH_SIZE, "learning_rate": 0.002, "seed": 1}
        return TrainingJob(
            id=1,
            attempt=1,
            framework="huggingface",
            model_name=model,
            task_type=task_type,
            dataset_path=composed(format, task_type, multi_label),
            dataset_format=format,
            hyperparameters=hyperparameters,
            **{**defaults, **fields},
        ).placed(
            output_dir=tmp_path / "out",
            weights_dir=tmp_path / "weights",
            compute_device=compute_device,
        )

    return job


@pytest.fixture
def job(make: Make) -> TrainingJob:
    return make("resnet-test", CLASSIFY, DatasetFormat.IMAGEFOLDER)


def train(job: TrainingJob, reporter: Recorder | None = None) -> Result:
    return get_adapter("huggingface").train(job, reporter or Recorder())


def load(job: TrainingJob) -> Predictor:
    return get_adapter("huggingface").load(job)


def changed(job: TrainingJob, **changes: Any) -> TrainingJob:
    """Return the job with other fields, hyperparameters added to those it has."""
    more = changes.pop("hyperparameters", {})
    return dataclasses.replace(job, **changes, hyperparameters={**job.hyperparameters, **more})


def elsewhere(job: TrainingJob, name: str, **changes: Any) -> TrainingJob:
    assert job.output_dir is not None
    return changed(job, output_dir=job.output_dir.with_name(name), **changes)


def refused(job: TrainingJob, kind: ErrorKind) -> TrainingError:
    with pytest.raises(TrainingError) as caught:
        train(job)
    assert caught.value.kind == kind, caught.value.message
    return caught.value


def last_state(job: TrainingJob) -> dict[str, Any]:
    """Return a job's last checkpoint without what tells the time."""
    state: dict[str, Any] = torch.load(job.checkpoints_dir / "last.pth", weights_only=True)
    state["place"].pop("seconds")
    state["place"]["metrics"].pop("images_per_second", None)
    return state


def best_weights(job: TrainingJob) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(job.checkpoints_dir / "best" / WEIGHTS)


def differences(one: Any, other: Any, at: str = "") -> list[str]:
    """Return where two nested states differ in any bit."""
    if isinstance(one, torch.Tensor):
        same = one.dtype == other.dtype and torch.equal(one, other)
        return [] if same else [at]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [f"{at}: {one.keys() ^ other.keys()}"]
        return [d for k in one for d in differences(one[k], other[k], f"{at}/{k}")]
    if isinstance(one, list | tuple):
        return [
            d
            for i, (a, b) in enumerate(zip(one, other, strict=True))
            for d in differences(a, b, f"{at}/{i}")
        ]
    return [] if one == other else [f"{at}: {one} {other}"]


def comparable(measured: dict[int, dict[str, float]]) -> dict[int, dict[str, float]]:
    return {
        epoch: {name: v for name, v in values.items() if name != "images_per_second"}
        for epoch, values in measured.items()
    }


# Models that are not in the matrix of test_matrix.py.
@pytest.mark.parametrize(
    ("model", "task_type", "format", "multi_label"),
    [
        ("convnext-test", CLASSIFY, DatasetFormat.IMAGEFOLDER, False),
        ("vit-test", CLASSIFY, DatasetFormat.IMAGEFOLDER, True),
        ("swin-test", CLASSIFY, DatasetFormat.YOLO, True),
        ("deformable-detr-test", DETECT, DatasetFormat.YOLO, False),
        ("rtdetr-test", DETECT, DatasetFormat.COCO, False),
        ("upernet-test", SEGMENT, DatasetFormat.COCO, False),
        ("dpt-test", SEGMENT, DatasetFormat.YOLO, False),
    ],
)
def test_each_task_trains_on_each_format_reports_and_predicts(
    make: Make, model: str, task_type: TaskType, format: DatasetFormat, multi_label: bool
) -> None:
    plain = {"augment": False, "warmup_epochs": 0.0}  # so that two epochs show
    job = make(model, task_type, format, multi_label=multi_label, hyperparameters=plain)
    reporter = Recorder()
    result = train(job, reporter)
    assert sorted(reporter.measured) == [1, 2]
    expected = {"map", "f1"} if multi_label else METRICS[task_type]
    for values in reporter.measured.values():
        assert set(values) == SHARED | expected
        assert all(math.isfinite(value) for value in values.values())
        assert all(0 <= values[name] <= 1 for name in expected)
    assert reporter.measured[2]["train_loss"] < reporter.measured[1]["train_loss"]
    assert result.stopped is None
    assert result.epochs_completed == 2
    assert result.best is not None
    assert result.best.metric in expected
    assert result.accuracy == result.best.value
    assert result.best_model_path == str(job.checkpoints_dir / "best")
    folder = job.checkpoints_dir
    assert set(reporter.artifacts) == {folder / "last.pth", *(folder / "best").iterdir()}
    assert {path.name for path in folder.iterdir()} == {"last.pth", "best"}
    assert {path.name for path in (folder / "best").iterdir()} == BEST_FILES
    steps = [(p["epoch"], p["step"]) for p in reporter.progressed if "phase" not in p]
    assert steps == [(epoch, step) for epoch in (1, 2) for step in range(1, STEPS + 1)]
    _check_predictions(load(job), task_type, multi_label=multi_label)


def _check_predictions(predictor: Predictor, task_type: TaskType, *, multi_label: bool) -> None:
    assert set(predictor.classes) >= set(CLASSES)
    assert predictor.multi_label is multi_label
    images = [Image.new("RGB", size, "orange") for size in ((50, 70), (SIDE, SIDE), (200, 30))]
    predictions = predictor.predict(images * 6)  # more than one batch
    assert len(predictions) == 18
    for prediction, image in zip(predictions, images * 6, strict=True):
        if task_type == CLASSIFY:
            assert prediction.scores is not None
            assert prediction.scores.shape == (len(predictor.classes),)
            assert multi_label or prediction.scores.sum() == pytest.approx(1, abs=1e-5)
        elif task_type == DETECT:
            scores = [found.score for found in prediction.objects]
            assert scores == sorted(scores, reverse=True)
            assert all(0 <= side <= 1 for found in prediction.objects for side in found.box)
        else:
            assert prediction.mask is not None
            assert prediction.mask.shape == (image.height, image.width)
            assert prediction.mask.max() < len(predictor.classes)


def test_a_classifier_learns_and_validation_agrees_with_prediction(make: Make) -> None:
    job = make(
        "convnext-test",
        CLASSIFY,
        DatasetFormat.IMAGEFOLDER,
        epochs=12,
        learning_rate=0.01,
        hyperparameters={"precision": "fp32", "ema": True, "ema_decay": 0.8},
    )
    result = train(job)
    assert result.accuracy is not None
    assert result.accuracy > 0.6  # three classes, so chance is a third
    predictor = load(job)
    paths = sorted((job.dataset_path / "val").rglob("*.png"))
    found = predictor.predict([Image.open(path).convert("RGB") for path in paths])
    hits = [
        predictor.classes[int(one.scores.argmax())] == path.parent.name  # type: ignore[union-attr]
        for one, path in zip(found, paths, strict=True)
    ]
    assert sum(hits) / len(hits) == pytest.approx(result.accuracy)


@pytest.mark.parametrize(
    ("model", "task_type", "format", "workers", "more"),
    [
        (
            "resnet-test",
            CLASSIFY,
            DatasetFormat.IMAGEFOLDER,
            0,
            {"random_erasing": 0.3, "rotation": 10.0, "label_smoothing": 0.1},
        ),
        ("rtdetr-test", DETECT, DatasetFormat.YOLO, 0, {}),
        ("segformer-test", SEGMENT, DatasetFormat.MASKS, 1, {"layer_decay": 0.9}),
    ],
)
def test_interrupted_anywhere_a_job_ends_with_the_same_bits(
    make: Make,
    model: str,
    task_type: TaskType,
    format: DatasetFormat,
    workers: int,
    more: dict[str, Any],
) -> None:
    hyperparameters = {**EVERYTHING, **more, "workers": workers}
    job = make(model, task_type, format, hyperparameters=hyperparameters)
    whole = Recorder()
    train(elsewhere(job, "whole"), whole)

    rng = random.Random(7)
    measured: dict[int, dict[str, float]] = {}
    cuts = []
    result = None
    while result is None or result.stopped:
        # The first cuts surely fall into the job, later ones may come after its end.
        at = rng.randrange(1, whole.questions // 2 if len(cuts) < 2 else whole.questions)
        reason = rng.choice(list(StopReason))
        part = Recorder(lambda n, at=at, reason=reason: reason if n >= at else None)  # type: ignore[misc]
        result = train(changed(job, resume=bool(cuts)), part)
        measured.update(part.measured)
        cuts.append(at)
    assert len(cuts) > 2
    assert differences(last_state(elsewhere(job, "whole")), last_state(job)) == []
    assert differences(best_weights(elsewhere(job, "whole")), best_weights(job)) == []
    assert comparable(measured) == comparable(whole.measured)


def test_a_stop_in_validation_is_heard_and_the_epoch_is_validated_later(job: TrainingJob) -> None:
    asked = STEPS + 1  # each training batch asks once, so this is the first of validation
    part = Recorder(lambda n: StopReason.NOW if n == asked else None)
    result = train(job, part)
    assert result.stopped == StopReason.NOW
    assert part.measured == {}
    assert last_state(job)["place"]["step"] == STEPS
    rest = Recorder()
    assert train(changed(job, resume=True), rest).stopped is None
    assert sorted(rest.measured) == [1, 2]


def test_the_same_seed_gives_the_same_weights_and_another_does_not(job: TrainingJob) -> None:
    job = changed(job, epochs=1)
    train(job)
    train(elsewhere(job, "again", hyperparameters={"workers": 2}))
    assert differences(last_state(job), last_state(elsewhere(job, "again"))) == []
    train(elsewhere(job, "other", seed=2))
    assert differences(last_state(job)["model"], last_state(elsewhere(job, "other"))["model"])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_goes_on_exactly(job: TrainingJob, optimizer: str) -> None:
    job = changed(job, epochs=1, optimizer=optimizer)
    train(elsewhere(job, "whole"))
    train(job, Recorder(lambda n: StopReason.NOW if n == 3 else None))
    train(changed(job, resume=True))
    assert differences(last_state(elsewhere(job, "whole")), last_state(job)) == []


@pytest.mark.parametrize(
    "scheduler", ["linear", "polynomial", "constant", "inverse_sqrt", "warmup_stable_decay"]
)
def test_every_schedule_warms_up_and_goes_on_exactly(job: TrainingJob, scheduler: str) -> None:
    job = changed(job, hyperparameters={"scheduler": scheduler, "warmup_epochs": 0.5})
    whole = Recorder()
    train(elsewhere(job, "whole"), whole)
    train(job, Recorder(lambda n: StopReason.NOW if n == 9 else None))
    train(changed(job, resume=True))
    assert differences(last_state(elsewhere(job, "whole")), last_state(job)) == []
    assert 0 < whole.measured[1]["learning_rate"] <= job.learning_rate


def test_loader_processes_end_with_the_job(job: TrainingJob) -> None:
    before = set(active_children())  # of other tests: what they share
    train(changed(job, epochs=1, hyperparameters={"workers": 2}))
    # One that does not end by itself for some seconds is told to, and not waited for.
    wait_for(lambda: set(active_children()) <= before, what="the end of the loader processes")


def test_patience_ends_a_job_that_does_not_get_better(job: TrainingJob) -> None:
    hyperparameters = {"early_stopping_patience": 2, "warmup_epochs": 0.0}
    reporter = Recorder()
    result = train(
        changed(job, epochs=9, learning_rate=1e-9, hyperparameters=hyperparameters), reporter
    )
    assert result.stopped is None
    assert result.best is not None
    assert result.epochs_completed == result.best.epoch + 2 < 9
    assert any("early_stopping_patience is 2" in line for line in reporter.lines)


def test_a_frozen_backbone_keeps_its_weights_and_its_statistics(job: TrainingJob) -> None:
    train(elsewhere(job, "before", epochs=1, learning_rate=1e-12, optimizer="sgd"))
    job = changed(
        job,
        epochs=1,
        initial_dir=elsewhere(job, "before").output_dir,
        hyperparameters={"freeze_backbone": True},
    )
    train(job)
    before, after = best_weights(elsewhere(job, "before")), best_weights(job)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"classifier.1.weight", "classifier.1.bias"}


def test_class_weights_change_what_is_learnt(job: TrainingJob) -> None:
    job = changed(job, epochs=1)
    train(job)
    train(elsewhere(job, "weighted", hyperparameters={"class_weights": [1.0, 0.0, 5.0]}))
    assert differences(last_state(job)["model"], last_state(elsewhere(job, "weighted"))["model"])
    told = refused(changed(job, hyperparameters={"class_weights": [1.0]}), ErrorKind.UNSUPPORTED)
    assert "class_weights has 1 number, and the data set 3 classes" in told.message


def test_a_job_begins_with_the_best_weights_of_another(make: Make, job: TrainingJob) -> None:
    first = elsewhere(job, "first", epochs=1)
    train(first)
    reporter = Recorder()
    second = make(
        "resnet-test",
        CLASSIFY,
        DatasetFormat.YOLO,
        multi_label=True,
        initial_dir=first.output_dir,
        initial_job_id=7,
        epochs=1,
        learning_rate=1e-12,
        optimizer="sgd",
    )
    # Only placed() fills this field in; the job's message does not hold it.
    train(dataclasses.replace(second, initial_dir=first.output_dir), reporter)
    name = "resnet.encoder.stages.0.layers.0.layer.0.convolution.weight"
    assert torch.allclose(best_weights(first)[name], best_weights(second)[name], atol=1e-6)
    assert any("best weights of job 7" in line for line in reporter.lines)
    # The folders' order is that of the alphabet, the YOLO set's its own.
    told = "the head begins with the weights of as many other classes: disc, square, triangle"
    assert told in reporter.lines
    again = Recorder()
    train(elsewhere(job, "again", epochs=1, initial_dir=first.output_dir), again)
    assert not any("other classes" in line for line in again.lines)


# Published weights


def publish(job: TrainingJob, folder: Path) -> Path:
    """Train a model and lay its files out as a repository of the hub does."""
    train(elsewhere(job, "published", epochs=1))
    best = elsewhere(job, "published").checkpoints_dir / "best"
    folder.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS, CONFIG, PREPROCESSOR):
        shutil.copy(best / name, folder / name)
    return folder


def test_weights_put_into_the_weights_folder_are_begun_with(job: TrainingJob) -> None:
    assert job.weights_dir is not None
    folder = publish(job, job.weights_dir / "huggingface" / "resnet-test")
    description = json.loads((folder / PREPROCESSOR).read_text())
    description["image_mean"] = [0.1, 0.2, 0.3]
    (folder / PREPROCESSOR).write_text(json.dumps(description))
    train(changed(job, pretrained=True, epochs=1, learning_rate=1e-12, optimizer="sgd"))
    name = "resnet.encoder.stages.0.layers.0.layer.0.convolution.weight"
    published = safetensors.torch.load_file(folder / WEIGHTS)
    assert torch.allclose(published[name], best_weights(job)[name], atol=1e-6)
    kept = json.loads((job.checkpoints_dir / "best" / PREPROCESSOR).read_text())
    assert kept["image_mean"] == [0.1, 0.2, 0.3]  # what the weights were trained with


class _Hub(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve a folder in place of the hub."""
    root = tmp_path / "hub"
    root.mkdir()
    handler = partial(_Hub, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(pretrained, "BASE_URL", f"http://127.0.0.1:{server.server_port}")
        yield root
        server.shutdown()
        thread.join()


def test_published_weights_are_fetched_once_and_fine_tuned_at_another_size(
    make: Make, hub: Path
) -> None:
    job = make("vit-tiny-patch16-224", CLASSIFY, DatasetFormat.IMAGEFOLDER, image_size=32, epochs=1)
    small = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    made = _small_vit(hub / "WinKawaks/vit-tiny-patch16-224/resolve/main", **small)
    reporter = Recorder()
    train(changed(job, pretrained=True), reporter)
    assert job.weights_dir is not None
    kept = job.weights_dir / "huggingface" / "vit-tiny-patch16-224"
    assert sorted(path.name for path in kept.iterdir()) == [CONFIG, WEIGHTS]
    assert (kept / WEIGHTS).read_bytes() == (made / WEIGHTS).read_bytes()
    shutil.rmtree(hub)
    train(changed(job, pretrained=True))  # now without the hub
    assert len(load(job).predict([Image.new("RGB", (40, 40))])) == 1


def _small_vit(folder: Path, **sizes: int) -> Path:
    """Write a vision transformer for 64 pixels and a thousand classes."""
    from transformers import ViTConfig, ViTForImageClassification

    folder.mkdir(parents=True)
    config = ViTConfig(image_size=64, patch_size=16, num_labels=1000, **sizes)
    ViTForImageClassification(config).save_pretrained(folder)
    return folder


def test_without_weights_a_job_that_asked_for_them_is_refused(
    make: Make, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make("resnet-18", CLASSIFY, DatasetFormat.IMAGEFOLDER, pretrained=True)
    told = refused(job, ErrorKind.WEIGHTS_MISSING)
    assert "downloading 'config.json' failed" in told.message
    assert "'microsoft/resnet-18'" in told.hint
    folder = hub / "microsoft/resnet-18/resolve/main"
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text('{"model_type": "resnet"}')
    assert "none in the format safetensors" in refused(job, ErrorKind.WEIGHTS_MISSING).message
    monkeypatch.setattr(pretrained, "BASE_URL", "http://127.0.0.1:9")
    assert "failed" in refused(job, ErrorKind.WEIGHTS_MISSING).message
    unpublished = make("resnet-test", CLASSIFY, DatasetFormat.IMAGEFOLDER, pretrained=True)
    assert "nobody publishes" in refused(unpublished, ErrorKind.WEIGHTS_MISSING).message


def test_weights_that_are_damaged_or_of_another_model_are_refused(job: TrainingJob) -> None:
    assert job.weights_dir is not None
    folder = publish(job, job.weights_dir / "huggingface" / "resnet-test")
    job = changed(job, pretrained=True)
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    assert "cannot be loaded" in refused(job, ErrorKind.CHECKPOINT_INVALID).message
    safetensors.torch.save_file({"other": torch.zeros(3)}, folder / WEIGHTS, {"format": "pt"})
    assert "lack" in refused(job, ErrorKind.CHECKPOINT_INVALID).message
    (folder / CONFIG).write_text('{"model_type": "vit"}')
    assert "not 'resnet'" in refused(job, ErrorKind.CHECKPOINT_INVALID).message


# The largest batch that fits


def test_batch_size_zero_is_found_kept_and_halved_when_memory_runs_out(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = changed(job, batch_size=0, epochs=2)
    step = ReportingTrainer.training_step

    def runs_out(self: ReportingTrainer, *arguments: Any) -> Any:
        if self.plan.batch_size > 4 and self.place.epoch == 2:
            raise torch.OutOfMemoryError("out of memory")
        return step(self, *arguments)

    monkeypatch.setattr(ReportingTrainer, "training_step", runs_out)
    reporter = Recorder()
    result = train(job, reporter)
    assert result.epochs_completed == 2
    sizes = [value for name, value, _ in reporter.chosen if name == "batch_size"]
    assert sizes == [8, 4]
    assert "memory of cpu ran out" in reporter.chosen[1][2]
    assert sorted(reporter.measured) == [1, 2]
    assert last_state(job)["chosen_batch_size"] == 4
    longer = Recorder()
    train(changed(job, resume=True), longer)
    assert longer.chosen == []  # it is found once a job


# What is refused


def test_what_the_library_cannot_do_is_told_before_it_trains(make: Make, job: TrainingJob) -> None:
    unsupported = partial(refused, kind=ErrorKind.UNSUPPORTED)
    assert (
        "trains no image_classification"
        in unsupported(changed(job, model_name="google/vit-base-patch16-224")).message
    )
    assert "unknown optimizer" in unsupported(changed(job, optimizer="lion")).message
    assert "'ema_decai'" in unsupported(changed(job, hyperparameters={"ema_decai": 1})).message
    assert (
        "fp16 needs a GPU"
        in unsupported(changed(job, hyperparameters={"precision": "fp16"})).message
    )
    detection = make("rtdetr-test", DETECT, DatasetFormat.YOLO)
    assert "multiples of 32" in unsupported(changed(detection, image_size=72)).message
    assert (
        "'label_smoothing' means nothing for object_detection"
        in unsupported(changed(detection, hyperparameters={"label_smoothing": 0.1})).message
    )
    segmentation = make("segformer-test", SEGMENT, DatasetFormat.MASKS)
    assert (
        "'random_erasing' means nothing for semantic_segmentation; it is for image_classification"
        in unsupported(changed(segmentation, hyperparameters={"random_erasing": 0.5})).message
    )


def test_a_loss_that_is_no_number_ends_the_job_with_advice(job: TrainingJob) -> None:
    told = refused(
        changed(
            job,
            learning_rate=1e30,
            optimizer="sgd",
            hyperparameters={"warmup_epochs": 0.0, "precision": "fp32"},
        ),
        ErrorKind.NAN_LOSS,
    )
    assert "gradient_clip 1.0" in told.hint


def test_a_checkpoint_of_another_job_or_of_none_is_refused(job: TrainingJob) -> None:
    train(changed(job, epochs=1))
    told = refused(changed(job, epochs=2, resume=True), ErrorKind.CHECKPOINT_INVALID)
    assert "other epochs" in told.message
    last = job.checkpoints_dir / "last.pth"
    last.write_bytes(last.read_bytes()[:1000])
    refused(changed(job, epochs=1, resume=True), ErrorKind.CHECKPOINT_INVALID)
    shutil.rmtree(job.checkpoints_dir)
    with pytest.raises(TrainingError, match="cannot be read"):
        load(job)


# Export


# Those of the matrix are exported there.
@pytest.mark.parametrize(
    ("model", "task_type", "format"),
    [
        ("vit-test", CLASSIFY, DatasetFormat.IMAGEFOLDER),
        ("swin-test", CLASSIFY, DatasetFormat.IMAGEFOLDER),
        ("detr-test", DETECT, DatasetFormat.YOLO),
        ("deformable-detr-test", DETECT, DatasetFormat.YOLO),
        ("rtdetr-test", DETECT, DatasetFormat.YOLO),  # barely trained, many places score the same
        ("dpt-test", SEGMENT, DatasetFormat.MASKS),
    ],
)
def test_a_model_is_exported_to_what_says_the_same(
    make: Make, model: str, task_type: TaskType, format: DatasetFormat
) -> None:
    job = make(model, task_type, format, epochs=1)
    train(job)
    predictor = load(job)
    for kind in ExportFormat:
        exported = export(job, predictor, kind)
        assert exported.path.is_file()
        assert exported.largest_difference <= TOLERANCE


# The warm template

_LOOK = """
import socket, sys, threading
def forbidden(*arguments, **settings):
    raise AssertionError("it reached for the network")
socket.getaddrinfo = socket.create_connection = socket.socket.connect = forbidden
import adapters.huggingface_adapter
import os, torch
threads = len(os.listdir("/proc/self/task"))
loaded = {"torchmetrics.detection", "torchvision.transforms.v2", "transformers.trainer"}
loaded |= {"accelerate"}
assert loaded <= set(sys.modules), loaded - set(sys.modules)
assert threads == 1 and threading.active_count() == 1, threads
assert not torch.cuda.is_initialized()
assert os.environ["HF_HUB_OFFLINE"] == "1"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads of a Linux process")
def test_importing_the_adapter_starts_no_thread_reaches_for_nothing_and_prints_nothing() -> None:
    # Linear algebra's own threads do not count: it ends them before a fork.
    environ = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _LOOK]
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""
