"""The timm adapter, training real classifiers on a few of the digits."""

from __future__ import annotations

import http.server
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Semaphore
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import timm
import torch
from PIL import Image
from timm.data import create_transform

from adapters.contract import (
    Best,
    DatasetFormat,
    ErrorKind,
    StopReason,
    TaskType,
    TrainingError,
    TrainingJob,
)
from adapters.schemas.timm import OPTIMIZERS
from adapters.timm_training import pretrained
from tests.timm_jobs import (
    BATCH_SIZE,
    EVERYTHING,
    SIDE,
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

ROOT = Path(__file__).parents[2]
STEPS = TRAIN_IMAGES // BATCH_SIZE
ALWAYS_MEASURED = {"train_loss", "val_loss", "f1", "learning_rate", "images_per_second"}
EPOCH_METRICS = {"top1", "top5"} | ALWAYS_MEASURED


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
def job(digits: Path, tmp_path: Path) -> TrainingJob:
    return make_job(digits, tmp_path / "output")


def refused(
    job: TrainingJob, kind: ErrorKind, *, reporter: Recorder | None = None
) -> TrainingError:
    with pytest.raises(TrainingError) as caught:
        train(job, reporter)
    assert caught.value.kind == kind, caught.value.message
    return caught.value


def test_a_job_trains_reports_every_epoch_and_keeps_its_checkpoints(job: TrainingJob) -> None:
    reporter = Recorder()
    result = train(changed(job, epochs=10), reporter)
    assert sorted(reporter.measured) == list(range(1, 11))
    for values in reporter.measured.values():
        assert set(values) == EPOCH_METRICS
        assert all(math.isfinite(value) for value in values.values())
        assert 0 <= values["top1"] <= values["top5"] <= 1
    assert reporter.measured[10]["train_loss"] < reporter.measured[1]["train_loss"]
    assert result.stopped is None
    assert result.epochs_completed == 10
    assert result.best is not None
    assert result.best.metric == "top1"
    assert result.accuracy == result.best.value == reporter.measured[result.best.epoch]["top1"]
    assert result.accuracy == max(values["top1"] for values in reporter.measured.values())
    assert result.accuracy > 0.3  # ten classes, so chance is 0.1
    assert result.loss == reporter.measured[10]["val_loss"]
    assert result.best_model_path == str(job.checkpoints_dir / "best.safetensors")
    assert result.last_checkpoint_path == str(job.checkpoints_dir / "last.pth")
    assert {path.name for path in reporter.artifacts} == {"last.pth", "best.safetensors"}
    assert {path.name for path in job.checkpoints_dir.iterdir()} == {
        "last.pth",
        "best.safetensors",
    }
    trained = [p for p in reporter.progressed if p.get("phase", "train") == "train"]
    assert [(p["epoch"], p["step"]) for p in trained] == [
        (epoch, step) for epoch in range(1, 11) for step in range(1, STEPS + 1)
    ]
    assert {p["steps"] for p in trained} == {STEPS}
    assert all(p["images_per_second"] > 0 for p in trained)


def test_plain_timm_loads_the_best_model_and_gets_the_same_accuracy(
    job: TrainingJob, digits: Path
) -> None:
    # Some processors take bfloat16 else, in which an image on the edge may be seen otherwise.
    more = {"ema": True, "ema_decay": 0.9, "precision": "fp32"}
    result = train(changed(job, epochs=4, hyperparameters=more))
    assert result.best_model_path is not None
    with safetensors.safe_open(result.best_model_path, framework="pt") as file:
        about = json.loads(file.metadata()["modelyard"])
    assert about["classes"] == [str(n) for n in range(10)]
    model = timm.create_model(
        about["model_name"],
        num_classes=len(about["classes"]),
        checkpoint_path=result.best_model_path,
        **about["model_arguments"],
    ).eval()
    transform = create_transform(**about["data_config"])
    hits = []
    for path in sorted((digits / "val").rglob("*.png")):
        images = transform(Image.open(path).convert("RGB"))[None]
        with torch.no_grad():
            hits.append(about["classes"][int(model(images).argmax())] == path.parent.name)
    assert abs(sum(hits) / len(hits) - about["best"]["value"]) <= 1 / VAL_IMAGES
    assert about["best"]["value"] == result.accuracy


def test_a_transformer_of_another_size_loads_in_plain_timm(job: TrainingJob) -> None:
    result = train(changed(job, model_name="test_vit", image_size=64, epochs=1))
    assert result.best_model_path is not None
    with safetensors.safe_open(result.best_model_path, framework="pt") as file:
        about = json.loads(file.metadata()["modelyard"])
    assert about["model_arguments"] == {"img_size": [64, 64]}
    timm.create_model(
        "test_vit",
        num_classes=10,
        checkpoint_path=result.best_model_path,
        **about["model_arguments"],
    )


@pytest.mark.parametrize(("workers", "number"), [(0, 1), (2, 2), (2, 3)])
def test_interrupted_anywhere_a_job_ends_with_the_same_bits(
    job: TrainingJob, workers: int, number: int
) -> None:
    job = changed(job, epochs=3, hyperparameters={**EVERYTHING, "workers": workers})
    whole = Recorder()
    train(elsewhere(job, "whole"), whole)

    rng = random.Random(number)
    measured: dict[int, dict[str, float]] = {}
    cuts = []
    result = None
    while result is None or result.stopped:
        # The first cuts surely fall into the job, later ones may come after its end.
        at = rng.randrange(1, whole.questions // 2 if len(cuts) < 2 else whole.questions)
        reason = rng.choice([StopReason.NOW, StopReason.SHUTDOWN])
        part = Recorder(lambda n, at=at, reason=reason: reason if n == at else None)  # type: ignore[misc]
        result = train(changed(job, resume=bool(cuts)), part)
        measured.update(part.measured)
        cuts.append(at)
    assert len(cuts) > 2
    assert differences(last_state(elsewhere(job, "whole")), last_state(job)) == []
    assert differences(best_weights(elsewhere(job, "whole")), best_weights(job)) == []
    assert comparable(measured) == comparable(whole.measured)


def test_a_continuation_takes_as_many_threads_as_the_job_began_with(job: TrainingJob) -> None:
    torch.set_num_threads(2)
    job = changed(job, epochs=1)
    train(elsewhere(job, "whole"))
    train(job, Recorder(lambda n: StopReason.NOW if n == 3 else None))
    torch.set_num_threads(1)
    train(changed(job, resume=True))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert threads == 2
    assert differences(last_state(elsewhere(job, "whole")), last_state(job)) == []


def train_in_child(job: TrainingJob, connection: Connection, heard: Semaphore) -> None:
    """Train as the workers' children do: in a process group of its own, forked from a template.

    No report is made before the last one was heard: it cannot end while a kill is on its way.
    """
    os.setsid()
    torch.set_num_threads(1)
    reporter = Recorder()

    def progress(**values: Any) -> None:
        heard.acquire()
        connection.send(values)

    reporter.progress = progress  # type: ignore[method-assign]
    train(job, reporter)
    connection.send(reporter.measured)


def kill_at(job: TrainingJob, *, progress: int | None) -> dict[int, dict[str, float]] | None:
    """Train in a child, killed at the given progress report; return what it measured."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["adapters.timm_adapter"])
    receiver, sender = context.Pipe(duplex=False)
    heard = context.Semaphore(1)
    child = context.Process(target=train_in_child, args=(job, sender, heard))
    child.start()
    sender.close()
    received = 0
    measured = None
    while True:
        try:
            message = receiver.recv()
        except EOFError:
            break
        received += 1
        if "step" not in message:
            measured = message
        elif received == progress:
            assert child.pid is not None
            os.killpg(child.pid, signal.SIGKILL)
        else:
            heard.release()
    child.join()
    assert child.exitcode == (0 if measured is not None else -signal.SIGKILL)
    return measured


def test_killed_at_any_moment_a_job_ends_with_the_same_bits(job: TrainingJob) -> None:
    job = changed(job, hyperparameters={**EVERYTHING, "workers": 1})
    train(elsewhere(job, "whole"))
    rng = random.Random(4)
    assert kill_at(job, progress=rng.randrange(1, STEPS)) is None
    # By the last of these reports the first epoch is over and its checkpoint is being written.
    assert kill_at(changed(job, resume=True), progress=STEPS + rng.randrange(4)) is None
    assert kill_at(changed(job, resume=True), progress=None) is not None
    assert differences(last_state(elsewhere(job, "whole")), last_state(job)) == []
    assert differences(best_weights(elsewhere(job, "whole")), best_weights(job)) == []


def test_loader_processes_change_nothing_and_another_seed_does(job: TrainingJob) -> None:
    job = changed(job, epochs=1, hyperparameters=EVERYTHING)
    train(job)
    with_loaders = elsewhere(job, "loaders", hyperparameters={"workers": 2})
    train(with_loaders)
    assert differences(last_state(job), last_state(with_loaders)) == []
    other = elsewhere(job, "other", seed=2)
    train(other)
    assert differences(last_state(job)["model"], last_state(other)["model"]) != []


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_goes_on_exactly(job: TrainingJob, optimizer: str) -> None:
    job = changed(job, model_name="test_vit", epochs=1, batch_size=24, optimizer=optimizer)
    train(elsewhere(job, "whole"))
    train(job, Recorder(lambda n: StopReason.NOW if n == 3 else None))
    train(changed(job, resume=True))
    assert differences(last_state(elsewhere(job, "whole")), last_state(job)) == []


@pytest.mark.parametrize("scheduler", ["step", "poly", "wsd", "constant"])
def test_every_schedule_goes_on_exactly(job: TrainingJob, scheduler: str) -> None:
    job = changed(job, hyperparameters={"scheduler": scheduler, "warmup_epochs": 0.5})
    train(elsewhere(job, "whole"))
    train(job, Recorder(lambda n: StopReason.NOW if n == 9 else None))
    train(changed(job, resume=True))
    assert differences(last_state(elsewhere(job, "whole")), last_state(job)) == []


@pytest.mark.parametrize("reason", [StopReason.NOW, StopReason.SHUTDOWN])
def test_a_stop_now_is_obeyed_before_the_next_batch(job: TrainingJob, reason: StopReason) -> None:
    reporter = Recorder(lambda n: reason if n == 4 else None)
    result = train(job, reporter)
    assert result.stopped == reason
    assert reporter.questions == 4
    assert [p["step"] for p in reporter.progressed] == [1, 2, 3]
    assert last_state(job)["place"]["step"] == 3
    assert result.epochs_completed == 0
    assert result.accuracy is None
    assert result.best_model_path is None
    assert result.last_checkpoint_path == str(job.checkpoints_dir / "last.pth")
    assert reporter.artifacts == [job.checkpoints_dir / "last.pth"]


def test_a_stop_after_the_epoch_waits_for_its_end(job: TrainingJob) -> None:
    reporter = Recorder(lambda n: StopReason.AFTER_EPOCH)
    result = train(job, reporter)
    assert result.stopped == StopReason.AFTER_EPOCH
    assert result.epochs_completed == 1
    assert list(reporter.measured) == [1]
    assert result.accuracy == reporter.measured[1]["top1"]


def test_a_stop_after_the_last_epoch_is_no_stop(job: TrainingJob) -> None:
    result = train(changed(job, epochs=1), Recorder(lambda n: StopReason.AFTER_EPOCH))
    assert result.stopped is None


def test_a_finished_job_that_is_resumed_tells_its_end_again(job: TrainingJob) -> None:
    first = Recorder()
    result = train(job, first)
    again = Recorder()
    assert train(changed(job, resume=True), again) == result
    assert again.progressed == []
    assert again.measured == {2: first.measured[2]}
    assert {path.name for path in again.artifacts} == {"last.pth", "best.safetensors"}


def test_resuming_without_a_checkpoint_begins_and_says_so(job: TrainingJob) -> None:
    reporter = Recorder()
    assert train(changed(job, resume=True, epochs=1), reporter).epochs_completed == 1
    assert any("no checkpoint" in line for line in reporter.lines)


def test_a_new_beginning_leaves_no_old_checkpoint_to_go_on_from(job: TrainingJob) -> None:
    train(changed(job, epochs=1))
    broken = changed(job, epochs=1, learning_rate=1e30, hyperparameters={"warmup_epochs": 0})
    refused(broken, ErrorKind.NAN_LOSS)
    assert list(job.checkpoints_dir.iterdir()) == []


def test_a_checkpoint_of_other_settings_is_refused_by_name(job: TrainingJob) -> None:
    train(changed(job, epochs=1))
    other = changed(job, epochs=1, resume=True, seed=9, hyperparameters={"mixup": 0.1})
    error = refused(other, ErrorKind.CHECKPOINT_INVALID)
    assert "seed, hyperparameters" in error.message


def test_a_checkpoint_of_other_images_is_refused(
    job: TrainingJob, digits: Path, tmp_path: Path
) -> None:
    train(changed(job, epochs=1))
    shutil.copytree(digits, tmp_path / "more")
    shutil.copy(next((digits / "train" / "3").iterdir()), tmp_path / "more/train/3/new.png")
    moved = changed(job, epochs=1, resume=True, dataset_path=tmp_path / "more")
    assert "images" in refused(moved, ErrorKind.CHECKPOINT_INVALID).message


def test_a_torn_checkpoint_is_refused(job: TrainingJob) -> None:
    train(changed(job, epochs=1))
    last = job.checkpoints_dir / "last.pth"
    last.write_bytes(last.read_bytes()[:1000])
    error = refused(changed(job, epochs=1, resume=True), ErrorKind.CHECKPOINT_INVALID)
    assert str(last) in error.message


def test_a_loss_that_is_no_number_ends_the_attempt_with_advice(job: TrainingJob) -> None:
    wild = changed(job, learning_rate=1e30, hyperparameters={"warmup_epochs": 0})
    error = refused(wild, ErrorKind.NAN_LOSS)
    assert "epoch 1" in error.message
    assert "learning rate below 1e+30" in error.hint
    assert "gradient_clip" in error.hint
    assert not (job.checkpoints_dir / "last.pth").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named(
    job: TrainingJob, digits: Path, tmp_path: Path, workers: int
) -> None:
    shutil.copytree(digits, tmp_path / "data")
    image = next((tmp_path / "data" / "train" / "7").iterdir())
    image.write_bytes(image.read_bytes()[:200])
    damaged = changed(job, dataset_path=tmp_path / "data", hyperparameters={"workers": workers})
    error = refused(damaged, ErrorKind.DATASET_INVALID)
    assert str(image) in error.message
    assert "\n" not in error.message


def test_a_folder_without_images_is_refused(job: TrainingJob, tmp_path: Path) -> None:
    error = refused(changed(job, dataset_path=tmp_path), ErrorKind.DATASET_INVALID)
    assert str(tmp_path) in error.message


def test_an_accuracy_of_zero_is_a_value(job: TrainingJob, tmp_path: Path) -> None:
    # Validation says the opposite of training, so what is learned is always wrong.
    for split, levels in {"train": (0, 255), "val": (255, 0)}.items():
        for name, level in zip(("dark", "light"), levels, strict=True):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(16):
                Image.new("L", (SIDE, SIDE), level).save(folder / f"{number}.png")
    # A model without batch statistics, which lag behind what the weights have learned; it has
    # learned enough within the first epoch.
    lies = changed(
        job,
        model_name="test_vit",
        dataset_path=tmp_path / "data",
        batch_size=4,
        learning_rate=0.01,
        hyperparameters={"warmup_epochs": 0.0},
    )
    result = train(lies)
    assert result.accuracy == 0.0
    assert result.best == Best(epoch=1, metric="top1", value=0.0)


def test_training_ends_when_patience_does(job: TrainingJob) -> None:
    # With no learning nothing ever gets better than the first epoch.
    still = changed(
        job,
        epochs=9,
        learning_rate=1e-30,
        hyperparameters={"early_stopping_patience": 2, "min_learning_rate": 0.0},
    )
    reporter = Recorder()
    result = train(still, reporter)
    assert result.stopped is None
    assert result.best is not None
    assert result.epochs_completed == result.best.epoch + 2 < 9
    assert any("early_stopping_patience" in line for line in reporter.lines)
    assert train(changed(still, resume=True)) == result


def test_a_set_smaller_than_a_batch_is_one_batch(job: TrainingJob) -> None:
    reporter = Recorder()
    train(changed(job, epochs=1, batch_size=1000), reporter)
    assert {p["steps"] for p in reporter.progressed} == {1}


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"model_name": "resnet_of_nobody"}, "resnet_of_nobody"),
        ({"model_name": "hf-hub:timm/resnet18"}, "no model"),
        ({"model_name": "local-dir:/tmp"}, "no model"),
        ({"model_name": "../resnet18"}, "no model"),
        ({"optimizer": "sgdd"}, "sgdd"),
        ({"batch_size": 15, "hyperparameters": {"mixup": 0.2}}, "even batch size"),
        ({"batch_size": -1}, "at least 0"),
        ({"hyperparameters": {"mixupp": 0.2}}, "mixupp"),
        ({"hyperparameters": {"mixup": 99}}, "'mixup'"),
        ({"hyperparameters": {"precision": "fp16"}}, "needs a GPU"),
        ({"task_type": TaskType.OBJECT_DETECTION}, "object_detection"),
        ({"dataset_format": DatasetFormat.MASKS}, "masks"),
        ({"model_name": "vgg11", "hyperparameters": {"drop_path": 0.1}}, "drop_path"),
        ({"model_name": "test_vit", "image_size": 33}, "33 x 33 pixels"),
    ],
)
def test_what_timm_cannot_do_is_refused_at_once(
    job: TrainingJob, changes: dict[str, Any], part: str
) -> None:
    error = refused(changed(job, **changes), ErrorKind.UNSUPPORTED)
    assert part in error.message


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_told(job: TrainingJob) -> None:
    assert "cuda:0" in refused(changed(job, compute_device="cuda:0"), ErrorKind.DEVICE).message


# Pretrained weights


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Weights as their authors publish them: of a thousand classes."""
    folder = tmp_path / "published"
    folder.mkdir()
    torch.manual_seed(99)
    weights = timm.create_model("test_resnet").state_dict()
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    return folder


@pytest.fixture
def hub(published: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[http.server.HTTPServer]:
    """A hub on this machine that serves the published weights."""
    handler = partial(QuietHandler, directory=str(published))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(pretrained, "hf_hub_url", lambda repository, name: f"{address}/{name}")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    breaks_off = False

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def copyfile(self, source: Any, outputfile: Any) -> None:
        if self.breaks_off:
            outputfile.write(source.read(1000))
        else:
            super().copyfile(source, outputfile)


def frozen(job: TrainingJob) -> TrainingJob:
    """Return the job with only its classifier trained, so that weights show where they are from."""
    return changed(job, epochs=1, pretrained=True, hyperparameters={"freeze_backbone": True})


def backbone(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in weights.items() if not name.startswith("fc.")}


def test_pretrained_weights_are_taken_from_the_folder(job: TrainingJob, published: Path) -> None:
    assert job.weights_dir is not None
    file = job.weights_dir / "timm" / "test_resnet.safetensors"
    file.parent.mkdir(parents=True)
    shutil.copy(published / "model.safetensors", file)
    train(frozen(job))
    given = safetensors.torch.load_file(file)
    trained = best_weights(job)
    assert differences(backbone(given), backbone(trained)) == []
    assert trained["fc.weight"].shape[0] == 10


def test_pretrained_weights_are_downloaded_once_and_kept(
    job: TrainingJob, published: Path, hub: http.server.HTTPServer
) -> None:
    assert job.weights_dir is not None
    train(frozen(job))
    given = safetensors.torch.load_file(published / "model.safetensors")
    assert differences(backbone(given), backbone(best_weights(job))) == []
    kept = job.weights_dir / "timm" / "test_resnet.safetensors"
    assert kept.read_bytes() == (published / "model.safetensors").read_bytes()
    (published / "model.safetensors").unlink()
    train(frozen(elsewhere(job, "again")))


def test_a_job_that_resumes_needs_no_pretrained_weights(
    job: TrainingJob, published: Path, hub: http.server.HTTPServer
) -> None:
    assert job.weights_dir is not None
    train(frozen(job), Recorder(lambda n: StopReason.NOW if n == 2 else None))
    shutil.rmtree(job.weights_dir)
    (published / "model.safetensors").unlink()
    assert train(changed(frozen(job), resume=True)).epochs_completed == 1


def test_half_a_download_is_refused_and_not_kept(
    job: TrainingJob, hub: http.server.HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QuietHandler, "breaks_off", True)
    assert job.weights_dir is not None
    error = refused(frozen(job), ErrorKind.WEIGHTS_MISSING)
    assert "broke off after 1000 of" in error.message
    assert [p for p in job.weights_dir.rglob("*") if p.is_file()] == []


def test_missing_weights_are_told_at_once_with_the_file_and_its_place(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A port that nobody listens on: what a machine without a network looks like, but the same
    # where there is one.
    tried: list[str] = []

    def address(repository: str, name: str) -> str:
        tried.append(name)
        return "http://127.0.0.1:9/x"

    monkeypatch.setattr(pretrained, "hf_hub_url", address)
    error = refused(frozen(job), ErrorKind.WEIGHTS_MISSING)
    assert tried == ["model.safetensors"]  # once: the hub's own client tries for most of a minute
    place = f"{job.weights_dir}/timm/test_resnet.safetensors"
    assert place in error.message
    assert "Put the file 'model.safetensors' of 'timm/test_resnet.r160_in1k' " in error.hint
    assert place in error.hint
    assert not job.checkpoints_dir.joinpath("last.pth").exists()


def test_weights_of_another_model_are_refused(job: TrainingJob, published: Path) -> None:
    assert job.weights_dir is not None
    file = job.weights_dir / "timm" / "test_vit.safetensors"
    file.parent.mkdir(parents=True)
    shutil.copy(published / "model.safetensors", file)
    error = refused(frozen(changed(job, model_name="test_vit")), ErrorKind.CHECKPOINT_INVALID)
    assert str(file) in error.message


# The template that children are forked from


def test_importing_the_adapter_starts_and_touches_nothing(tmp_path: Path) -> None:
    code = """
import os, sys
import numpy  # its linear algebra starts a thread where the variable below is not set
before = len(os.listdir('/proc/self/task'))
import adapters.timm_adapter, torch
assert len(os.listdir('/proc/self/task')) == before == 1, 'a thread was started'
assert not torch.cuda.is_initialized(), 'CUDA was touched'
assert os.listdir('.') == [], 'something was written'
pid = os.fork()
if pid == 0:
    torch.set_num_threads(2)
    assert torch.ones(1000, 1000).matmul(torch.ones(1000, 1000)).sum() == 1e9
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    environ = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environ, check=True)
