"""A timm job that is interrupted at random moments ends with the bits of one that never was.

Each trial draws a job from its seed (one class an image or several, mixup, EMA, loader processes,
accumulation, …), trains it once without a break, then again through the workers' supervisor while
it is cancelled, handed back and killed at random, and compares weights, optimizer and metrics.
`make exact-resume TIMES=20` runs more trials, `FIRST=<seed>` those of a run before; which moments
a seed's interruptions hit depends on the machine's pace, too.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.contract import DatasetFormat, StopReason, TaskType, TrainingJob
from adapters.timm_training import loop
from adapters.timm_training.best import read_about
from adapters.wire import EventType, Outcome
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
from workers.stopping import Stop, StopRequest
from workers.supervisor import Ending, Supervisor
from workers.template import Template

TIMES = int(os.environ.get("EXACT_RESUME_TIMES", "3"))
# Random, but the same in all processes of a run that share the tests.
_RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID") or secrets.token_hex(16)
FIRST = int(os.environ.get("EXACT_RESUME_FIRST") or int(_RUN, 16) % 1_000_000)
LEAST_INTERRUPTIONS = 3  # that broke the job off
GRACE_SECONDS = 30.0

# What is done to a job, and how an attempt ends by it.
INTERRUPTIONS: dict[str, Stop | None] = {
    "cancel": Stop.NOW,
    "cancel after the epoch": Stop.AFTER_EPOCH,
    "worker shutdown": Stop.SHUTDOWN,
    "SIGKILL": None,
}


class WatchedTemplate(Template):
    """Remembers the child that it forked last."""

    pid: int | None = None

    def fork(self, job: TrainingJob, **options: Any) -> Any:
        forked = super().fork(job, **options)
        if forked is not None:
            self.pid = forked[0].pid
        return forked


@dataclass
class Attempt:
    """Trains through the supervisor; ``interrupt`` is called at the chosen moment."""

    job: TrainingJob
    template: WatchedTemplate
    moment: str = "never"  # 'time', or the event at which it happens
    seconds: float = 0.0  # after the first progress
    interruption: str = ""
    measured: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    began: float = 0.0
    trained: float = 0.0  # when the last epoch was told
    done: threading.Event = field(default_factory=threading.Event)

    def run(self) -> Ending:
        self.stop = StopRequest()
        ending = Supervisor(
            self.job,
            template=self.template,
            sink=self._sink,
            stop=self.stop,
            cancel_grace_seconds=GRACE_SECONDS,
            shutdown_grace_seconds=GRACE_SECONDS,
        ).run()
        self.done.set()
        return ending

    def _sink(self, type: EventType, data: Mapping[str, Any]) -> None:
        if type == EventType.METRICS:
            self.measured.append((data["epoch"], dict(data["values"])))
            self.trained = time.monotonic()
        elif type == EventType.LOG:
            self.lines += data["lines"]
        if type == EventType.PROGRESS and not self.began:
            self.began = time.monotonic()
            if self.moment == "time":
                timer = threading.Timer(self.seconds, self._interrupt)
                timer.daemon = True
                timer.start()
        if type == self.moment:
            self._interrupt()

    def _interrupt(self) -> None:
        stop = INTERRUPTIONS[self.interruption]
        if self.done.is_set():
            return
        if stop is not None:
            self.stop.ask(stop)
            return
        assert self.template.pid is not None
        try:
            os.kill(self.template.pid, signal.SIGKILL)  # the child only; its group is left to die
        except ProcessLookupError:
            pass


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def template() -> WatchedTemplate:
    return WatchedTemplate(["timm"], threads=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Data sets by whether an image has several classes."""
    several = shapes.compose(
        tmp_path_factory.mktemp("several"),
        format=DatasetFormat.IMAGEFOLDER,
        task_type=TaskType.IMAGE_CLASSIFICATION,
        multi_label=True,
        train=96,
        val=24,
    )
    return {False: write_digits(tmp_path_factory.mktemp("digits")), True: several}


def draw_job(rng: random.Random, *, data: Mapping[bool, Path], output: Path) -> TrainingJob:
    several = rng.random() < 0.4
    hyperparameters = {
        **EVERYTHING,
        "workers": rng.choice([0, 1, 2]),
        "accumulation_steps": rng.choice([1, 3, 4]),
        "cutmix": 0.0 if several else rng.choice([0.0, 1.0]),
        "mixup": rng.choice([0.0, 0.4]),
        "ema": rng.random() < 0.7,
        "ema_warmup": rng.random() < 0.5,
        "class_weights": rng.choice(["none", "balanced"]),
        "freeze_stages": rng.choice([0, 0, 2]),
        "early_stopping_patience": rng.choice([0, 2]),
        "precision": rng.choice(["auto", "fp32"]),
        "channels_last": rng.random() < 0.5,
    }
    return make_job(
        data[several],
        output,
        model_name=rng.choice(["test_resnet", "test_vit", "test_efficientnet"]),
        optimizer=rng.choice(["adamw", "sgd", "lamb", "muon"]),
        batch_size=rng.choice([0, 12, 16]),
        epochs=4,
        seed=rng.randrange(-100, 100),
        hyperparameters=hyperparameters,
    )


def take_apart(
    job: TrainingJob, template: WatchedTemplate, *, rng: random.Random, seconds: float
) -> tuple[dict[int, dict[str, float]], list[str]]:
    """Train a job with interruptions; return its metrics and what was done to it."""
    measured: dict[int, dict[str, float]] = {}
    done: list[str] = []
    number = 0
    while True:
        number += 1
        attempt = Attempt(
            changed(job, attempt=number, resume=number > 1),
            template,
            moment=rng.choice(["time", "time", EventType.METRICS, EventType.ARTIFACT]),
            # The first ones leave something of the job to break off again.
            seconds=rng.uniform(0.0, seconds / (4 if len(done) < LEAST_INTERRUPTIONS else 1)),
            interruption=rng.choice(list(INTERRUPTIONS)),
        )
        if number > 12:  # enough: every attempt that is killed in its first epoch begins again
            attempt.moment = "never"
        ending = attempt.run()
        for epoch, values in attempt.measured:
            told_before = comparable({epoch: measured.get(epoch, values)})
            assert comparable({epoch: values}) == told_before, f"epoch {epoch} was told otherwise"
            measured[epoch] = values
        if ending.outcome == Outcome.COMPLETED:
            return measured, done
        log = "\n".join(attempt.lines)
        assert ending.outcome != Outcome.FAILED or ending.exit_code == -signal.SIGKILL, log
        done.append(f"{attempt.interruption} at {attempt.moment}")


@pytest.mark.timeout(900)  # a dozen attempts and more
@pytest.mark.parametrize("seed", range(FIRST, FIRST + TIMES))
def test_interrupted_at_random_a_job_ends_with_the_same_bits(
    seed: int, template: WatchedTemplate, data: Mapping[bool, Path], tmp_path: Path
) -> None:
    rng = random.Random(seed)
    job = draw_job(rng, data=data, output=tmp_path / "output")
    whole = Attempt(elsewhere(job, "whole"), template)
    ending = whole.run()
    assert ending.outcome == Outcome.COMPLETED, "\n".join(whole.lines)

    seconds = whole.trained - whole.began
    for number in range(8):  # where it was done too soon, once more
        job = elsewhere(job, f"parts{number}")
        measured, done = take_apart(job, template, rng=rng, seconds=seconds)
        if len(done) >= LEAST_INTERRUPTIONS:
            break
        seconds /= 2  # the machine may have become faster meanwhile
    assert len(done) >= LEAST_INTERRUPTIONS
    print(f"\nseed {seed}: {job.model_name}, batch {job.batch_size}, {dict(job.hyperparameters)}")
    print(f"seed {seed}: {len(done)} interruptions: {', '.join(done)}")
    uninterrupted = elsewhere(job, "whole")
    assert differences(last_state(uninterrupted), last_state(job)) == []
    assert differences(best_weights(uninterrupted), best_weights(job)) == []
    best = [read_about(j.checkpoints_dir / "best.safetensors") for j in (uninterrupted, job)]
    assert best[0] == best[1]
    assert comparable(measured) == comparable(dict(whole.measured))


class Dies(Recorder):
    """Ends the attempt as a SIGKILL would, at the chosen report: nothing more is written."""

    def __init__(self, at: Callable[[Recorder], bool]) -> None:
        super().__init__()
        self._at = at

    def progress(self, **values: Any) -> None:
        super().progress(**values)
        if self._at(self):
            raise KeyboardInterrupt

    def artifact(self, path: Path, *, kind: str) -> None:
        super().artifact(path, kind=kind)
        if self._at(self):
            raise KeyboardInterrupt


def test_a_best_model_that_is_ahead_of_the_checkpoint_is_told_of_as_it_is(
    data: Mapping[bool, Path], tmp_path: Path
) -> None:
    # It learns from the beginning, so that a second best epoch comes soon.
    learns = {"batch_size": 8, "hyperparameters": {"warmup_epochs": 0.0}}
    job = make_job(data[False], tmp_path / "output", epochs=5, **learns)

    def second_best_is_written(reporter: Recorder) -> bool:
        return [path.name for path in reporter.artifacts].count("best.safetensors") == 2

    with pytest.raises(KeyboardInterrupt):
        train(job, Dies(second_best_is_written))
    ahead = read_about(job.checkpoints_dir / "best.safetensors").best
    assert last_state(job)["place"]["best_epoch"] < ahead.epoch
    job = changed(job, resume=True)
    # Stopped before that epoch has come again.
    assert train(job, Recorder(lambda n: StopReason.NOW)).best == ahead
    train(job)
    whole = elsewhere(job, "whole", resume=False)
    train(whole)
    assert differences(last_state(whole), last_state(job)) == []
    assert differences(best_weights(whole), best_weights(job)) == []


def test_a_long_epoch_is_kept_in_its_middle(
    data: Mapping[bool, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    job = make_job(data[False], tmp_path / "output", hyperparameters=EVERYTHING)
    with pytest.raises(KeyboardInterrupt):
        train(job, Dies(lambda reporter: len(reporter.progressed) == 4))
    assert last_state(job)["place"]["step"] == 3
    train(changed(job, resume=True))
    train(elsewhere(job, "whole"))
    assert differences(last_state(elsewhere(job, "whole")), last_state(job)) == []
