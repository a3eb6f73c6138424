"""Ultralytics: every task it trains, on any data set, through its own trainers and callbacks.

A job that is stopped writes a checkpoint in the middle of its epoch and, resumed, goes on with
the next batch. On a CPU it then ends with the same weights as if it had never stopped (with ``nbs``
left alone); loader processes of a GPU host see the same images, augmented otherwise. A killed job
repeats what came after its last checkpoint: one is written each epoch, and every ten minutes in a
long one. The best epoch is the one with the highest fitness, as the library has it.
docs/ultralytics.md tells more.
"""

from __future__ import annotations

import dataclasses
import importlib
import shutil
import threading
import time
import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

import adapters.ultralytics_training.offline as offline
from adapters.batch_size import shrinking
from adapters.checkpoints import remove_leftovers
from adapters.contract import Best, ContractError, ErrorKind, Reporter, Result, TrainingJob
from adapters.data.content import Content
from adapters.data.description import DatasetError
from adapters.prediction import Predictor
from adapters.ranks import Rank, devices_of, on_ranks
from adapters.ultralytics_training.checkpoint import STATE_KEY
from adapters.ultralytics_training.errors import as_training_error, short_memory_told
from adapters.ultralytics_training.metrics import validation_loss
from adapters.ultralytics_training.models import RTDETR
from adapters.ultralytics_training.parallel import tell_library
from adapters.ultralytics_training.plan import (
    DATA_YAML,
    PRECISIONS,
    check_job,
    decide_precision,
    invalid_data,
    library_arguments,
    read_content,
    read_resume,
    trim_results,
)
from adapters.ultralytics_training.predictor import load_predictor
from adapters.ultralytics_training.report import StopNow, TrainerReport
from adapters.ultralytics_training.sizing import fitting_batch_size
from adapters.ultralytics_training.trainer import CheckpointingTrainer, Plan, make_trainer
from adapters.ultralytics_training.view import described, write_description, write_view
from adapters.ultralytics_training.weights import initial_file, pretrained_file

_PLOT_SECONDS = 60.0  # the longest wait for a drawing thread


class UltralyticsAdapter:
    """Trains YOLO and RT-DETR models."""

    framework = "ultralytics"

    def train(self, job: TrainingJob, reporter: Reporter) -> Result:
        """Train one attempt; see :class:`adapters.contract.Adapter`."""
        if job.output_dir is None or job.weights_dir is None:
            raise ContractError(f"job {job.id} has no output_dir: call placed() first")
        with offline.library_log(reporter.log):
            try:
                check_job(job)
                devices = devices_of(job.compute_device)
                if len(devices) == 1:
                    return _Attempt(job, reporter, Rank(devices[0])).run()
                work = partial(_train_as, job)
                return on_ranks(work, job=job, reporter=reporter, devices=devices)
            except Exception as error:
                failure = as_training_error(error, job)
                if failure.kind is ErrorKind.FRAMEWORK:
                    for line in traceback.format_exc().splitlines():
                        reporter.log(line)
                raise failure from error

    def load(self, job: TrainingJob) -> Predictor:
        """Load a job's best model for use; see :class:`adapters.contract.Adapter`."""
        return load_predictor(job)


def _train_as(job: TrainingJob, rank: Rank, reporter: Reporter) -> Result:
    """Be one of the processes that train a job together."""
    tell_library(rank)
    with offline.library_log(reporter.log):
        return _Attempt(job, reporter, rank).run()


class _Attempt:
    """One attempt, from the checked job to its result."""

    def __init__(self, job: TrainingJob, reporter: Reporter, rank: Rank) -> None:
        assert job.output_dir is not None
        self._job = job
        self._reporter = reporter
        self._rank = rank
        self._report = TrainerReport(job, reporter, clock=time.monotonic, rank=rank)
        self._folder = job.output_dir / "ultralytics"
        self._model, self._options = check_job(job)
        rtdetr = self._model.head == RTDETR
        self._precision, why = decide_precision(
            self._options.precision, job.compute_device, rtdetr=rtdetr
        )
        reporter.decided("precision", self._precision, why=why)
        self._resume = read_resume(job)
        self._weights: Path | None = None
        self._data: Mapping[str, Any] = {}
        self._train_images = 0
        self._trainer: CheckpointingTrainer | None = None

    def run(self) -> Result:
        if self._resume is not None and self._resume["epoch"] + 1 >= self._job.epochs:
            self._reporter.log("All epochs were trained before the interruption.")
            return self._result()
        try:
            self._prepare()
            if self._job.batch_size:
                self._train(self._job.batch_size)
            else:
                self._train_what_fits()
        except StopNow as stop:
            self._report.stopped = stop.reason
            if self._trainer is not None:
                self._report.save_midway(self._trainer)
        finally:
            self._close()
            if self._rank.number == 0:
                shutil.rmtree(self._view, ignore_errors=True)
        return self._result()

    def _prepare(self) -> None:
        """Make what the library reads: its view of the data set and the weights to begin with."""
        content = read_content(self._job, self._options)
        if self._rank.number == 0:
            self._write_files(content)
        self._rank.agree(None)  # the others find them
        self._data = described(content, self._view)
        self._train_images = len(content.splits["train"])
        if self._resume is None:
            self._weights = self._rank.first(self._first_weights)

    def _write_files(self, content: Content) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self._job.checkpoints_dir)
        if self._resume is None:
            (self._folder / "results.csv").unlink(missing_ok=True)
        self._tell_whether_resumed()
        try:
            write_view(content, self._view, still_wanted=self._report.check_stop)
        except DatasetError as error:
            raise invalid_data(error) from error
        write_description(content, self._folder / DATA_YAML)

    def _first_weights(self) -> Path | None:
        if self._job.initial_dir is not None:
            return initial_file(self._job)
        if self._job.pretrained:
            return pretrained_file(self._job, still_wanted=self._report.check_stop)
        return None

    def _train(self, batch_size: int) -> None:
        self._trainer = trainer = make_trainer(self._plan(batch_size))
        threads = set(threading.enumerate())
        with offline.plotting_folder(self._folder):
            if self._options.plots:
                importlib.import_module("matplotlib.pyplot")  # else the first drawing takes longer
            trainer.train()
            # Pictures are drawn in threads; a file is told of when it is whole.
            for thread in set(threading.enumerate()) - threads:
                thread.join(_PLOT_SECONDS)
        if self._rank.number == 0:
            self._tell_files()

    def _train_what_fits(self) -> None:
        """Train with the largest batch that fits, with a smaller one where it does not, after all.

        A resumed attempt takes the size of its checkpoint.
        """
        device = torch.device(self._job.compute_device)
        if self._resume is not None:
            size = int(self._resume["train_args"]["batch"])
        else:
            chosen = fitting_batch_size(self._plan, device=device, train_images=self._train_images)
            size = chosen.size
            self._reporter.decided("batch_size", size, why=chosen.why)

        def train(size: int) -> None:
            if self._trainer is not None:  # memory ran out: from the last checkpoint, if any
                self._close()
                self._trainer = None
                self._resume = read_resume(dataclasses.replace(self._job, resume=True))
            with short_memory_told():
                self._train(size)

        shrinking(train, size, reporter=self._reporter, device=device)

    def _close(self) -> None:
        if self._trainer is not None:
            self._trainer.close_loaders()

    @property
    def _view(self) -> Path:
        return self._folder / "data"

    def _plan(self, batch_size: int) -> Plan:
        return Plan(
            model=self._model,
            data=self._data,
            arguments=library_arguments(
                self._job,
                self._options,
                batch_size=batch_size,
                precision=PRECISIONS[self._precision],
                folder=self._folder,
                resuming=self._resume is not None,
            ),
            checkpoints=self._job.checkpoints_dir,
            weights=self._weights,
            resume=self._resume,
            callbacks=self._report.callbacks(),
            still_wanted=self._report.check_stop,
            rank=self._rank,
        )

    def _tell_whether_resumed(self) -> None:
        if self._resume is not None:
            epoch, batches = self._resume["epoch"] + 1, self._resume[STATE_KEY]["batches"]
            trim_results(self._folder / "results.csv", epochs=epoch)
            place = f"{batches} batches into epoch {epoch + 1}" if batches else f"epoch {epoch}"
            self._reporter.log(f"Going on from the checkpoint of {place}.")
        elif self._job.resume:
            self._reporter.log("There is no checkpoint to go on from: the job starts anew.")
        if (self._job.optimizer or "").lower() == "auto":
            rate = self._job.learning_rate
            self._reporter.log(f"Optimizer 'auto' picks a learning rate itself, not {rate:g}.")

    def _tell_files(self) -> None:
        for name in ("args.yaml", DATA_YAML):
            self._reporter.artifact(self._folder / name, kind="config")
        self._reporter.artifact(self._folder / "results.csv", kind="table")

    def _result(self) -> Result:
        trainer, checkpoints = self._trainer, self._job.checkpoints_dir
        best, completed, loss = _standing(self._resume)
        if trainer is not None and trainer.epochs_completed > completed:
            best, completed = trainer.best_epoch, trainer.epochs_completed
            loss = self._report.val_loss
        last_path, best_path = checkpoints / "last.pt", checkpoints / "best.pt"
        return Result(
            epochs_completed=completed,
            stopped=self._report.stopped,
            accuracy=None if best is None else best.value,
            loss=loss,
            best=best,
            best_model_path=str(best_path) if best is not None else None,
            last_checkpoint_path=str(last_path) if last_path.is_file() else None,
        )


def _standing(resume: Mapping[str, Any] | None) -> tuple[Best | None, int, float | None]:
    """Return the best epoch, the epochs done and the loss that a checkpoint tells of."""
    if resume is None:
        return None, 0, None
    best = resume[STATE_KEY]["best"]
    return (
        Best(**best) if best else None,
        resume["epoch"] + 1,
        validation_loss(resume["train_metrics"]) if resume["epoch"] >= 0 else None,
    )
