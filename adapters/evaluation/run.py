"""The evaluation of a trained model on a data set's splits, bounded in images, time and memory."""

from __future__ import annotations

import heapq
import io
import itertools
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from adapters.contract import ErrorKind, TaskType, TrainingError, TrainingJob
from adapters.data.content import Content, Sample
from adapters.evaluation import report
from adapters.evaluation.classification import ClassificationEvaluation
from adapters.evaluation.detection import DetectionEvaluation
from adapters.evaluation.semantic import SemanticEvaluation
from adapters.evaluation.verdict import Evaluation, Verdict
from adapters.files import write_atomically
from adapters.images import open_rgb
from adapters.prediction import Predictor

SPLITS = ("val", "test")
MOST_IMAGES = 5000  # of a split
MOST_WRONG = 12  # pictures of a split
BATCH = 16
_MOST_SCORES = 20_000_000  # of a classifier, kept at once: 80 MB


class Stopped(Exception):
    """The evaluation was asked to end before its end."""


def evaluate(
    job: TrainingJob,
    *,
    content: Content,
    predictor: Predictor,
    most_images: int = MOST_IMAGES,
    seconds: float = float("inf"),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Path]:
    """Write evaluation.json and the pictures of the most wrong images; return the files.

    At most ``most_images`` images of a split are looked at, drawn at random by the job's seed,
    and no more than fit into ``seconds``; ``on_progress`` hears how many are done of how many, and
    may raise :class:`Stopped`. Raises TrainingError where model and data set do not fit together.
    """
    if tuple(predictor.classes) != content.classes:
        raise TrainingError(
            ErrorKind.DATASET_INVALID,
            "the data set's classes are not those that the model was trained on",
            hint="It was changed since; clone the job to train on what it is now.",
        )
    if content.task_type == TaskType.IMAGE_CLASSIFICATION:
        most_images = min(most_images, max(500, _MOST_SCORES // max(len(content.classes), 1)))
    assert job.output_dir is not None
    chosen = {
        split: _choose(content.splits[split], most_images, seed=job.seed)
        for split in SPLITS
        if content.splits.get(split)
    }
    folder = job.output_dir / report.WRONG_FOLDER
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier attempt
    deadline, total, done = clock() + seconds, sum(map(len, chosen.values())), 0
    splits: dict[str, Any] = {}
    files: list[Path] = []
    for split, samples in chosen.items():
        began = clock()
        run = _Split(content, predictor)
        for looked_at in run.look_at(samples):
            done += looked_at
            on_progress(done, total)
            if clock() > deadline:
                break
        wrong = run.write_wrong(folder, split=split, base=content.path)
        files += [folder / entry["file"] for entry in wrong]
        splits[split] = {
            "images": run.images,
            "images_in_split": len(content.splits[split]),
            "seconds": round(clock() - began, 2),
            **run.evaluation.summary().to_json(),
            "wrong": wrong,
        }
    path = job.output_dir / report.FILE
    content_json = json.dumps(_whole(job, splits), ensure_ascii=False, allow_nan=False)
    write_atomically(path, lambda stream: stream.write(content_json.encode()))
    return [path, *files]


class _Split:
    """One split on its way through the model; keeps the pictures of the worst so far."""

    def __init__(self, content: Content, predictor: Predictor) -> None:
        self.images = 0
        self.evaluation = _evaluation(content, multi_label=predictor.multi_label)
        self._predictor = predictor
        self._worst: list[tuple[float, int, Sample, Verdict, bytes]] = []
        self._numbers = itertools.count()

    def look_at(self, samples: Sequence[Sample]) -> Iterator[int]:
        """Put images through the model; yield how many after each batch."""
        batches = [samples[i : i + BATCH] for i in range(0, len(samples), BATCH)]
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="evaluation-images") as reader:
            # The next batch is read while the model is at this one.
            following = reader.submit(_read, batches[0])
            for number, batch in enumerate(batches):
                images = following.result()
                if number + 1 < len(batches):
                    following = reader.submit(_read, batches[number + 1])
                predictions = self._predictor.predict(images)
                for sample, image, prediction in zip(batch, images, predictions, strict=True):
                    self._keep(sample, self.evaluation.add(sample, image, prediction))
                self.images += len(batch)
                yield len(batch)

    def write_wrong(self, folder: Path, *, split: str, base: Path) -> list[dict[str, Any]]:
        """Write the pictures, the worst first; return what the report tells of them."""
        entries = []
        worst = sorted(self._worst, key=lambda kept: (-kept[0], -kept[1]))
        for rank, (_, _, sample, verdict, picture) in enumerate(worst, start=1):
            name = f"{split}-{rank:02}.jpg"
            write_atomically(folder / name, partial(_write, picture))
            entries.append({"file": name, "image": _name(sample.image, base), **verdict.details})
        return entries

    def _keep(self, sample: Sample, verdict: Verdict) -> None:
        full = len(self._worst) == MOST_WRONG
        if verdict.badness <= 0 or (full and verdict.badness <= self._worst[0][0]):
            return
        # Drawn now and kept as a file's bytes: a dozen of them, however many images there are.
        picture = io.BytesIO()
        verdict.draw().convert("RGB").save(picture, "JPEG", quality=85)
        kept = Verdict(verdict.badness, verdict.details, draw=_drawn_already)
        entry = (verdict.badness, -next(self._numbers), sample, kept, picture.getvalue())
        if full:
            heapq.heapreplace(self._worst, entry)
        else:
            heapq.heappush(self._worst, entry)


def _evaluation(content: Content, *, multi_label: bool) -> Evaluation:
    if content.task_type == TaskType.IMAGE_CLASSIFICATION:
        return ClassificationEvaluation(content, multi_label=multi_label)
    if content.task_type == TaskType.SEMANTIC_SEGMENTATION:
        return SemanticEvaluation(content)
    return DetectionEvaluation(content)


def _choose(samples: Sequence[Sample], most: int, *, seed: int) -> list[Sample]:
    """Return samples in an order in which any first part of them speaks for the whole."""
    order = list(samples)
    random.Random(f"evaluation {seed}").shuffle(order)  # noqa: S311
    return order[:most]


def _read(samples: Sequence[Sample]) -> list[Image.Image]:
    return [open_rgb(sample.image) for sample in samples]


def _whole(job: TrainingJob, splits: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": report.VERSION,
        "task_type": str(job.task_type),
        "framework": job.framework,
        "model_name": job.model_name,
        "attempt": job.attempt,
        "dataset_fingerprint": job.dataset_fingerprint,
        "splits": splits,
    }


def _name(image: Path, base: Path) -> str:
    """Return an image's name below the data set's folder."""
    try:
        name = image.relative_to(base).as_posix()
    except ValueError:
        name = image.name
    return name.encode(errors="replace").decode()


def _write(content: bytes, stream: BinaryIO) -> None:
    stream.write(content)


def _drawn_already() -> Image.Image:
    raise AssertionError("the picture was drawn when the verdict was kept")
