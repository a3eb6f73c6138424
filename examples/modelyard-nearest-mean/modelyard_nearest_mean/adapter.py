"""Learning vector quantization (Kohonen's LVQ1), one prototype a class: begun as its mean image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from adapters.contract import (
    Best,
    ErrorKind,
    Reporter,
    Result,
    StopReason,
    TrainingError,
    TrainingJob,
)
from adapters.data.reading import read_for
from adapters.files import write_atomically
from adapters.images import open_rgb
from adapters.prediction import Network, Prediction
from modelyard_nearest_mean.info import SIZES, NearestMeanHyperparameters


class NearestMeanAdapter:
    """Moves the nearest prototype towards each image of its class, and away from any other."""

    framework = "nearest-mean"

    def train(self, job: TrainingJob, reporter: Reporter) -> Result:
        options = NearestMeanHyperparameters.model_validate(job.hyperparameters)
        content, side = read_for(job), SIZES[job.model_name]
        x, val_x = (
            _pixels([open_rgb(sample.image) for sample in content.splits[split]], side)
            for split in ("train", "val")
        )
        y, val_y = (
            np.array([sample.classes[0] for sample in content.splits[split]])
            for split in ("train", "val")
        )
        last, best_path = job.checkpoints_dir / "last.npz", job.checkpoints_dir / "best.npz"
        state = {"means": np.stack([x[y == c].mean(0) for c in range(len(content.classes))]),
                 "classes": np.array(content.classes), "epoch": 0, "best": (0, -1.0)}  # fmt: skip
        if job.resume and last.exists():
            state = dict(np.load(last, allow_pickle=False))
        means, loss = state["means"], None
        for epoch in range(int(state["epoch"]) + 1, job.epochs + 1):
            order = np.random.default_rng((job.seed, epoch)).permutation(len(x))
            for step, i in enumerate(order, start=1):
                nearest = int(_scores(means, x[i : i + 1]).argmax())
                share = job.learning_rate * (1 if nearest == y[i] else -options.push)
                means[nearest] += share * (x[i] - means[nearest])
                reporter.progress(epoch=epoch, step=step, steps=len(x))
                if reporter.should_stop() not in (None, StopReason.AFTER_EPOCH):
                    return Result(epoch - 1, stopped=reporter.should_stop())  # last.npz is there
            scores = _scores(means, val_x)
            loss = float(-np.log(scores[np.arange(len(val_y)), val_y] + 1e-9).mean())
            top1 = float((scores.argmax(1) == val_y).mean())
            reporter.metrics(epoch=epoch, values={"val_loss": loss, "top1": top1})
            state["epoch"] = epoch
            if top1 > state["best"][1]:
                state["best"] = (epoch, top1)
                _keep(best_path, state, reporter)
            _keep(last, state, reporter)
            if reporter.should_stop() is not None and epoch < job.epochs:
                return Result(epoch, stopped=reporter.should_stop())
        best = Best(int(state["best"][0]), "top1", float(state["best"][1]))
        return Result(job.epochs, accuracy=best.value, loss=loss, best=best,
                      best_model_path=str(best_path), last_checkpoint_path=str(last))  # fmt: skip

    def load(self, job: TrainingJob) -> NearestMeans:
        try:
            kept = np.load(job.checkpoints_dir / "best.npz", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise TrainingError(ErrorKind.CHECKPOINT_INVALID, f"No best model: {error}") from error
        return NearestMeans(tuple(map(str, kept["classes"])), kept["means"], SIZES[job.model_name])


class NearestMeans:
    """The trained prototypes, for evaluation and for trying them on an image."""

    multi_label = False

    def __init__(self, classes: tuple[str, ...], means: np.ndarray, side: int) -> None:
        self.classes, self._means, self._side = classes, means, side

    def predict(self, images: Sequence[Image.Image]) -> list[Prediction]:
        scores = _scores(self._means, _pixels(images, self._side))
        return [Prediction(scores=row.astype(np.float32)) for row in scores]

    def network(self) -> Network:
        raise TrainingError(ErrorKind.UNSUPPORTED, "Prototypes are no network: nothing to export")


def _pixels(images: Sequence[Image.Image], side: int) -> np.ndarray:
    """Return (images, side · side · 3) in 0..1."""
    return np.stack([np.asarray(i.resize((side, side)), np.float64).ravel() / 255 for i in images])


def _scores(means: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return (images, classes) that add up to one: the nearer, the more."""
    distances = ((x[:, None] - means[None]) ** 2).sum(-1)
    near = np.exp(distances.min(1, keepdims=True) - distances)
    return near / near.sum(1, keepdims=True)


def _keep(path, state, reporter: Reporter) -> None:
    write_atomically(path, lambda file: np.savez(file, **state))
    reporter.artifact(path, kind="checkpoint")
