"""A framework that trains in milliseconds a step and obeys the whole contract, for fault tests.

Its model is one number, moved by each step in a way that tells every step and its order: a job
that was interrupted ends with the number of :func:`trained` or it was not continued exactly. Each
step's beginning and end go to ``spans.log`` in the output folder, by a clock that all processes of
the host share, so that it can be seen from outside whether two attempts ever trained at once.

Two files in the output folder, HOLD and HOLD_SAVE, hold a job where a test needs it, so that
nothing depends on whether the test or the training is faster.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from adapters.catalog import ModelEntry
from adapters.contract import (
    Best,
    DatasetFormat,
    ErrorKind,
    Reporter,
    Result,
    StopReason,
    TaskType,
    TrainingError,
    TrainingJob,
)
from adapters.data.reading import read_for
from adapters.frameworks import FrameworkInfo
from adapters.images import open_rgb

SPANS = "spans.log"
HOLD = "hold"  # holds an epoch's number: training stays in the middle of it, and hears requests
HOLD_SAVE = "hold-save"  # while it is there, a last checkpoint is written half and no further
HOLD_LOOK_SECONDS = 0.01
TASK = TaskType.IMAGE_CLASSIFICATION


class QuickHyperparameters(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    steps: int = Field(20, ge=1, description="Steps of an epoch")
    step_seconds: float = Field(0.01, ge=0, description="How long a step takes")
    loaders: int = Field(0, ge=0, description="Processes beside the child, as data loaders are")
    deaf: bool = Field(False, description="Ignores every request and signal to stop")
    fails_at: int = Field(0, ge=0, description="The epoch in which it always fails; 0: never")
    dies_at: int = Field(0, ge=0, description="The epoch in which it always kills itself")
    reads: bool = Field(False, description="Opens every image of the data set first")
    hangs_at: int = Field(0, ge=0, description="The epoch in which it always hangs")
    hangs_after: bool = Field(False, description="Hangs in its evaluation, when it is trained")
    dies_in_a_word: int = Field(
        0, ge=0, description="The epoch in which it always dies half through what it tells"
    )


INFO = FrameworkInfo(
    name="quick",
    title="Quick",
    licence="Apache-2.0",
    task_types=(TASK,),
    formats={TASK: (DatasetFormat.IMAGEFOLDER,)},
    optimizers=("lcg",),
    hyperparameters=QuickHyperparameters,
    models=(
        ModelEntry("quick", "lcg", (str(TASK),), params_m=0.0, input_size=1, pretrained=False),
    ),
)


def stepped(number: int, *, epoch: int, step: int) -> int:
    """Return the model after one more step."""
    return (number * 6364136223846793005 + 1442695040888963407 + epoch * 1009 + step) % 2**64


def trained(seed: int, *, epochs: int, steps: int) -> int:
    """Return the model that nobody ever interrupted."""
    number = seed
    for epoch in range(1, epochs + 1):
        for step in range(1, steps + 1):
            number = stepped(number, epoch=epoch, step=step)
    return number


def accuracy(number: int) -> float:
    return number % 1000 / 1000


class QuickAdapter:
    framework = "quick"

    def train(self, job: TrainingJob, reporter: Reporter) -> Result:
        options = QuickHyperparameters.model_validate(job.hyperparameters)
        if options.deaf:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        loaders = [
            multiprocessing.Process(target=time.sleep, args=(3600,)) for _ in range(options.loaders)
        ]
        for loader in loaders:
            loader.start()
        if options.reads:
            _read(job, reporter)
        try:
            return _Training(job, reporter, options).run()
        finally:
            for loader in loaders:
                loader.kill()

    def load(self, job: TrainingJob) -> Any:
        """Load nothing: there are no predictions of a number. Or never return."""
        while QuickHyperparameters.model_validate(job.hyperparameters).hangs_after:
            time.sleep(3600)
        raise TrainingError(ErrorKind.UNSUPPORTED, "a number predicts nothing")


class _Training:
    def __init__(self, job: TrainingJob, reporter: Reporter, options: QuickHyperparameters) -> None:
        assert job.output_dir is not None
        self.job, self.reporter, self.options = job, reporter, options
        self.last = job.checkpoints_dir / "last.json"
        self.state: dict[str, Any] = {
            "number": job.seed, "epoch": 1, "step": 0, "best": -1.0, "best_epoch": 0,
        }  # fmt: skip
        job.checkpoints_dir.mkdir(parents=True, exist_ok=True)
        if job.resume and self.last.exists():
            self.state = json.loads(self.last.read_text())
            reporter.log(f"goes on after epoch {self.state['epoch']} step {self.state['step']}")
        self.spans = os.open(job.output_dir / SPANS, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def run(self) -> Result:
        while self.state["epoch"] <= self.job.epochs:
            stopped = self._epoch()
            if stopped is not None:
                self._save()
                return self._result(stopped)
        return self._result(None)

    def _epoch(self) -> StopReason | None:
        epoch = self.state["epoch"]
        while self.state["step"] < self.options.steps:
            self._misbehave(epoch)
            if self._is_held(epoch):
                time.sleep(HOLD_LOOK_SECONDS)
            else:
                self._step(epoch, self.state["step"] + 1)
            self.reporter.progress(epoch=epoch, step=self.state["step"], steps=self.options.steps)
            stop = None if self.options.deaf else self.reporter.should_stop()
            if stop not in (None, StopReason.AFTER_EPOCH):
                return stop
        return self._end_epoch(epoch)

    def _is_held(self, epoch: int) -> bool:
        assert self.job.output_dir is not None
        if self.state["step"] != self.options.steps // 2:
            return False
        try:
            return epoch >= int((self.job.output_dir / HOLD).read_text())
        except FileNotFoundError:
            return False

    def _step(self, epoch: int, step: int) -> None:
        self._span("b")
        time.sleep(self.options.step_seconds)
        self.state["number"] = stepped(self.state["number"], epoch=epoch, step=step)
        self.state["step"] = step
        self._span("e")

    def _end_epoch(self, epoch: int) -> StopReason | None:
        top1 = accuracy(self.state["number"])
        self.reporter.log(f"epoch {epoch}: {self.state['number']}")
        self.reporter.metrics(epoch=epoch, values={"top1": top1, "val_loss": 1 - top1})
        if top1 > self.state["best"]:
            self.state |= {"best": top1, "best_epoch": epoch}
            _write(self.job.checkpoints_dir / "best.json", self.state)
        self.state |= {"epoch": epoch + 1, "step": 0}
        self._save()
        stop = None if self.options.deaf else self.reporter.should_stop()
        return stop if epoch < self.job.epochs else None

    def _misbehave(self, epoch: int) -> None:
        if epoch == self.options.fails_at:
            raise TrainingError(ErrorKind.FRAMEWORK, f"always fails in epoch {epoch}")
        if epoch == self.options.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if epoch == self.options.dies_in_a_word:
            _die_in_a_word(self.reporter)
        while epoch == self.options.hangs_at:
            time.sleep(3600)

    def _save(self) -> None:
        _write(self.last, self.state, halfway=self._wait_while_saves_are_held)
        self.reporter.artifact(self.last, kind="checkpoint")

    def _wait_while_saves_are_held(self) -> None:
        assert self.job.output_dir is not None
        while (self.job.output_dir / HOLD_SAVE).exists():
            time.sleep(HOLD_LOOK_SECONDS)

    def _span(self, what: str) -> None:
        now = (
            time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()
        )
        os.write(self.spans, f"{self.job.attempt} {os.getpid()} {what} {now:.6f}\n".encode())

    def _result(self, stopped: StopReason | None) -> Result:
        best = Best(self.state["best_epoch"], "top1", self.state["best"])
        known = self.state["best_epoch"] > 0
        return Result(
            self.state["epoch"] - 1,
            stopped=stopped,
            accuracy=best.value if known else None,
            best=best if known else None,
            best_model_path=str(self.job.checkpoints_dir / "best.json") if known else None,
            last_checkpoint_path=str(self.last),
        )


def _die_in_a_word(reporter: Any) -> None:
    """Write a message's length and half of it to the supervisor, as who is killed meanwhile."""
    pipe = reporter._reporter._events
    os.write(pipe.fileno(), struct.pack("!i", 1000) + b"x" * 500)
    os.kill(os.getpid(), signal.SIGKILL)


def _read(job: TrainingJob, reporter: Reporter) -> None:
    content = read_for(job)
    images = [sample.image for samples in content.splits.values() for sample in samples]
    for image in images:
        open_rgb(image).load()
    reporter.log(f"opened {len(images)} images of {len(content.classes)} classes")


def _write(
    path: Path, state: dict[str, Any], *, halfway: Callable[[], None] = lambda: None
) -> None:
    """Write a checkpoint beside the last one, in two halves, and put it in its place."""
    beside, text = path.with_name(path.name + ".tmp"), json.dumps(state)
    with beside.open("w") as file:
        file.write(text[: len(text) // 2])
        file.flush()
        halfway()
        file.write(text[len(text) // 2 :])
    beside.replace(path)
