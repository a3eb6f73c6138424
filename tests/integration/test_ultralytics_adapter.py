"""The Ultralytics adapter, training real detectors on a few small images."""

from __future__ import annotations

import dataclasses
import http.server
import json
import math
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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
from adapters.ultralytics_training import report, weights
from adapters.ultralytics_training.trainer import CheckpointingTrainer
from adapters.ultralytics_training.weights import load_checkpoint_file
from tests.services import wait_for

SIDE = 64
EPOCH_METRICS = {
    "train_loss",
    "train_box_loss",
    "train_cls_loss",
    "train_dfl_loss",
    "val_loss",
    "val_box_loss",
    "val_cls_loss",
    "val_dfl_loss",
    "precision",
    "recall",
    "map50",
    "map50_95",
    "learning_rate",
    "images_per_second",
}
ROOT = Path(__file__).parents[2]


class ListReporter:
    """Keeps what an adapter reports; ``stop`` decides at each question."""

    def __init__(self, stop: Callable[[ListReporter], StopReason | None] | None = None) -> None:
        self.progressed: list[dict[str, Any]] = []
        self.measured: list[tuple[int, dict[str, float]]] = []
        self.artifacts: list[tuple[Path, str]] = []
        self.lines: list[str] = []
        self.decisions: list[tuple[str, float | str]] = []
        self._stop = stop

    def progress(self, **values: Any) -> None:
        self.progressed.append(values)

    def metrics(self, *, epoch: int, values: Mapping[str, float], step: int | None = None) -> None:
        self.measured.append((epoch, dict(values)))

    def decided(self, name: str, value: float | str, *, why: str) -> None:
        self.decisions.append((name, value))

    def artifact(self, path: Path, *, kind: str) -> None:
        assert path.is_file()
        self.artifacts.append((path, kind))

    def log(self, line: str) -> None:
        self.lines.append(line)

    def should_stop(self) -> StopReason | None:
        return self._stop(self) if self._stop else None

    def position(self) -> tuple[int, int]:
        last = self.progressed[-1]
        return last["epoch"], last["step"]


def _stop_at(
    reason: StopReason, epoch: int, step: int, phase: str = "train"
) -> Callable[[ListReporter], Any]:
    def decide(reporter: ListReporter) -> StopReason | None:
        told = [p for p in reporter.progressed if p.get("phase", "train") == phase]
        reached = bool(told) and (told[-1]["epoch"], told[-1]["step"]) >= (epoch, step)
        return reason if reached else None

    return decide


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Keep the threads of such small models from waiting for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YOLO data set: bright squares and dark squares on noise, 16 to train and 4 to check."""
    folder = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 4)):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for i in range(count):
            image = rng.integers(100, 150, (SIDE, SIDE, 3), dtype=np.uint8)
            x, y, label = int(rng.integers(0, 40)), int(rng.integers(0, 40)), i % 2
            image[y : y + 24, x : x + 24] = 255 * label
            Image.fromarray(image).save(folder / "images" / split / f"{i}.png")
            box = f"{label} {(x + 12) / SIDE} {(y + 12) / SIDE} {24 / SIDE} {24 / SIDE}\n"
            (folder / "labels" / split / f"{i}.txt").write_text(box)
    (folder / "data.yaml").write_text(
        "path: .\ntrain: images/train\nval: images/val\nnames: [dark, bright]\n"
        "download: exec('raise SystemExit')\n"
    )
    return folder


def _job(data: Path, output: Path, **changes: Any) -> TrainingJob:
    options = {"mosaic": 1.0, "close_mosaic": 1, "plots": False, **changes.pop("options", {})}
    job = TrainingJob(
        id=7,
        attempt=1,
        framework="ultralytics",
        model_name="yolo11n",
        task_type=TaskType.OBJECT_DETECTION,
        dataset_path=data,
        dataset_format=DatasetFormat.YOLO,
        epochs=3,
        batch_size=8,
        learning_rate=0.002,
        image_size=SIDE,
        hyperparameters=options,
    )
    placed = job.placed(
        output_dir=output, weights_dir=output.parent / "weights", compute_device="cpu"
    )
    return dataclasses.replace(placed, **changes)


@dataclasses.dataclass
class Trained:
    job: TrainingJob
    reporter: ListReporter
    result: Result


def _train(job: TrainingJob, reporter: ListReporter | None = None) -> Trained:
    reporter = reporter or ListReporter()
    return Trained(job, reporter, get_adapter("ultralytics").train(job, reporter))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A job of three epochs that nothing interrupted, with pictures at its end."""
    output = tmp_path_factory.mktemp("whole") / "out"
    return _train(_job(data, output, options={"plots": True}))


def test_each_epoch_reports_every_metric_once(trained: Trained) -> None:
    assert [epoch for epoch, _ in trained.reporter.measured] == [1, 2, 3]
    for _, values in trained.reporter.measured:
        assert set(values) == EPOCH_METRICS
        assert all(math.isfinite(value) for value in values.values())
        parts = ("box", "cls", "dfl")
        for split in ("train", "val"):
            total = sum(values[f"{split}_{part}_loss"] for part in parts)
            assert values[f"{split}_loss"] == pytest.approx(total)


def test_the_result_tells_the_best_epoch_and_the_last_loss(trained: Trained) -> None:
    result, measured = trained.result, dict(trained.reporter.measured)
    assert result.epochs_completed == 3
    assert result.stopped is None
    assert result.best is not None
    assert result.accuracy == result.best.value == measured[result.best.epoch]["map50"]
    assert result.loss == pytest.approx(measured[3]["val_loss"])


def test_progress_comes_with_every_batch_and_knows_the_phase(trained: Trained) -> None:
    steps = [
        (p["epoch"], p["step"])
        for p in trained.reporter.progressed
        if p.get("phase", "train") == "train"
    ]
    assert steps == [(epoch, step) for epoch in (1, 2, 3) for step in (0, 1, 2)]
    assert {p.get("phase") for p in trained.reporter.progressed} == {None, "val", "draw"}
    drawn = [p for p in trained.reporter.progressed if p.get("phase") == "draw"]
    # After the first validation, for people and for what is known of the time left, and the last.
    assert [(p["epoch"], p["step"]) for p in drawn] == [(1, 0), (1, 1), (3, 0), (3, 1)]


def test_artifacts_are_checkpoints_plots_and_configuration(trained: Trained) -> None:
    told = {(path.name, kind) for path, kind in trained.reporter.artifacts}
    assert {("last.pt", "checkpoint"), ("best.pt", "checkpoint")} <= told
    assert {path.name for path in _last(trained).parent.iterdir()} == {"last.pt", "best.pt"}
    assert {("args.yaml", "config"), ("results.csv", "table")} <= told
    assert ("confusion_matrix.png", "plot") in told
    assert ("val_batch0_pred.jpg", "plot") in told
    names = [path.name for path, _ in trained.reporter.artifacts]
    assert names.index("BoxPR_curve.png") < names.index("last.pt")  # of the first epoch, too
    assert names.count("BoxPR_curve.png") == names.count("val_batch0_labels.jpg") == 2


def test_the_log_has_a_line_an_epoch_and_no_progress_bars(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = _train(_job(data, tmp_path / "out", epochs=1, options={"cache_images": True}))
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert [line for line in run.reporter.lines if line.startswith("epoch 1/1: train_loss ")]


@pytest.mark.parametrize(
    ("epoch", "step", "phase"),
    [(1, 1, "train"), (2, 1, "train"), (2, 1, "val"), (3, 1, "train")],
)
def test_a_job_stopped_anywhere_and_resumed_ends_with_the_same_weights(
    data: Path, tmp_path: Path, trained: Trained, epoch: int, step: int, phase: str
) -> None:
    job = _job(data, tmp_path / "out")
    stop = _stop_at(StopReason.NOW, epoch=epoch, step=step, phase=phase)
    stopped = _train(job, ListReporter(stop))
    assert stopped.result.stopped is StopReason.NOW
    last = stopped.reporter.progressed[-1]
    assert (last["epoch"], last["step"], last.get("phase", "train")) == (epoch, step, phase)
    assert stopped.result.epochs_completed == epoch - 1
    assert stopped.reporter.artifacts[-1] == (_last(stopped), "checkpoint")

    resumed = _train(dataclasses.replace(job, resume=True, attempt=2))

    assert resumed.reporter.progressed[0]["step"] == (step if phase == "train" else 2)
    told = [*stopped.reporter.measured, *resumed.reporter.measured]
    assert [e for e, _ in told] == [1, 2, 3]
    assert _without_speed(told) == _without_speed(trained.reporter.measured)
    assert resumed.result.best == trained.result.best
    _assert_same_weights(resumed, trained)
    assert _epochs_in_results(resumed) == _epochs_in_results(trained) == [1, 2, 3]


def test_a_killed_job_repeats_the_epoch_and_ends_with_the_same_weights(
    data: Path, tmp_path: Path, trained: Trained
) -> None:
    class Killed(BaseException):
        pass

    def kill(reporter: ListReporter) -> None:
        if reporter.progressed and reporter.position() == (2, 2):
            raise Killed

    job = _job(data, tmp_path / "out")
    with pytest.raises(Killed):
        _train(job, ListReporter(kill))
    resumed = _train(dataclasses.replace(job, resume=True, attempt=2))
    assert [epoch for epoch, _ in resumed.reporter.measured] == [2, 3]
    _assert_same_weights(resumed, trained)


def test_a_long_epoch_is_kept_midway(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "MIDWAY_SECONDS", 0.0)
    run = _train(_job(data, tmp_path / "out", epochs=1))
    written = [path.name for path, kind in run.reporter.artifacts if kind == "checkpoint"]
    assert written == ["last.pt", "last.pt", "best.pt", "last.pt"]


def test_after_epoch_waits_for_the_epoch_and_keeps_its_checkpoint(
    data: Path, tmp_path: Path
) -> None:
    job = _job(data, tmp_path / "out")
    run = _train(job, ListReporter(_stop_at(StopReason.AFTER_EPOCH, epoch=1, step=1)))
    assert run.result.stopped is StopReason.AFTER_EPOCH
    assert run.result.epochs_completed == 1
    assert [epoch for epoch, _ in run.reporter.measured] == [1]
    assert load_checkpoint_file(_last(run))["epoch"] == 0


def test_a_stop_before_the_first_checkpoint_leaves_nothing_to_go_on_from(
    data: Path, tmp_path: Path
) -> None:
    job = _job(data, tmp_path / "out", epochs=1)
    run = _train(job, ListReporter(_stop_at(StopReason.NOW, epoch=1, step=0)))
    assert run.result == Result(epochs_completed=0, stopped=StopReason.NOW)
    assert not job.checkpoints_dir.exists()
    again = _train(dataclasses.replace(job, resume=True))
    assert again.result.epochs_completed == 1
    assert any("starts anew" in line for line in again.reporter.lines)


def test_a_stop_is_heard_while_the_images_are_looked_at(data: Path, tmp_path: Path) -> None:
    run = _train(_job(data, tmp_path / "out"), ListReporter(lambda _: StopReason.NOW))
    assert run.result == Result(epochs_completed=0, stopped=StopReason.NOW)
    assert run.reporter.progressed == []


def test_loader_processes_end_with_a_job_that_is_stopped(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = CheckpointingTrainer.setup_model

    def with_loader_processes(trainer: CheckpointingTrainer) -> Any:
        trainer.args.workers = 2  # the library takes none on a CPU
        return setup(trainer)

    monkeypatch.setattr(CheckpointingTrainer, "setup_model", with_loader_processes)
    alive: list[set[BaseProcess]] = []
    others = set(active_children())  # of other tests: what they share

    def stop(reporter: ListReporter) -> StopReason | None:
        if reporter.progressed and reporter.position() >= (2, 1):
            alive.append(set(active_children()) - others)
            return StopReason.NOW
        return None

    job = _job(data, tmp_path / "out", batch_size=4)
    _train(job, ListReporter(stop))
    assert len(alive[0]) >= 2
    # One that does not end by itself for some seconds is told to, and not waited for.
    wait_for(lambda: not set(active_children()) & alive[0], what="the end of the loaders")
    resumed = _train(dataclasses.replace(job, resume=True))
    assert resumed.reporter.progressed[0]["step"] == 1
    assert resumed.result.epochs_completed == 3
    wait_for(lambda: set(active_children()) <= others, what="the end of the second loaders")


def test_an_image_that_cannot_be_read_is_left_out_and_named(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    (copy / "images" / "train" / "3.png").write_bytes(b"no image")
    with Image.open(data / "images" / "train" / "4.png") as image:
        image.save(copy / "images" / "train" / "4.png", format="JPEG2000")  # not a format of ours
    run = _train(_job(copy, tmp_path / "out", epochs=1))
    for name in ("_3.png", "_4.png"):
        assert [line for line in run.reporter.lines if name in line and "corrupt" in line]


def test_a_finished_job_that_is_resumed_only_tells_its_result_again(trained: Trained) -> None:
    again = _train(dataclasses.replace(trained.job, resume=True, attempt=2))
    assert again.reporter.measured == []
    assert again.result == trained.result


def test_weights_that_cannot_be_had_are_named_with_their_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "ASSETS_URL", "http://127.0.0.1:9")
    job = _job(data, tmp_path / "out", pretrained=True)
    with pytest.raises(TrainingError) as caught:
        _train(job)
    assert caught.value.kind is ErrorKind.WEIGHTS_MISSING
    assert "'yolo11n.pt'" in caught.value.message
    assert str(tmp_path / "weights" / "ultralytics") in caught.value.message
    assert not list((tmp_path / "out").glob("checkpoints/*"))


@pytest.fixture
def asset_server(trained: Trained, tmp_path: Path) -> Iterator[str]:
    """A web server that offers a real checkpoint as yolo11n.pt."""
    assert trained.result.best_model_path is not None
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "yolo11n.pt").symlink_to(trained.result.best_model_path)
    handler = partial(_QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def test_pretrained_weights_are_fetched_once_kept_and_used(
    data: Path, tmp_path: Path, asset_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "ASSETS_URL", asset_server)
    run = _train(_job(data, tmp_path / "out", pretrained=True, epochs=1))
    assert [p.name for p in (tmp_path / "weights" / "ultralytics").iterdir()] == ["yolo11n.pt"]
    assert any(line.startswith("Transferred 499/499") for line in run.reporter.lines)


def test_weights_of_another_model_are_refused(data: Path, tmp_path: Path, trained: Trained) -> None:
    _put_weights(tmp_path, Path(str(trained.result.best_model_path)).read_bytes(), "yolov8n.pt")
    with pytest.raises(TrainingError, match="of another model") as caught:
        _train(_job(data, tmp_path / "out", pretrained=True, model_name="yolov8n"))
    assert caught.value.kind is ErrorKind.CHECKPOINT_INVALID


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_weights_that_hold_code_are_refused_and_run_nothing(data: Path, tmp_path: Path) -> None:
    _put_weights(tmp_path, b"", "yolo11n.pt")
    torch.save({"model": _Bomb(tmp_path / "ran")}, tmp_path / "weights/ultralytics/yolo11n.pt")
    with pytest.raises(TrainingError) as caught:
        _train(_job(data, tmp_path / "out", pretrained=True))
    assert caught.value.kind is ErrorKind.CHECKPOINT_INVALID
    assert not (tmp_path / "ran").exists()


def test_a_loss_that_is_no_number_fails_the_job(
    data: Path, tmp_path: Path, trained: Trained
) -> None:
    spoilt = load_checkpoint_file(Path(str(trained.result.best_model_path)))
    for tensor in spoilt["model"].parameters():
        tensor.data.fill_(math.nan)
    _put_weights(tmp_path, b"", "yolo11n.pt")
    torch.save(spoilt, tmp_path / "weights/ultralytics/yolo11n.pt")
    with pytest.raises(TrainingError) as caught:
        _train(_job(data, tmp_path / "out", pretrained=True, epochs=1))
    assert caught.value.kind is ErrorKind.NAN_LOSS
    assert "learning rate" in caught.value.hint


def test_a_torn_checkpoint_is_refused(data: Path, tmp_path: Path, trained: Trained) -> None:
    job = _job(data, tmp_path / "out", resume=True)
    job.checkpoints_dir.mkdir(parents=True)
    (job.checkpoints_dir / "last.pt").write_bytes(_last(trained).read_bytes()[:100_000])
    with pytest.raises(TrainingError) as caught:
        _train(job)
    assert caught.value.kind is ErrorKind.CHECKPOINT_INVALID


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"model_name": "../yolo11n"}, ErrorKind.UNSUPPORTED),
        ({"model_name": "yolo11n-seg"}, ErrorKind.UNSUPPORTED),
        ({"task_type": TaskType.POSE_ESTIMATION}, ErrorKind.UNSUPPORTED),
        ({"image_size": 100}, ErrorKind.UNSUPPORTED),
        ({"image_size": 32, "batch_size": 5}, ErrorKind.UNSUPPORTED),  # a last batch of one image
        ({"options": {"precision": "fp16"}}, ErrorKind.UNSUPPORTED),
        ({"compute_device": "cuda:99"}, ErrorKind.DEVICE),
        ({"optimizer": "lion"}, ErrorKind.UNSUPPORTED),
        ({"options": {"mosaic": 2.0}}, ErrorKind.UNSUPPORTED),
        ({"dataset_path": Path("/nowhere")}, ErrorKind.DATASET_INVALID),
    ],
)
def test_what_cannot_be_trained_is_refused_before_training(
    data: Path, tmp_path: Path, changes: dict[str, Any], kind: ErrorKind
) -> None:
    with pytest.raises(TrainingError) as caught:
        _train(_job(data, tmp_path / "out", **changes))
    assert caught.value.kind is kind


def test_training_stays_offline_and_writes_only_below_the_output_folder(
    data: Path, tmp_path: Path
) -> None:
    script = """
        import dataclasses, json, os, socket, sys, threading
        from pathlib import Path

        attempts = []
        def refuse(*args, **kwargs):
            attempts.append(repr(args[-1]))
            raise OSError("no network")
        socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
        import numpy, torch, PIL.Image
        functions = torch.save, PIL.Image.open
        threads, tasks = torch.get_num_threads(), len(os.listdir("/proc/self/task"))

        import adapters.ultralytics_adapter

        at_import = {
            "threads": [t.name for t in threading.enumerate()],
            "tasks": len(os.listdir("/proc/self/task")) - tasks,
            "omp": os.environ.get("OMP_NUM_THREADS"),
            "torch_threads": torch.get_num_threads() - threads,
            "files": [str(p) for p in Path.cwd().rglob("*") if p.is_file()],
            "attempts": list(attempts),
            "functions_kept": functions == (torch.save, PIL.Image.open),
        }
        torch.set_num_threads(1)  # the tests share the machine
        from tests.integration.test_ultralytics_adapter import ListReporter, _job
        job = _job(Path(sys.argv[1]), Path(sys.argv[2]), epochs=1, options={"plots": True})
        adapters.ultralytics_adapter.UltralyticsAdapter().train(job, ListReporter())
        print(json.dumps({"at_import": at_import, "attempts": attempts}))
    """
    before = _tree(data)
    places = {name: tmp_path / "away" / name for name in ("HOME", "TMPDIR", "XDG_CONFIG_HOME")}
    for place in places.values():
        place.mkdir(parents=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("YOLO", "OMP", "MPL"))}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(data), str(tmp_path / "out")],
        env={
            **environment,
            **{k: str(v) for k, v in places.items()},
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "ULTRALYTICS_API_KEY": "ul_" + 40 * "0",
        },
        cwd=tmp_path / "away",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["at_import"] == {
        "threads": ["MainThread"],
        "tasks": 0,
        "omp": None,
        "torch_threads": 0,
        "files": [],
        "attempts": [],
        "functions_kept": True,
    }
    assert told["attempts"] == []
    assert [p for p in (tmp_path / "away").rglob("*") if p.is_file()] == []
    assert _tree(data) == before


def _last(run: Trained) -> Path:
    assert run.result.last_checkpoint_path is not None
    return Path(run.result.last_checkpoint_path)


def _assert_same_weights(one: Trained, two: Trained) -> None:
    a, b = (load_checkpoint_file(_last(run)) for run in (one, two))
    for x, y in (
        (a["modelyard"]["model"], b["modelyard"]["model"]),
        (a["ema"].state_dict(), b["ema"].state_dict()),
    ):
        assert [name for name, tensor in x.items() if not torch.equal(tensor, y[name])] == []


def _without_speed(measured: list[tuple[int, dict[str, float]]]) -> Any:
    return [
        (epoch, {name: pytest.approx(v) for name, v in values.items() if "second" not in name})
        for epoch, values in measured
    ]


def _epochs_in_results(run: Trained) -> list[int]:
    assert run.job.output_dir is not None
    lines = (run.job.output_dir / "ultralytics" / "results.csv").read_text().splitlines()
    return [int(line.partition(",")[0]) for line in lines[1:]]


def _put_weights(folder: Path, content: bytes, name: str) -> None:
    target = folder / "weights" / "ultralytics" / name
    target.parent.mkdir(parents=True)
    target.write_bytes(content)


def _tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
    }
