"""Image classification, object detection and semantic segmentation with transformers.

The library's Trainer trains; this package adds data, reporting, stopping and exact continuation.
Importing it starts no thread, touches no GPU and reaches for no network, so that children can be
forked from a process that has it loaded.
"""

from __future__ import annotations

import adapters.huggingface_training.offline as offline

# isort: split
import dataclasses
import os
import shutil
import traceback
from contextlib import closing
from functools import partial
from typing import Any

import torch
import transformers

from adapters.contract import ErrorKind, Reporter, Result, StopReason, TrainingJob
from adapters.data.reading import read_for
from adapters.devices import train_on_devices
from adapters.failures import as_training_error
from adapters.files import remove_leftovers
from adapters.huggingface_training.arguments import tell_library
from adapters.huggingface_training.augment import Augmentation
from adapters.huggingface_training.build import Parts, build, rebuild
from adapters.huggingface_training.data import Samples
from adapters.huggingface_training.plan import Plan, make_plan
from adapters.huggingface_training.predictor import load_predictor
from adapters.huggingface_training.pretrained import StoppedMeanwhile
from adapters.huggingface_training.state import BEST, LAST, read_last
from adapters.huggingface_training.trainer import ReportingTrainer
from adapters.huggingface_training.trial import choose_batch_size
from adapters.place import Place
from adapters.prediction import Predictor
from adapters.randomness import repeatable
from adapters.ranks import Rank


class HuggingFaceAdapter:
    """Trains transformers' vision models."""

    framework = "huggingface"

    def train(self, job: TrainingJob, reporter: Reporter) -> Result:
        """Train one attempt; see :class:`adapters.contract.Adapter`."""
        try:
            return train_on_devices(
                job, reporter, attempt=_attempt, find_batch_size=_find_batch_size
            )
        except Exception as error:
            told = as_training_error(error, job)
            if told is error:
                raise
            if told.kind in (ErrorKind.FRAMEWORK, ErrorKind.DEVICE):
                traceback.print_exception(error)  # into the job's log, which the hint speaks of
            raise told from error

    def load(self, job: TrainingJob) -> Predictor:
        """Load the best model of a job; see :class:`adapters.contract.Adapter`."""
        return load_predictor(job)


def _find_batch_size(job: TrainingJob, ranks: int, rank: Rank, reporter: Reporter) -> int:
    """Return the batch size that a job goes on with, or the largest that fits."""
    with offline.library_log(reporter.log):
        plan = make_plan(job, read_for(job), rank=rank)
        kept = _kept_state(plan, reporter)
        if kept is not None:
            return int(kept["chosen_batch_size"])
        with repeatable(plan.device):
            return choose_batch_size(plan, reporter, ranks=ranks)


def _attempt(
    job: TrainingJob, rank: Rank, reporter: Reporter, *, batch_size: int | None = None
) -> Result:
    """Train on one device, alone or as a rank among others."""
    if rank.total > 1:
        tell_library(rank)
    with offline.library_log(reporter.log):
        plan = make_plan(job, read_for(job), rank=rank)
        if batch_size:
            plan = plan.with_batch_size(batch_size)
        try:
            with repeatable(plan.device):
                return _train_plan(plan, reporter)
        except StoppedMeanwhile as stop:
            return Result(epochs_completed=0, stopped=stop.reason)


def _train_plan(plan: Plan, reporter: Reporter) -> Result:
    """Train with a batch size, from the last checkpoint where there is one."""
    if plan.device.type == "cuda":
        torch.cuda.set_device(plan.device)
    kept = plan.rank.first(partial(_kept_state, plan, reporter))
    if kept is None:
        parts, place = build(plan, reporter, load_weights=True), Place()
    else:
        plan = _continued(plan, kept, reporter)
        parts, place = rebuild(plan, kept), _place(plan, kept, reporter)
        _tell_again(plan, place, reporter)
    _tell_plan(plan, parts, reporter)
    augmentation = Augmentation(
        plan.hyperparameters, task_type=plan.job.task_type, image_size=plan.image_size
    )
    samples = Samples(plan.content, augmentation=augmentation, seed=plan.job.seed)
    trainer = ReportingTrainer(plan, parts, samples, place=place, kept=kept, reporter=reporter)
    with closing(trainer):
        trainer.run()
    return _result(plan, parts, place, stopped=trainer.stopped)


def _kept_state(plan: Plan, reporter: Reporter) -> dict[str, Any] | None:
    """Return the checkpoint to go on from, or None where the job begins."""
    checkpoints = plan.job.checkpoints_dir
    checkpoints.mkdir(parents=True, exist_ok=True)
    remove_leftovers(checkpoints)
    for leftover in checkpoints.glob(".best-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    last = checkpoints / LAST
    if plan.job.resume and last.exists():
        return read_last(last, plan=plan, reporter=reporter)
    if plan.job.resume:
        reporter.log(f"no checkpoint at {last}: training from the beginning")
    # Else a later attempt could go on from what this one has nothing to do with.
    last.unlink(missing_ok=True)
    shutil.rmtree(checkpoints / BEST, ignore_errors=True)
    return None


def _continued(plan: Plan, kept: dict[str, Any], reporter: Reporter) -> Plan:
    """Return the plan with what a continuation takes over to get the same numbers."""
    if kept["device"] != plan.device.type:
        reporter.log(f"continuing on {plan.device.type} what began on {kept['device']}")
        return plan
    if kept["ranks"] != plan.rank.total:
        reporter.log(f"began on {kept['ranks']} devices, {plan.rank.total} here: last bits differ")
    threads, cores = kept["threads"], len(os.sched_getaffinity(0))
    if plan.device.type == "cpu" and threads != torch.get_num_threads():
        # Sums are split among the threads, so their number shows in the last bits.
        if threads <= cores:
            torch.set_num_threads(threads)
        else:
            reporter.log(f"began with {threads} threads, {cores} cores here: last bits may differ")
    return dataclasses.replace(plan, precision=kept["precision"])


def _place(plan: Plan, kept: dict[str, Any], reporter: Reporter) -> Place:
    """Return where a checkpoint was made; with another batch size, the beginning of its epoch."""
    place = Place(**kept["place"])
    if kept["chosen_batch_size"] == plan.batch_size:
        return place
    reporter.log(f"beginning epoch {place.epoch} anew with batches of {plan.batch_size}")
    place.step = place.images = 0
    place.loss_sum = place.seconds = 0.0
    place.updates = (place.epoch - 1) * plan.updates_per_epoch
    kept["scheduler"]["last_epoch"] = place.updates
    return place


def _tell_again(plan: Plan, place: Place, reporter: Reporter) -> None:
    """Report the last epoch that the checkpoint knows, which may have died on its way out."""
    reporter.log(f"going on in epoch {place.epoch} after step {place.step}")
    if place.metrics:
        reporter.metrics(epoch=place.epochs_completed, values=place.metrics)
    folder = plan.job.checkpoints_dir
    for path in (folder / LAST, *sorted((folder / BEST).glob("*"))):
        reporter.artifact(path, kind="checkpoint")


def _tell_plan(plan: Plan, parts: Parts, reporter: Reporter) -> None:
    parameters = sum(p.numel() for p in parts.model.parameters())
    trained = sum(p.numel() for p in parts.model.parameters() if p.requires_grad)
    splits = ", ".join(f"{len(images)} {split}" for split, images in plan.content.splits.items())
    reporter.log(
        f"transformers {transformers.__version__}, torch {torch.__version__} on "
        f"{plan.job.compute_device}: "
        f"{plan.job.model_name}, {parameters / 1e6:.2f} million parameters"
        + (f" ({trained / 1e6:.2f} trained)" if trained != parameters else "")
    )
    reporter.log(
        f"{len(plan.content.classes)} classes, images: {splits}; input {plan.image_size} pixels, "
        f"{plan.precision}, {plan.optimizer}, {plan.steps} batches of {plan.batch_size} an epoch, "
        f"{plan.workers} loader processes, {torch.get_num_threads()} threads"
    )


def _result(plan: Plan, parts: Parts, place: Place, *, stopped: StopReason | None) -> Result:
    best = place.best(parts.task.best_metric)
    folder = plan.job.checkpoints_dir
    last = folder / LAST
    return Result(
        epochs_completed=place.epochs_completed,
        stopped=stopped,
        accuracy=best.value if best else None,
        loss=place.val_loss,
        best=best,
        best_model_path=str(folder / BEST) if best else None,
        last_checkpoint_path=str(last) if last.exists() else None,
    )
