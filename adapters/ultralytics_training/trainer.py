"""Ultralytics' trainers with our checkpoints, data and weights in place of their own.

The training loop, losses, optimizers, schedules, augmentation and validation are the library's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import adapters.ultralytics_training.offline as offline
from adapters.contract import ACCURACY_METRIC, Best, ErrorKind, TaskType, TrainingError
from adapters.ranks import Rank
from adapters.ultralytics_training.checkpoint import (
    STATE_KEY,
    inference_content,
    random_states,
    restore_mosaic_buffer,
    resumable_content,
    set_random_states,
    write_checkpoint,
)
from adapters.ultralytics_training.loader import (
    begin_at,
    make_resumable,
    make_sequential,
    watching_scan,
)
from adapters.ultralytics_training.metrics import accuracy
from adapters.ultralytics_training.models import RTDETR, PackagedModel
from adapters.ultralytics_training.speed import order_memory
from adapters.ultralytics_training.weights import load_pretrained

# isort: split
from ultralytics.data import ClassificationDataset
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.models.rtdetr.train import RTDETRTrainer
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer
from ultralytics.models.yolo.semantic import SemanticSegmentationTrainer
from ultralytics.utils import IterableSimpleNamespace
from ultralytics.utils.callbacks import get_default_callbacks
from ultralytics.utils.torch_utils import get_torch_device_backend, init_seeds, unwrap_model

EPOCH_METRICS = "on_epoch_metrics"  # our callback: an epoch is measured, not yet in a checkpoint


@dataclass(frozen=True)
class Plan:
    """What a trainer is to train, and where it puts what."""

    model: PackagedModel
    data: Mapping[str, Any]  # what Ultralytics calls so: see view.write_view
    arguments: Mapping[str, Any]  # Ultralytics' own
    checkpoints: Path
    weights: Path | None = None  # of the same architecture, to begin with
    resume: Mapping[str, Any] | None = None  # a checkpoint to go on from
    callbacks: Mapping[str, Callable[[Any], None]] = field(default_factory=dict)
    still_wanted: Callable[[], None] = lambda: None  # called as images are looked at; may raise
    rank: Rank = field(default_factory=Rank)


class CheckpointingTrainer(BaseTrainer):  # type: ignore[misc]
    """Trains as planned; ``best_epoch`` and ``epochs_completed`` tell how far it is.

    Mixed into a task's trainer of the library, in front of it.
    """

    args: IterableSimpleNamespace
    wdir: Path
    tloss: Any
    world_size: int

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.rank = plan.rank
        self.best_epoch: Best | None = None
        self.epochs_completed = 0
        self._carried: Mapping[str, Any] | None = None
        self._states_before_validation: dict[str, Any] | None = None
        callbacks = get_default_callbacks()
        for event, callback in plan.callbacks.items():
            callbacks[event].append(callback)
        offline.keep_threads()
        super().__init__(overrides=dict(plan.arguments), _callbacks=callbacks)
        if self.rank.total > 1:
            self.world_size = self.rank.total  # on a CPU the library counts none
        if self.rank.number == 0:
            self.wdir.rmdir()  # the library's own folder for checkpoints
        self.wdir = plan.checkpoints
        self.last, self.best = self.wdir / "last.pt", self.wdir / "best.pt"

    def _setup_ddp(self) -> None:
        """Take the device of this rank, which has met the others already."""
        self.device = torch.device(self.rank.device)
        if self.device.type == "cuda":
            self.accelerator = get_torch_device_backend(self.device)

    def check_resume(self, overrides: dict[str, Any]) -> None:
        """Take the arguments from the job, never from a checkpoint."""
        self.resume = self._plan.resume is not None

    def get_dataset(self) -> dict[str, Any]:
        """Return the checked data set; no file that a user wrote is read as YAML or run."""
        one_class = {"nc": 1, "names": {0: "item"}} if self.args.single_cls else {}
        return {**self._plan.data, **one_class, "yaml_file": self.args.data}

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """Return the library's dataset of a split, or say what is wrong with the data."""
        try:
            with watching_scan(self._plan.still_wanted):
                return super().build_dataset(img_path, mode, batch)
        except (FileNotFoundError, ValueError, RuntimeError) as error:
            message = f"The data set's split '{mode}' cannot be trained on: {error}"
            hint = "Look at the problems on the data set's page, mend them and check it again."
            raise TrainingError(ErrorKind.DATASET_INVALID, message, hint=hint) from error

    def setup_model(self) -> Mapping[str, Any] | None:
        """Build the packaged architecture, with pretrained weights where the job wants them."""
        model = self.get_model(cfg=self._plan.model.config(), verbose=False)
        if self._plan.resume is not None:
            # Pretrained weights of more classes left a wider head; the weights themselves follow.
            model.load(self._plan.resume["ema"], verbose=False)
        elif self._plan.weights is not None:
            model.load(load_pretrained(self._plan.weights, model))
        self.model = order_memory(model, self.device)
        return self._plan.resume

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Scale the images as the library does, in the order that the model computes in."""
        batch = super().preprocess_batch(batch)
        batch["img"] = order_memory(batch["img"], self.device)
        return batch

    def get_dataloader(
        self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train"
    ) -> Any:
        """Return the library's loader, for training one that can begin anywhere."""
        loader = super().get_dataloader(dataset_path, batch_size, rank, mode)
        if mode != "train":
            return make_sequential(loader)
        return make_resumable(loader, seed=self.args.seed, rank=self.rank)

    def resume_training(self, ckpt: Mapping[str, Any] | None) -> None:
        """Go on where a checkpoint ends; the library's own way begins from the averaged model."""
        if ckpt is None:
            return
        state = ckpt[STATE_KEY]
        try:
            self._load_checkpoint_state(ckpt)
            unwrap_model(self.model).load_state_dict(state["model"])
        except (RuntimeError, ValueError, KeyError) as error:
            message = f"The checkpoint is not one of this job: {error}"
            hint = "Clone the job and start the clone: it trains from the beginning."
            raise TrainingError(ErrorKind.CHECKPOINT_INVALID, message, hint=hint) from error
        self.start_epoch = self.epochs_completed = ckpt["epoch"] + 1
        self.best_epoch = Best(**state["best"]) if state["best"] else None
        self._set_criterion()

    def _set_criterion(self) -> None:
        """Make the loss, with the balance between two heads, if there are two, of the epoch."""
        model = unwrap_model(self.model)
        model.criterion = model.init_criterion()
        if hasattr(model.criterion, "update"):
            model.criterion.updates = self.start_epoch - 1
            model.criterion.update()

    def restore_place(self) -> None:
        """Put loader and random states where they were; called when nothing draws any more."""
        if self._plan.resume is None:
            return
        state = self._plan.resume[STATE_KEY]
        # Another batch size where memory ran out: the same images are trained already.
        trained = state["batches"] * self._plan.resume["train_args"]["batch"]
        batch = trained // self.args.batch
        begin_at(self.train_loader, epoch=self.start_epoch, batch=batch)
        if self.rank.total > 1:  # the states are rank 0's: draws of their own for each
            init_seeds(self.args.seed + 1 + self.rank.number + 1009 * (self.start_epoch + batch))
        else:
            restore_mosaic_buffer(self.train_loader, state["mosaic_buffer"])
            set_random_states(state["random"], self.device)
        self._carried = state["losses"] and self._plan.resume

    def carry_over(self) -> None:
        """Take up the mean loss and the learning rates of an epoch that was interrupted."""
        if not self._carried:
            return
        checkpoint, self._carried = self._carried, None
        losses = checkpoint[STATE_KEY]["losses"]
        self.tloss = {k: torch.tensor(v, device=self.device) for k, v in losses.items()}
        # What validation reads where the interruption came after the last batch.
        self.loss_items, self.loss = self.tloss, sum(self.tloss.values())
        groups = checkpoint["optimizer"]["param_groups"]
        for group, saved in zip(self.optimizer.param_groups, groups, strict=True):
            group["lr"] = saved["lr"]

    def save_model(self) -> bool:
        """Report the epoch's metrics, then write last.pt, and best.pt where it is the fittest.

        In this order a kill in between repeats the epoch; the other order would lose its metrics.
        """
        self._mend_average()
        self._states_before_validation = None
        self.epochs_completed = self.epoch + 1
        is_best = self.best_fitness == self.fitness
        if is_best:
            task = self._plan.model.task_type
            value = accuracy(self.metrics, task)
            self.best_epoch = Best(self.epoch + 1, metric=ACCURACY_METRIC[task], value=value)
        self.run_callbacks(EPOCH_METRICS)
        if is_best:
            write_checkpoint(inference_content(self), self.best)
        write_checkpoint(resumable_content(self, epoch=self.epoch), self.last)
        return True

    def save_midway(self, batches: int) -> bool:
        """Write last.pt after some batches of an epoch; return whether there was something new."""
        if (
            self.rank.number
            or not batches
            or (self.loss is not None and not torch.isfinite(self.loss))
        ):
            return False
        content = resumable_content(
            self,
            epoch=self.epoch - 1,
            batches=batches,
            losses={name: float(value) for name, value in (self.tloss or {}).items()},
            states=self._states_before_validation,
        )
        write_checkpoint(content, self.last)
        return True

    def begin_validation(self) -> None:
        """Note the random states: a validation that is broken off is done again from here."""
        self._states_before_validation = random_states(self.device)

    def _mend_average(self) -> None:
        """Take from the model what a passing NaN has spoilt in its average for good."""
        own = unwrap_model(self.model).state_dict()
        for name, average in self.ema.ema.state_dict().items():
            if not torch.isfinite(average).all() and torch.isfinite(own[name]).all():
                average.copy_(own[name])

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """Go back to the last checkpoint as the library does, or fail where there is none."""
        try:
            recovered: bool = super()._handle_nan_recovery(epoch)
        except RuntimeError as error:
            raise nan_loss(epoch + 1) from error
        self._states_before_validation = None
        if not recovered and self.loss is not None and not torch.isfinite(self.loss):
            raise nan_loss(epoch + 1)
        return recovered

    def final_eval(self) -> None:
        """Leave the checkpoints as they are: each epoch was validated, best.pt is written."""

    def close_loaders(self) -> None:
        """End the loader processes, also after a stop or an error in the middle of an epoch."""
        for name in ("train_loader", "test_loader"):
            loader = getattr(self, name, None)
            if loader is not None:
                loader.close()


class _Detection(CheckpointingTrainer, DetectionTrainer):  # type: ignore[misc]
    """Trains YOLO detectors."""


class _Transformer(CheckpointingTrainer, RTDETRTrainer):  # type: ignore[misc]
    """Trains RT-DETR."""


class _Segmentation(CheckpointingTrainer, SegmentationTrainer):  # type: ignore[misc]
    """Trains instance segmentation."""


class _Pose(CheckpointingTrainer, PoseTrainer):  # type: ignore[misc]
    """Trains pose estimation."""


class _Oriented(CheckpointingTrainer, OBBTrainer):  # type: ignore[misc]
    """Trains detection of oriented boxes."""


class _Semantic(CheckpointingTrainer, SemanticSegmentationTrainer):  # type: ignore[misc]
    """Trains semantic segmentation."""


class _Classification(CheckpointingTrainer, ClassificationTrainer):  # type: ignore[misc]
    """Trains classification; its folders are numbers, so no name of a class is a path."""

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        with watching_scan(self._plan.still_wanted):
            return ClassificationDataset(
                img_path, self.args, augment=mode == "train", prefix=mode, names=None
            )


_TRAINERS: dict[TaskType, type[CheckpointingTrainer]] = {
    TaskType.OBJECT_DETECTION: _Detection,
    TaskType.INSTANCE_SEGMENTATION: _Segmentation,
    TaskType.POSE_ESTIMATION: _Pose,
    TaskType.ORIENTED_DETECTION: _Oriented,
    TaskType.SEMANTIC_SEGMENTATION: _Semantic,
    TaskType.IMAGE_CLASSIFICATION: _Classification,
}


def make_trainer(plan: Plan) -> CheckpointingTrainer:
    """Return the trainer of a plan's model."""
    kind = _Transformer if plan.model.head == RTDETR else _TRAINERS[plan.model.task_type]
    return kind(plan)


def nan_loss(epoch: int) -> TrainingError:
    """Return the error of a loss that is no number and stays so."""
    hint = "Clone the job with a smaller learning rate, or with precision fp32."
    return TrainingError(
        ErrorKind.NAN_LOSS, f"The loss is no longer a number in epoch {epoch}.", hint=hint
    )
