"""What follows training: the best model's evaluation and its model card.

The job is completed already: nothing that goes wrong here is a failure of it. A line in the log
says what is missing and why.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from adapters import model_card
from adapters.contract import Adapter, AdapterError, Reporter, Result, StopReason, TrainingJob
from adapters.data.content import Content
from adapters.data.reading import read_for
from adapters.evaluation.run import Stopped, evaluate

EVALUATION_SHARE = 0.1  # of the time that training took, at most
LEAST_SECONDS = 60.0  # that an evaluation may take, however short the training was


class RememberingReporter:
    """Passes on what an adapter reports and keeps what the model card tells of it."""

    def __init__(self, reporter: Reporter, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._reporter = reporter
        self._clock = clock
        self._began = clock()
        self.decisions: dict[str, tuple[float | str, str]] = {}  # name: value and why
        self.metrics_by_epoch: dict[int, dict[str, float]] = {}

    @property
    def seconds(self) -> float:
        """Return for how long it has listened."""
        return self._clock() - self._began

    def progress(self, **told: Any) -> None:
        self._reporter.progress(**told)

    def metrics(self, *, epoch: int, values: Mapping[str, float], step: int | None = None) -> None:
        self.metrics_by_epoch.setdefault(epoch, {}).update(values)
        self._reporter.metrics(epoch=epoch, values=values, step=step)

    def decided(self, name: str, value: float | str, *, why: str) -> None:
        self.decisions[name] = (value, why)
        self._reporter.decided(name, value, why=why)

    def artifact(self, path: Path, *, kind: str) -> None:
        self._reporter.artifact(path, kind=kind)

    def log(self, line: str) -> None:
        self._reporter.log(line)

    def should_stop(self) -> StopReason | None:
        return self._reporter.should_stop()


def finish(
    job: TrainingJob, adapter: Adapter, result: Result, reporter: RememberingReporter
) -> None:
    """Evaluate the best model of a job that was trained to its end, and write its model card.

    Raises nothing: what cannot be done is told in the log.
    """
    training_seconds = reporter.seconds
    _free_memory()
    content, evaluated = None, False
    try:
        content = read_for(job)
        evaluated = _evaluate(job, adapter, result, content, reporter, training_seconds)
    except Stopped:
        reporter.log("The evaluation was left off: the job is asked to end.")
    except Exception as error:
        _tell("evaluation", error, reporter)
    try:
        card = model_card.Card(
            job=job,
            result=result,
            content=content,
            evaluated=evaluated,
            decisions=reporter.decisions,
            metrics=reporter.metrics_by_epoch,
            training_seconds=training_seconds,
        )
        reporter.artifact(card.write(), kind="model_card")
    except Exception as error:
        _tell("model card", error, reporter)


def _evaluate(
    job: TrainingJob,
    adapter: Adapter,
    result: Result,
    content: Content,
    reporter: RememberingReporter,
    training_seconds: float,
) -> bool:
    def on_progress(done: int, total: int) -> None:
        if reporter.should_stop() is not None:
            raise Stopped
        reporter.progress(epoch=result.epochs_completed, step=done, steps=total, phase="evaluate")

    if result.best_model_path is None:
        reporter.log("There is no evaluation: training has left no best model.")
        return False
    began = time.monotonic()
    files = evaluate(
        job,
        content=content,
        predictor=adapter.load(job),
        seconds=max(LEAST_SECONDS, EVALUATION_SHARE * training_seconds),
        on_progress=on_progress,
    )
    for path in files:
        reporter.artifact(path, kind="evaluation")
    reporter.log(f"The best model was evaluated in {time.monotonic() - began:.1f} s.")
    return True


def _free_memory() -> None:
    """Let go of what training held, before the best model is loaded beside it."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _tell(what: str, error: Exception, reporter: Reporter) -> None:
    kind = "" if isinstance(error, AdapterError | OSError) else f"{type(error).__name__}: "
    reporter.log(f"There is no {what}: {kind}{error}")
