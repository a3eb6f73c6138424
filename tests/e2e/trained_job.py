"""Jobs that have ended, with all that follows training, and the hand of a worker that answers."""

from __future__ import annotations

import base64
import dataclasses
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from redis import Redis

from adapters import wire
from adapters.contract import Best, DatasetFormat, Result, TaskType, TrainingJob
from adapters.data.reading import read_for
from adapters.finishing import RememberingReporter, finish
from adapters.images import open_rgb
from adapters.wire import AskKind, EventType, format_time
from tests.e2e.dashboard_server import Dashboard, Worker
from tests.predictors import ByColour
from tests.shapes import compose
from webapp.extensions import db
from webapp.models import Job
from webapp.services import exports
from webapp.services.executors import training_job
from workers.supervisor import describe_artifact
from workers.tool_answers import prediction_to_json


class Reports:
    """Passes an adapter's artifacts on as a worker does."""

    def __init__(self, worker: Worker, root: Path) -> None:
        self._worker = worker
        self._root = root

    def artifact(self, path: Path, *, kind: str) -> None:
        described = describe_artifact(path, root=self._root)
        self._worker.tells(EventType.ARTIFACT, **(described or {}), kind=kind)

    def log(self, line: str) -> None:
        self._worker.logs(line)

    def metrics(self, **told: Any) -> None:
        self._worker.measures(epoch=told["epoch"], **told["values"])

    def progress(self, **told: Any) -> None:
        pass

    def decided(self, name: str, value: Any, *, why: str) -> None:
        pass

    def should_stop(self) -> None:
        return None


class Loads:
    framework = "timm"

    def __init__(self, predictor: ByColour) -> None:
        self._predictor = predictor

    def train(self, job: TrainingJob, reporter: Any) -> Result:
        raise NotImplementedError

    def load(self, job: TrainingJob) -> Any:
        return self._predictor


class TrainedJob:
    """A job whose model knows the shapes by their colours; it ends when a test says so."""

    def __init__(self, dashboard: Dashboard, project: int, *, task_type: TaskType) -> None:
        self.dashboard = dashboard
        self.id = dashboard.job(project, f"shapes, {task_type}", started=True)
        self.worker = Worker(dashboard, self.id)
        format = DatasetFormat.YOLO
        if task_type == TaskType.IMAGE_CLASSIFICATION:
            format = DatasetFormat.IMAGEFOLDER
        data = compose(
            dashboard.home / f"shapes-{self.id}",
            format=format,
            task_type=task_type,
            train=3,
            val=12,
        )
        with dashboard.app.app_context():
            # The form has no data set of this task at hand; the row says what the job is.
            job = db.session.get_one(Job, self.id)
            job.task_type, job.dataset_format, job.dataset_path = task_type, format, str(data)
            db.session.commit()
            placed = training_job(job).placed(
                output_dir=dashboard.home / "outputs" / wire.job_folder(self.id),
                weights_dir=dashboard.home,
                compute_device="cpu",
            )
        self.job = dataclasses.replace(placed, dataset_fingerprint="5c" * 32)
        self.content = read_for(self.job)
        self.predictor = ByColour(
            self.content.classes, semantic=task_type == TaskType.SEMANTIC_SEGMENTATION
        )
        self.worker.starts()

    @property
    def image(self) -> Path:
        """Return an image of the validation split."""
        return self.content.splits["val"][0].image

    def follow_training(self) -> None:
        """Have the evaluation and the card written and told of."""
        root = self.job.output_dir
        assert root is not None
        (root / "checkpoints").mkdir(parents=True)
        best = root / "checkpoints" / "best.safetensors"
        best.write_bytes(b"a model")
        reporter = RememberingReporter(Reports(self.worker, root))
        reporter.metrics(epoch=1, values={"train_loss": 1.0, "val_loss": 1.1, "top1": 0.5})
        reporter.metrics(epoch=2, values={"train_loss": 0.5, "val_loss": 0.6, "top1": 0.66})
        reporter.artifact(best, kind="checkpoint")
        self.result = Result(
            epochs_completed=2,
            accuracy=0.66,
            best=Best(epoch=2, metric="top1", value=0.66),
            best_model_path=str(best),
        )
        finish(self.job, Loads(self.predictor), self.result, reporter)

    def ends(self) -> None:
        self.worker.tells(
            EventType.FINISHED, outcome="completed", result=self.result.to_json(), error=None,
            exit_code=0,
        )  # fmt: skip

    @contextmanager
    def answered(self) -> Iterator[None]:
        """Let a worker answer what is asked of the model, and a recorder follow its exports."""
        stopped = threading.Event()
        thread = threading.Thread(target=self._answer, args=(stopped,))
        thread.start()
        try:
            with self.dashboard.draining_worker("gpu-box-1"):
                yield
        finally:
            stopped.set()
            thread.join()

    def _answer(self, stopped: threading.Event) -> None:
        keys = [wire.ask_key("timm", kind) for kind in AskKind]
        with Redis.from_url(self.dashboard.redis_url) as client, self.dashboard.app.app_context():
            while not stopped.is_set():
                taken = client.blpop(keys, timeout=1)
                if taken is not None:
                    request = json.loads(taken[1])
                    answer = self._predict(request) if "image" in request else self._export(request)
                    client.rpush(wire.answer_key(request["id"]), json.dumps(answer))
                    exports.follow()
                    db.session.remove()

    def _predict(self, request: dict[str, Any]) -> dict[str, Any]:
        image = open_rgb(base64.b64decode(request["image"]))
        [prediction] = self.predictor.predict([image])
        told = prediction_to_json(
            prediction,
            job=self.job,
            predictor=self.predictor,
            image=image,
            threshold=request["threshold"],
        )
        return {"prediction": {**told, "seconds": 0.012}}

    def _export(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["format"] == "torchscript":
            message = "resnet18 cannot be exported to torchscript: it has a loop"
            hint = "Try the other format."
            return {"error": {"kind": "unsupported", "message": message, "hint": hint}}
        root = self.job.output_dir
        assert root is not None
        path = root / "exports" / "resnet18.onnx"
        path.parent.mkdir()
        path.write_bytes(b"exported at " + format_time(datetime.now(UTC)).encode())
        described = describe_artifact(path, root=root)
        return {
            "artifact": {**(described or {}), "kind": "export"},
            "largest_difference": 5.96e-08,
        }
