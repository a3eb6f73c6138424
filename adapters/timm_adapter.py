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
from typing import Any

import timm
import torch

from adapters.checkpoints import remove_leftovers
from adapters.contract import ErrorKind, Reporter, Result, TrainingJob
from adapters.data.imagefolder import read
from adapters.failures import as_training_error
from adapters.timm_training.build import Parts, build
from adapters.timm_training.data import Loader, Samples, make_transforms
from adapters.timm_training.loop import Training
from adapters.timm_training.plan import Plan, make_plan
from adapters.timm_training.randomness import repeatable
from adapters.timm_training.state import BEST, LAST, Place, read_last, restore


class TimmAdapter:
    """Trains timm's models on image folders."""

    framework = "timm"

    def train(self, job: TrainingJob, reporter: Reporter) -> Result:
        """Train one attempt; see :class:`adapters.contract.Adapter`."""
        try:
            plan = make_plan(job, read(job.dataset_path))
            with repeatable(plan.device):
                return _train(plan, reporter)
        except Exception as error:
            told = as_training_error(error, job)
            if told is error:
                raise
            if told.kind in (ErrorKind.FRAMEWORK, ErrorKind.DEVICE):
                traceback.print_exception(error)  # into the job's log, which the hint speaks of
            raise told from error


def _train(plan: Plan, reporter: Reporter) -> Result:
    if plan.device.type == "cuda":
        torch.cuda.set_device(plan.device)
    checkpoints = plan.job.checkpoints_dir
    checkpoints.mkdir(parents=True, exist_ok=True)
    remove_leftovers(checkpoints)
    kept = _kept_state(plan, reporter)
    if kept is not None:
        plan = _continued(plan, kept, reporter)
    parts = build(plan, reporter, load_pretrained=kept is None)
    place = Place()
    if kept is not None:
        place = restore(kept, parts=parts)
        _tell_again(plan, place, reporter)
        del kept  # as large as the model and its optimizer
    _tell_plan(plan, parts, reporter)
    with closing(_loader(plan, parts)) as loader:
        return Training(plan, parts, loader, place=place, reporter=reporter).run()


def _kept_state(plan: Plan, reporter: Reporter) -> dict[str, Any] | None:
    """Return the checkpoint to go on from, or None where the job begins."""
    last = plan.job.checkpoints_dir / LAST
    if plan.job.resume and last.exists():
        return read_last(last, plan=plan, reporter=reporter)
    if plan.job.resume:
        reporter.log(f"no checkpoint at {last}: training from the beginning")
    # Else a later attempt could go on from what this one has nothing to do with.
    for name in (LAST, BEST):
        (plan.job.checkpoints_dir / name).unlink(missing_ok=True)
    return None


def _continued(plan: Plan, kept: dict[str, Any], reporter: Reporter) -> Plan:
    """Return the plan with what a continuation takes over to get the same numbers."""
    if kept["device"] != plan.device.type:
        reporter.log(f"continuing on {plan.device.type} what began on {kept['device']}")
        return plan
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
    splits = ", ".join(f"{len(images)} {split}" for split, images in plan.data.splits.items())
    reporter.log(
        f"timm {timm.__version__}, torch {torch.__version__} on {plan.device}: "
        f"{plan.job.model_name}, {parameters / 1e6:.2f} million parameters"
        + (f" ({trained / 1e6:.2f} trained)" if trained != parameters else "")
    )
    reporter.log(
        f"{len(plan.data.classes)} classes, images: {splits}; "
        f"input {'x'.join(map(str, parts.data_config['input_size']))}, {plan.precision}, "
        f"{plan.optimizer}, {plan.order.train_steps} steps an epoch, "
        f"{plan.workers} loader processes, {torch.get_num_threads()} threads"
    )


def _loader(plan: Plan, parts: Parts) -> Loader:
    transforms = make_transforms(plan.hyperparameters, parts.data_config)
    return Loader(
        Samples(plan.data.splits, transforms=transforms, seed=plan.job.seed),
        workers=plan.workers,
        device=plan.device,
        data_config=parts.data_config,
    )
