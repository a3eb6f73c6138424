"""Image classification with timm.

Built from timm's own parts; this package adds reporting, stopping, exact continuation and speed.
Importing it starts no thread and computes nothing, so that children can be forked from a process
that has it loaded.
"""

from __future__ import annotations

import dataclasses
import os
import traceback
from contextlib import closing
from functools import partial
from typing import Any

import timm
import torch

from adapters.checkpoints import remove_leftovers
from adapters.contract import ErrorKind, Reporter, Result, TrainingJob
from adapters.data.reading import read_for
from adapters.devices import train_on_devices
from adapters.failures import as_training_error
from adapters.place import Place
from adapters.prediction import Predictor
from adapters.randomness import repeatable
from adapters.ranks import Rank, devices_of
from adapters.timm_training.best import BEST
from adapters.timm_training.build import Parts, build
from adapters.timm_training.data import Loader, Samples, make_transforms
from adapters.timm_training.loop import Training
from adapters.timm_training.plan import Plan, check_task, make_plan
from adapters.timm_training.predictor import TimmPredictor
from adapters.timm_training.state import LAST, adopt_best, read_last, restore
from adapters.timm_training.trial import choose_batch_size


class TimmAdapter:
    """Trains timm's models to classify images, of one class each or of any number."""

    framework = "timm"

    def train(self, job: TrainingJob, reporter: Reporter) -> Result:
        """Train one attempt; see :class:`adapters.contract.Adapter`."""
        try:
            check_task(job)
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
        """Load a job's best model; see :class:`adapters.contract.Adapter`."""
        return TimmPredictor(job.checkpoints_dir / BEST, device=devices_of(job.compute_device)[0])


def _find_batch_size(job: TrainingJob, ranks: int, rank: Rank, reporter: Reporter) -> int:
    """Return the batch size that a job goes on with, or the largest that fits."""
    plan = make_plan(job, read_for(job), rank=rank)
    kept = _kept_state(plan, reporter)
    if kept is not None:
        return int(kept["batch_size"])
    with repeatable(plan.device):
        return choose_batch_size(plan, reporter, ranks=ranks)


def _attempt(
    job: TrainingJob, rank: Rank, reporter: Reporter, *, batch_size: int | None = None
) -> Result:
    """Train on one device, alone or as a rank among others."""
    plan = make_plan(job, read_for(job), rank=rank)
    if batch_size:
        plan = plan.with_batch_size(batch_size)
    with repeatable(plan.device):
        return _train_plan(plan, reporter)


def _train_plan(plan: Plan, reporter: Reporter) -> Result:
    if plan.device.type == "cuda":
        torch.cuda.set_device(plan.device)
    kept = plan.rank.first(partial(_kept_state, plan, reporter))
    if kept is not None:
        plan = _continued(plan, kept, reporter)
    parts = build(plan, reporter, load_weights=kept is None)
    place = Place()
    if kept is not None:
        place = restore(kept, plan=plan, parts=parts)
        adopt_best(place, plan=plan)
        _tell_again(plan, place, reporter)
        del kept  # as large as the model and its optimizer
    _tell_plan(plan, parts, reporter)
    with closing(_loader(plan, parts)) as loader:
        return Training(plan, parts, loader, place=place, reporter=reporter).run()


def _kept_state(plan: Plan, reporter: Reporter) -> dict[str, Any] | None:
    """Return the checkpoint to go on from, or None where the job begins."""
    checkpoints = plan.job.checkpoints_dir
    checkpoints.mkdir(parents=True, exist_ok=True)
    remove_leftovers(checkpoints)
    last = checkpoints / LAST
    if plan.job.resume and last.exists():
        return read_last(last, plan=plan, reporter=reporter)
    if plan.job.resume:
        reporter.log(f"no checkpoint at {last}: training from the beginning")
    # Else a later attempt could go on from what this one has nothing to do with.
    for name in (LAST, BEST):
        (checkpoints / name).unlink(missing_ok=True)
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


def _tell_again(plan: Plan, place: Place, reporter: Reporter) -> None:
    """Report the last epoch that the checkpoint knows, which may have died on its way out."""
    reporter.log(f"going on in epoch {place.epoch} after step {place.step}")
    if place.metrics:
        reporter.metrics(epoch=place.epochs_completed, values=place.metrics)
    for name in (LAST, BEST):
        path = plan.job.checkpoints_dir / name
        if path.exists():
            reporter.artifact(path, kind="checkpoint")


def _tell_plan(plan: Plan, parts: Parts, reporter: Reporter) -> None:
    parameters = sum(p.numel() for p in parts.model.parameters())
    trained = sum(p.numel() for p in parts.model.parameters() if p.requires_grad)
    several = "any number of them an image, " if plan.multi_label else ""
    splits = ", ".join(f"{len(images)} {split}" for split, images in plan.data.splits.items())
    reporter.log(
        f"timm {timm.__version__}, torch {torch.__version__} on {plan.job.compute_device}: "
        f"{plan.job.model_name}, {parameters / 1e6:.2f} million parameters"
        + (f" ({trained / 1e6:.2f} trained)" if trained != parameters else "")
    )
    reporter.log(
        f"{len(plan.data.classes)} classes, {several}images: {splits}; "
        f"input {'x'.join(map(str, parts.data_config['input_size']))}, {plan.precision}, "
        f"{plan.optimizer}, {plan.order.train_steps} steps an epoch of {plan.batch_size} images, "
        f"{plan.workers} loader processes, {torch.get_num_threads()} threads"
    )


def _loader(plan: Plan, parts: Parts) -> Loader:
    transforms = make_transforms(plan.hyperparameters, parts.data_config)
    return Loader(
        Samples(plan.data, transforms=transforms, seed=plan.job.seed),
        workers=plan.workers,
        device=plan.device,
        data_config=parts.data_config,
    )
